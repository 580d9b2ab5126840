"""Content types by name."""

from sagemaker_training.content_types import *  # noqa: F403

TEXT = "text/plain"
