"""The errors a user can meet. Each says what is wrong and what to do now.

VsrError
├── ArgumentError   (also ValueError)  an argument breaks its rule
├── ShapeError      (also ValueError)  a tensor has the wrong shape
├── WeightsError                       a weights file is missing, damaged or of another network
├── DeviceError                        a device does not exist, or has no memory left
├── BridgeError                        the compiled plugin is missing or of another version
└── JobError                           a file cannot be upscaled, or a job cannot go on
    └── StorageError                   a folder is full, cannot be written to, or is gone
"""

__all__ = [
    "ArgumentError",
    "BridgeError",
    "DeviceError",
    "JobError",
    "ShapeError",
    "StorageError",
    "VsrError",
    "WeightsError",
]


class VsrError(Exception):
    """Base of every error that vs_vsr raises on purpose."""

    def __init__(self, sentence: str) -> None:
        """Take the sentence; bytes in it that are not text (of a file name, say) are escaped."""
        super().__init__(sentence.encode("utf-8", "backslashreplace").decode())


class ArgumentError(VsrError, ValueError):
    """An argument of a filter or function breaks its rule."""


class ShapeError(VsrError, ValueError):
    """A tensor does not have the shape, or the kind of values, that it must have."""


class WeightsError(VsrError):
    """A weights file is missing, cannot be fetched, is damaged, or is of another network."""


class DeviceError(VsrError):
    """This machine does not have the device, or the device has no memory left."""


class BridgeError(VsrError):
    """The compiled plugin is missing, does not fit this package, or calls a filter that is gone."""


class JobError(VsrError):
    """A file cannot be upscaled as it is asked, or a job cannot go on."""


class StorageError(JobError):
    """A folder is full, cannot be written to, or is gone: what comes next would fail too."""
