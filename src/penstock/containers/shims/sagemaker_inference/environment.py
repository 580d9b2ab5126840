"""`Environment` of a serving container, and its folder constants."""

from sagemaker_containers._env import ServingEnv, code_dir, model_dir  # noqa: F401

base_dir = "/opt/ml"


class Environment(ServingEnv):
    """`model_dir`, `module_name`, `default_accept`, `http_port` …"""
