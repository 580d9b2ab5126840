"""`install(name)`: the requirements of a script's folder, by pip. Running scripts (`run`) is not served."""

import os
import subprocess
import sys


def install(name, path=None, capture_error=False):
    """Installs requirements.txt of the folder, if there is one."""
    folder = path or os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY") or os.getcwd()
    requirements = os.path.join(folder, "requirements.txt")
    if os.path.exists(requirements):
        subprocess.check_call([sys.executable, "-m", "pip", "install", "-r", requirements])


def run(uri, user_entry_point, args, env_vars=None, **kwargs):
    raise NotImplementedError(f"sagemaker_containers.entry_point.run is not served: start {user_entry_point} yourself")
