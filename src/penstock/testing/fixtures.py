"""The fixtures: the session's server, and for each test an account with the environment that leads to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from penstock.testing.account import Account
from penstock.testing.plugin import FOLDER
from penstock.testing.session import SessionServer

FOREIGN = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ROLE_ARN")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that is marked has the fixture, though it does not name it."""
    for item in items:
        names = getattr(item, "fixturenames", None)
        if names is not None and item.get_closest_marker("penstock") and "penstock" not in names:
            names.insert(0, "penstock")


@pytest.fixture(scope="session")
def penstock_server(request: pytest.FixtureRequest) -> SessionServer:
    """The server that all tests of the session share; started when the first test needs it."""
    return SessionServer.reach(request.config.stash[FOLDER])


@pytest.fixture
def penstock(penstock_server: SessionServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An account of the test's own; AWS's clients that the test makes meanwhile are the account's."""
    account = Account(penstock_server.take_keys(), penstock_server.variables)
    for name in os.environ:
        if name in FOREIGN or name.startswith("AWS_ENDPOINT_URL_"):
            monkeypatch.delenv(name)
    for name, value in account.env.items():
        monkeypatch.setenv(name, value)
    if boto3 := sys.modules.get("boto3"):
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    yield account
    account.close()
