"""Errors that scripts catch or raise."""


class SageMakerError(Exception):
    """The root of the toolkit's errors."""


class ClientError(SageMakerError):
    """Something that the caller can put right."""


class ImportModuleError(SageMakerError):
    """A user's module cannot be imported."""


class InstallModuleError(SageMakerError):
    """A user's requirements cannot be installed."""


class ExecuteUserScriptError(SageMakerError):
    """A user's script ended with a non-zero code."""


class ChannelDoesNotExistError(SageMakerError):
    def __init__(self, channel_name):
        super().__init__(f"Channel {channel_name} is not a valid channel")


class UnsupportedFormatError(SageMakerError):
    """A content type that no encoder is for."""

    def __init__(self, content_type, **kwargs):
        self.content_type = content_type
        super().__init__(f"Content type {content_type} is not supported by this framework.", **kwargs)
