"""Errors that a user can act on. The command line prints them as one line; its exit status says whether waiting may help."""

EXIT_USER_ERROR = 2
EXIT_TRANSIENT = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed a little later


class GkdError(Exception):
    """Something the user can mend. The message names the file or key, what was expected and what to do."""


class SettingsError(GkdError):
    """A setting is unknown, of the wrong type, or impossible."""


class DataError(GkdError):
    """A dataset, an image or a label is missing or is not what its entry declares."""


class WeightsError(GkdError):
    """A weights file is missing, unreadable, or does not fit the model."""


class TrainingError(GkdError):
    """Training cannot go on: the loss is not finite, or a checkpoint does not fit the run."""


class PlatformError(GkdError):
    """A service around the recipe (Prefect, MLflow, Ray, DVC) is missing or refuses."""


class TransientError(PlatformError):
    """What may pass by itself: a lost node, a store that does not answer. The same work, done again later, may succeed."""
