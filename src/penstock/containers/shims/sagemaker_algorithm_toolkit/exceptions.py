"""Whose fault it was: the person's (`UserError`), the algorithm's, or the platform's."""


class BaseToolkitError(Exception):
    """A failure with a sentence, and what caused it."""

    def __init__(self, message=None, caused_by=None):
        text = message or (str(caused_by) if caused_by else "unknown error occurred")
        if caused_by:
            text += f" (caused by {type(caused_by).__name__})"
        super().__init__(text)
        self.message, self.caused_by = text, caused_by


class AlgorithmError(BaseToolkitError):
    """Something in the algorithm went wrong."""


class UserError(BaseToolkitError):
    """Something the person can put right: a hyperparameter, the data."""


class PlatformError(BaseToolkitError):
    """Something around the algorithm went wrong."""
