"""Small file work: `write_success_file`, `write_failure_file`, `read_file`, `read_json`, `write_file`, `tmpdir`."""

import contextlib
import json
import os
import shutil
import tempfile


def write_success_file():
    write_file(os.path.join(_output_dir(), "success"), "")


def write_failure_file(failure_msg):
    write_file(os.path.join(_output_dir(), "failure"), failure_msg)


def read_file(path, mode="r"):
    with open(path, mode) as f:
        return f.read()


def read_json(path):
    with open(path) as f:
        return json.load(f)


def write_file(path, data, mode="w"):
    with open(path, mode) as f:
        f.write(data)


@contextlib.contextmanager
def tmpdir(suffix="", prefix="tmp", dir=None):
    path = tempfile.mkdtemp(suffix=suffix, prefix=prefix, dir=dir)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _output_dir():
    from sagemaker_training import environment

    os.makedirs(environment.output_dir, exist_ok=True)
    return environment.output_dir
