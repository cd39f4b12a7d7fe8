"""Errors that users cause or can mend: each says what was wrong and, where there is one, the fix.

The command line turns them into one line on stderr and an exit code; library users catch them.
"""


class RecalibError(Exception):
    """Something is wrong with the input, an artifact or the environment.

    `fix` names the command or flag that mends it.
    """

    exit_code = 1

    def __init__(self, message: str, fix: str | None = None):
        super().__init__(message)
        self.fix = fix


class UsageError(RecalibError):
    """An option has a value that can never work."""

    exit_code = 2


class PromptError(RecalibError):
    """A prompt source is missing, empty or malformed."""


class ArtifactError(RecalibError):
    """An artifact cannot be read, is not what it should be, or contradicts its use."""


class CorruptArtifactError(ArtifactError):
    """A file is not safetensors, or only part of one."""


class ModelError(RecalibError):
    """A model cannot be loaded, or has not the structure that recalib needs."""


class CalibrationError(RecalibError):
    """The shots cannot carry a threshold."""


class NoSeparationError(CalibrationError):
    """Unlabelled rows do not show two classes, so no threshold can be read off them."""

    exit_code = 3


class JudgeError(RecalibError):
    """A judge cannot be asked, or answers nothing of use."""


class BarNotMet(RecalibError):
    """A bar that the caller stated was not met."""

    exit_code = 3
