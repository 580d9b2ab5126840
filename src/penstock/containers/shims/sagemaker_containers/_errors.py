"""The old name of `sagemaker_training.errors`."""

from sagemaker_training.errors import *  # noqa: F403
