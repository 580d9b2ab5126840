"""Errors of handlers."""


class UnsupportedFormatError(Exception):
    def __init__(self, content_type):
        self._message = f"Content type {content_type} is not supported by this framework."
        super().__init__(self._message)


class GenericInferenceToolkitError(Exception):
    """An error with its HTTP status and the sentence for the caller."""

    def __init__(self, status_code, message=None, phrase=None):
        self.status_code, self.message, self.phrase = int(status_code), message or "", phrase or ""
        super().__init__(status_code, message, phrase)


class BaseInferenceToolkitError(GenericInferenceToolkitError):
    """The root of errors that name a status."""
