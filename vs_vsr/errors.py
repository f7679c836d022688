"""The errors a user can meet, each one sentence: what must hold, what was given, what to do now.

VsrError
├── ArgumentError   (also ValueError)  an argument breaks its rule
├── ShapeError      (also ValueError)  a tensor has the wrong shape
├── WeightsError                       a weights file is missing, damaged or of another network
├── DeviceError                        a device was asked for that is not there
└── BridgeError                        the compiled part is missing or of another version
"""

__all__ = [
    "ArgumentError",
    "BridgeError",
    "DeviceError",
    "ShapeError",
    "VsrError",
    "WeightsError",
]


class VsrError(Exception):
    """Base of every error that vs_vsr raises on purpose."""

    def __init__(self, sentence: str) -> None:
        """Take the sentence, with what is no text in it (in a file's name, say) written out."""
        super().__init__(sentence.encode("utf-8", "backslashreplace").decode())


class ArgumentError(VsrError, ValueError):
    """An argument of a filter or function breaks its rule."""


class ShapeError(VsrError, ValueError):
    """A tensor does not have the shape, or the kind of values, that was asked for."""


class WeightsError(VsrError):
    """A weights file is missing, damaged, or belongs to another network."""


class DeviceError(VsrError):
    """A device was asked for by name and is not there."""


class BridgeError(VsrError):
    """The compiled plugin is missing or does not fit this package."""
