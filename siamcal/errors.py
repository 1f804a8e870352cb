"""Every error siamcal raises on purpose; the command line turns each into one clean message."""

__all__ = [
    "ConfigError",
    "DataNotFoundError",
    "FaceNotFoundError",
    "HubError",
    "LabelError",
    "MediaError",
    "MergePointError",
    "MissingDependencyError",
    "NeutralFrameError",
    "OutOfRangeError",
    "SiamcalError",
    "TrainingError",
    "UnknownNameError",
    "WeightsError",
]


class SiamcalError(Exception):
    """Base of all errors raised on purpose: what was given, what is allowed, what to do."""


class MergePointError(SiamcalError, ValueError):
    """A network can't be cut at the place that was named."""


class ConfigError(SiamcalError, ValueError):
    """A setting has a wrong name, type or value."""


class OutOfRangeError(ConfigError, IndexError):
    """A position names a sample that isn't there."""


class UnknownNameError(ConfigError, LookupError):
    """No backbone, recipe, data set, benchmark or merge form has that name."""

    def __str__(self) -> str:
        # LookupError's subclasses print the repr of their argument only for KeyError; be explicit.
        return str(self.args[0]) if self.args else ""


class FaceNotFoundError(SiamcalError, ValueError):
    """No face was found in an image."""


class NeutralFrameError(SiamcalError, ValueError):
    """A recording has no frame that could be a person's neutral reference."""


class MediaError(SiamcalError, ValueError):
    """An image, video or camera can't be read."""


class DataNotFoundError(SiamcalError, FileNotFoundError):
    """A data set isn't where it was looked for."""

    def __str__(self) -> str:
        # OSError formats two or more arguments as errno; here the message is always the first.
        return str(self.args[0]) if self.args else ""


class LabelError(SiamcalError, ValueError):
    """A label file is broken; the message names file and line."""


class MissingDependencyError(SiamcalError, ImportError):
    """An optional package or a system library is missing; the message says how to get it."""


class TrainingError(SiamcalError, RuntimeError):
    """Training can't go on; the message names the batch or the setting to change."""


class WeightsError(SiamcalError, ValueError):
    """A weights file is damaged, lies about its content, or doesn't fit the network."""


class HubError(SiamcalError, RuntimeError):
    """The Hugging Face Hub, or a mirror of it, refused or couldn't be reached."""
