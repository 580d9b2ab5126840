"""The old name of `sagemaker_training.content_types`."""

from sagemaker_training.content_types import *  # noqa: F403
