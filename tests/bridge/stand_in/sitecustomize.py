"""Python runs this at the start of child processes that have this folder on PYTHONPATH."""

import sys
from types import ModuleType


class Filters(ModuleType):
    """Takes the place of vs_vsr.plugin.worker: no torch, no weights. Imported on first use."""

    def __getattr__(self, name: str) -> object:
        import stand_in_filters

        return getattr(stand_in_filters, name)


sys.modules["vs_vsr.plugin.worker"] = Filters("vs_vsr.plugin.worker")
