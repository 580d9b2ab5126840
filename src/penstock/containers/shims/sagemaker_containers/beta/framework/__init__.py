"""What inference and training scripts import from here: `content_types`, `encoders`, `env`, `errors`, `files`,
`mapping`, `params`, `worker` (its `Response`), `training_env()`. `modules`, `server`, `transformer` (the old web
server) are not served."""

from sagemaker_training import files, logging_config, mapping, params  # noqa: F401

from sagemaker_containers import _content_types as content_types  # noqa: F401
from sagemaker_containers import _encoders as encoders  # noqa: F401
from sagemaker_containers import _env as env
from sagemaker_containers import _errors as errors  # noqa: F401
from sagemaker_containers import entry_point  # noqa: F401
from sagemaker_containers.beta.framework import worker  # noqa: F401


def training_env():
    """The training environment of this container."""
    return env.TrainingEnv()
