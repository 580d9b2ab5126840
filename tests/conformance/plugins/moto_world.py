"""pytest plugin for moto's suite: the parts of moto's own world that the tests take for granted.

Fake credentials in the environment are switched off; `localhost:5000`, written out in some tests, becomes the endpoint;
calls of `/moto-api/…` stay here unless the server is a moto (`--moto-api`); tests of SageMaker and Lambda find the roles that
they name, or would make with a trust policy that is none.
"""

from __future__ import annotations

import json
import os

import boto3
import pytest
import requests
from conformance import CALLS
from moto.core.config import default_user_config

ROLES = {"test_sagemaker/": (("FakeRole", "/"), ("FakeRoleTest", "/")), "test_awslambda/": (("my-role", "/my-path/"),)}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": ["sagemaker.amazonaws.com", "lambda.amazonaws.com"]},
        }
    ],
}
send = requests.Session.request


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("moto").addoption("--moto-api", action="store_true")


def pytest_configure(config: pytest.Config) -> None:
    default_user_config["core"]["mock_credentials"] = False
    endpoint = os.environ["TEST_SERVER_MODE_ENDPOINT"]
    is_moto = config.getoption("moto_api")

    def request(self, method, url, *args, **kwargs):  # type: ignore[no-untyped-def]
        url = str(url).replace("http://localhost:5000", endpoint)
        if "/moto-api/" in url and not is_moto:
            answer = requests.Response()
            answer.status_code, answer._content, answer.url = 200, b"{}", url
            return answer
        return send(self, method, url, *args, **kwargs)

    requests.Session.request = request


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for folder, roles in ROLES.items():
        if folder in item.nodeid:
            _make(roles)


def _make(roles: tuple[tuple[str, str], ...]) -> None:
    iam = boto3.client("iam", "us-east-1")
    for name, path in roles:
        try:
            iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=json.dumps(TRUST))
        except Exception:  # it is there already, or the server will say so in the test itself
            continue
    CALLS.clear()
