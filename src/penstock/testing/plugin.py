"""The option `--penstock`, and the session's folder; what tests use is imported only when it is asked for.

With pytest-xdist the controller makes the folder and tells its workers; the first of them that needs a server starts it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

OPTION = "--penstock"
FOLDER = pytest.StashKey[Path]()
STOP_S = 120


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("penstock")
    group.addoption(
        OPTION, action="store_true", help="Run tests that use the fixture `penstock` on a server of the session's."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Makes the session's folder and brings the fixtures; without the option, those that skip."""
    config.addinivalue_line("markers", "penstock: runs in an account of its own on a Penstock server (--penstock)")
    asked = config.getoption(OPTION)
    config.pluginmanager.import_plugin("penstock.testing.fixtures" if asked else "penstock.testing.absent")
    told = getattr(config, "workerinput", {}).get("penstock")
    if told:
        config.stash[FOLDER] = Path(told)
    elif asked:
        config.stash[FOLDER] = Path(tempfile.mkdtemp(prefix="penstock-tests-"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: tells a worker which folder is the session's."""
    if FOLDER in node.config.stash:
        node.workerinput["penstock"] = str(node.config.stash[FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops the server, where one was started, and deletes the folder."""
    folder = config.stash.get(FOLDER, None)
    if folder is None or hasattr(config, "workerinput"):
        return
    data = folder / "data"
    if (data / "server.json").exists():
        command = [sys.executable, "-m", "penstock", "down", "--jobs", "--data", str(data)]
        subprocess.run(command, check=False, capture_output=True, timeout=STOP_S)
    if (data / "images").is_symlink():
        (data / "images").unlink()  # the person's own
    shutil.rmtree(folder, ignore_errors=True)
