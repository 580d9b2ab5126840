"""`TrainingEnv`, `ServingEnv`, and the folder constants under their old names."""

import os

from sagemaker_training.environment import (  # noqa: F401
    Environment,
    channel_path,
    code_dir,
    input_config_dir,
    input_dir,
    model_dir,
    num_cpus,
    num_gpus,
    output_data_dir,
    output_dir,
    read_hyperparameters,
    read_input_data_config,
    read_resource_config,
    write_env_vars,
)


class TrainingEnv(Environment):
    """The old name of `sagemaker_training.environment.Environment`."""


class ServingEnv:
    """What a serving container knows about itself."""

    def __init__(self):
        self.module_name = (os.environ.get("SAGEMAKER_PROGRAM") or "").rsplit(".py", 1)[0] or None
        self.module_dir = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY") or code_dir
        self.model_dir = os.environ.get("SM_MODEL_DIR", model_dir)
        self.num_cpus, self.num_gpus = num_cpus(), num_gpus()
        self.model_server_timeout = int(os.environ.get("SAGEMAKER_MODEL_SERVER_TIMEOUT") or 60)
        self.model_server_workers = int(os.environ.get("SAGEMAKER_MODEL_SERVER_WORKERS") or self.num_cpus)
        self.framework_module = os.environ.get("SAGEMAKER_SERVING_MODULE")
        self.default_accept = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or "application/json"
        self.http_port = os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080")
        self.safe_port_range = os.environ.get("SAGEMAKER_SAFE_PORT_RANGE")
