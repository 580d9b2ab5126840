"""`Environment`: what a training container knows about its job, from /opt/ml/input/config and SM_* variables.

Served: every property of the original; `to_cmd_args`, `to_env_vars`, `write_env_vars`, `read_hyperparameters`,
`read_resource_config`, `read_input_data_config`, `channel_path`, `num_cpus`, `num_gpus`, and the folder constants.
Differs: heterogeneous instance groups and model-parallel settings are always empty.
"""

import json
import logging
import multiprocessing
import os

from sagemaker_training import mapping, params

base_dir = os.environ.get(params.BASE_PATH_ENV, "/opt/ml")
code_dir = os.path.join(base_dir, "code")
model_dir = os.path.join(base_dir, "model")
input_dir = os.path.join(base_dir, "input")
input_config_dir = os.path.join(input_dir, "config")
_input_data_dir = os.path.join(input_dir, "data")
output_dir = os.path.join(base_dir, "output")
output_data_dir = os.path.join(output_dir, "data")
output_intermediate_dir = os.path.join(output_dir, "intermediate")


def _read_json(name, default):
    try:
        with open(os.path.join(input_config_dir, name)) as f:
            return json.load(f)
    except OSError:
        return default


def read_hyperparameters():
    """hyperparameters.json with its values taken as JSON where they are JSON."""
    found = {}
    for key, value in _read_json("hyperparameters.json", {}).items():
        try:
            found[key] = json.loads(value)
        except (ValueError, TypeError):
            found[key] = value
    return found


def read_resource_config():
    return _read_json("resourceconfig.json", {"current_host": "algo-1", "hosts": ["algo-1"]})


def read_input_data_config():
    return _read_json("inputdataconfig.json", {})


def channel_path(channel):
    return os.path.join(_input_data_dir, channel)


def num_cpus():
    """What the instance type has: SM_NUM_CPUS where it is set, else this machine's."""
    return int(os.environ.get("SM_NUM_CPUS") or multiprocessing.cpu_count())


def num_gpus():
    return int(os.environ.get("SM_NUM_GPUS") or 0)


class Environment:
    """The training environment. It can also be taken as a mapping: `dict(env)`."""

    def __init__(self, resource_config=None, input_data_config=None, hyperparameters=None):
        resources = resource_config or read_resource_config()
        channels = input_data_config or read_input_data_config()
        given = hyperparameters or read_hyperparameters()
        own = {k: v for k, v in given.items() if k.startswith(params.SAGEMAKER_PREFIX)}

        self.resource_config = resources
        self.input_data_config = channels
        self.hyperparameters = {k: v for k, v in given.items() if k not in own and k != params.TUNING_METRIC_PARAM}
        self.additional_framework_parameters = {
            k: v for k, v in own.items() if k not in (params.USER_PROGRAM_PARAM, params.SUBMIT_DIR_PARAM)
        }
        self.channel_input_dirs = {name: channel_path(name) for name in channels}
        self.current_host = resources.get("current_host", "algo-1")
        self.hosts = resources.get("hosts", [self.current_host])
        self.current_instance_type = resources.get("current_instance_type", "local")
        self.current_instance_group = resources.get("current_group_name", "homogeneousCluster")
        self.instance_groups_dict = {g["instance_group_name"]: g for g in resources.get("instance_groups", [])}
        self.instance_groups = list(self.instance_groups_dict)
        self.current_instance_group_hosts = self.hosts
        self.distribution_hosts = self.hosts
        self.distribution_instance_groups = []
        self.is_hetero = False
        self.topology = resources.get("topology", [])
        self.network_interface_name = resources.get("network_interface_name", "eth0")
        self.master_hostname = sorted(self.hosts)[0]
        self.is_master = self.current_host == self.master_hostname

        self.base_dir, self.model_dir, self.code_dir = base_dir, os.environ.get("SM_MODEL_DIR", model_dir), code_dir
        self.input_dir, self.input_config_dir = input_dir, input_config_dir
        self.output_dir, self.output_intermediate_dir = output_dir, output_intermediate_dir
        self.output_data_dir = os.environ.get("SM_OUTPUT_DATA_DIR", output_data_dir)
        self.num_cpus, self.num_gpus, self.num_neurons = num_cpus(), num_gpus(), 0

        program = own.get(params.USER_PROGRAM_PARAM) or os.environ.get(params.USER_PROGRAM_ENV)
        self.user_entry_point = program
        self.module_name = program[:-3] if program and program.endswith(".py") else program
        self.module_dir = str(own.get(params.SUBMIT_DIR_PARAM) or os.environ.get(params.SUBMIT_DIR_ENV) or code_dir)
        self.log_level = int(own.get(params.LOG_LEVEL_PARAM) or os.environ.get(params.LOG_LEVEL_ENV) or logging.INFO)
        self.framework_module = os.environ.get(params.FRAMEWORK_TRAINING_MODULE_ENV)
        self.job_name = os.environ.get("TRAINING_JOB_NAME") or os.environ.get("SM_JOB_NAME")
        self.sagemaker_s3_output = own.get(params.S3_OUTPUT_LOCATION_PARAM)
        self.is_modelparallel_enabled = self.is_smddprun_installed = self.is_smddpmprun_installed = False

    def to_cmd_args(self):
        return mapping.to_cmd_args(self.hyperparameters)

    def to_env_vars(self):
        """SM_HOSTS, SM_CHANNEL_TRAIN, SM_HP_… as programs of the container see them."""
        names = (
            "hosts network_interface_name user_entry_point resource_config input_data_config output_data_dir "
            "current_host current_instance_type current_instance_group current_instance_group_hosts instance_groups "
            "instance_groups_dict distribution_instance_groups is_hetero module_name log_level framework_module "
            "input_dir input_config_dir output_dir num_cpus num_gpus num_neurons model_dir module_dir "
            "output_intermediate_dir"
        ).split()
        env = {name: getattr(self, name) for name in names}
        env["hps"] = self.hyperparameters
        env["framework_params"] = self.additional_framework_parameters
        env["channels"] = sorted(self.channel_input_dirs)
        env["user_args"] = self.to_cmd_args()
        env["training_env"] = dict(self)
        for name, path in self.channel_input_dirs.items():
            env["channel_" + name] = path
        for name, value in self.hyperparameters.items():
            env["hp_" + name] = value
        return mapping.to_env_vars(env)

    def keys(self):
        return sorted(k for k in vars(self) if not k.startswith("_"))

    def __iter__(self):
        return iter(self.keys())

    def __len__(self):
        return len(self.keys())

    def __getitem__(self, name):
        try:
            return vars(self)[name]
        except KeyError:
            raise KeyError(f"Trying to access invalid key {name}") from None


def write_env_vars(env_vars=None):
    """Puts them into this process's environment."""
    os.environ.update(env_vars or {})
