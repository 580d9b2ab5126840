"""The test inside a job, as a user would submit it: by a server of this user and, by root, by one of another user."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

import penstock
from penstock.runs import sandbox
from tests.crash import workload
from tests.crash.families import Clan, process, processes, raise_clan, raise_foreign_clan, until
from tests.crash.test_stops import BUCKET, Desk

NOBODY = 65534
INSIDE = Path(__file__).with_name("inside.py").read_text()
DOORS = [
    ("127.0.0.1", 443),
    ("localhost", 80),
    ("169.254.169.254", 80),
    ("10.0.0.1", 443),
    ("[::1]", 443),
    ("2130706433", 80),
    ("example.com", 22),
]
pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]


class Told:
    """What the program told of its attempts, and what the host knows beside it."""

    def __init__(self, clan: Clan, told: dict[str, Any], job: dict[str, Any], desk: Desk):
        self.clan, self.told, self.job, self.desk = clan, told, job, desk

    def refused(self, *names: str) -> None:
        for name in names:
            assert self.told[name][0] == "refused", (name, self.told[name])


@pytest.fixture(scope="module", params=["this user", "nobody"])
def inside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    settings = {"cpus": "4", "memory_bytes": str(16 << 30), "grace_s": "1"}
    if request.param == "this user":
        home = tmp_path_factory.mktemp("home")
        raising = raise_clan(home, **settings)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can become another user")
        raising = raise_foreign_clan(NOBODY, **settings)
    try:
        clan = raising.__enter__()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    listening = socket.create_server(("127.0.0.1", 0))
    try:
        yield ask(clan, listening.getsockname()[1])
    finally:
        listening.close()
        raising.__exit__(None, None, None)


def ask(clan: Clan, port: int) -> Told:
    """Submits the program, and gives what it told."""
    desk, word = Desk(clan), f"canary-{os.getpid()}"
    home = Path(clan.env.get("HOME", os.environ.get("HOME", "/root")))
    places = {
        "the data folder": clan.data,
        "the home": home,
        "/var": Path("/var/tmp"),
        "/tmp": Path(tempfile.gettempdir()),
    }
    canaries = {name: folder / word for name, folder in places.items()}
    for path in canaries.values():
        path.write_text("a secret of the host")
        path.chmod(0o644)
    given = {
        "canaries": {name: str(path) for name, path in canaries.items()} | {"the credentials": str(clan.data / "credentials.json")},
        "word": word, "ports": [port, *clan.ports], "doors": DOORS, "data": str(clan.data), "bucket": BUCKET,
        "pids": [clan.keeper, *filter(None, (clan.member(name) for name in ("engine", "front", "runner")))],
    }  # fmt: skip
    desk.s3.put_object(Bucket=BUCKET, Key="inside/program.py", Body=INSIDE)
    desk.s3.put_object(Bucket=BUCKET, Key="given/given.json", Body=json.dumps(given))
    asked = desk.processing("inside")
    asked["ProcessingInputs"].append(workload.source("given", f"s3://{BUCKET}/given/"))
    asked["AppSpecification"]["ContainerArguments"] = ["600"]
    asked["Environment"] = {"WORD_OF_THE_JOB": word}
    try:
        desk.sm.create_processing_job(ProcessingJobName="inside", **asked)
        ended = ("Completed", "Failed", "Stopped")
        until(lambda: "TOLD " in desk.log("inside") or desk.job("inside")["Status"] in ended, "it tells", 120)
        log = desk.log("inside")
        assert "TOLD " in log, f"{log}\n{desk.job('inside')}"
    finally:
        for path in canaries.values():
            path.unlink()
    return Told(clan, json.loads(log.partition("TOLD ")[2].splitlines()[0]), desk.job("inside"), desk)


def test_it_has_no_capability(inside: Told) -> None:
    assert inside.told["capabilities"] == ["0" * 16] * 5


def test_it_cannot_change_its_world(inside: Told) -> None:
    inside.refused(
        "umount /usr", "umount /proc", "remount /usr", "remount the root", "mount a tmpfs", "unshare -U",
        "unshare(NEWUSER)", "chroot", "write /usr", "write a kernel setting", "ptrace pid 1",
    )  # fmt: skip


def test_what_it_writes_into_what_is_brought_along_stays_in_its_own_root(inside: Told) -> None:
    """The layer is every job's: a write makes a copy in the run's folder."""
    assert inside.told["write what is brought along"][0] == "done"
    (layer,) = (inside.clan.data / "runs").glob(".layer-*")
    entry = Path(penstock.__file__).parent / "containers" / "training" / "entry.py"
    assert (layer / "opt/penstock/containers/training/entry.py").read_bytes() == entry.read_bytes()


@pytest.mark.parametrize("place", ["the data folder", "the home", "/var", "/tmp", "the credentials"])
def test_it_cannot_read_what_is_the_hosts(inside: Told, place: str) -> None:
    inside.refused(f"read {place}", f"read {place} by the root of pid 1")


def test_no_canary_is_anywhere_in_its_root(inside: Told) -> None:
    assert inside.told["canaries found"] == []


def test_it_reaches_neither_the_hosts_loopback_nor_the_internet(inside: Told) -> None:
    inside.refused(
        "internet", "names", "runner's socket", *(name for name in inside.told if name.startswith("host loopback"))
    )


def test_the_doorway_does_not_lead_it_into_this_machine_or_its_network(inside: Told) -> None:
    answers = {name: told for name, told in inside.told.items() if name.startswith("doorway to")}
    assert len(answers) == len(DOORS)
    assert {told[1].split(" ", 1)[1] for told in answers.values()} <= {"403 Forbidden", "400 Bad Request"}, answers


def test_it_sees_only_its_own_processes_and_its_own_environment(inside: Told) -> None:
    assert inside.told["host pids"] == []
    assert len(inside.told["processes"]) <= 4
    own = inside.told["environment"]
    assert own["WORD_OF_THE_JOB"].startswith("canary-")
    leaked = {
        name
        for name in own
        if name.startswith("PENSTOCK") or name in ("SSH_AUTH_SOCK", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST")
    }
    assert leaked == set()


def test_its_secrets_are_on_no_command_line_and_in_no_environment_but_its_own(inside: Told) -> None:
    secret = inside.told["environment"]["AWS_SECRET_ACCESS_KEY"]
    seen = [pid for pid in processes() if secret in process(pid, "cmdline")]
    assert seen == []


def test_its_credentials_are_its_roles(inside: Told) -> None:
    for name in ("identity", "identity by AWS's own name"):
        done, answer = inside.told[name]
        assert done == "done", answer
        assert "assumed-role/SageMakerExecutionRole/SageMaker" in answer
    assert inside.told["an object"][0] == "done", inside.told["an object"]
    body = inside.desk.s3.get_object(Bucket=BUCKET, Key="from-inside")["Body"].read()
    assert body == b"from inside"


def test_the_socket_alone_is_no_permission(inside: Told) -> None:
    assert inside.told["an unsigned call"][0] == "refused"
    assert "403" in inside.told["an unsigned call"][1]


def test_programs_of_a_server_of_root_are_a_user_that_owns_nothing(inside: Told) -> None:
    word = inside.told["environment"]["WORD_OF_THE_JOB"]
    pids = [pid for pid in processes() if f"WORD_OF_THE_JOB={word}" in process(pid, "environ")]
    if not pids:
        pytest.skip("the environments of the job's processes are not ours to read")
    wanted = NOBODY if inside.clan.prefix else (sandbox.JOB_ID if os.geteuid() == 0 else os.geteuid())
    assert {
        int(line.split()[1]) for pid in pids for line in process(pid, "status").splitlines() if line.startswith("Uid:")
    } == {wanted}


def test_z_its_credentials_end_with_the_job(inside: Told) -> None:
    """The last one: it stops the job."""
    own = inside.told["environment"]
    keys = own["AWS_ACCESS_KEY_ID"], own["AWS_SECRET_ACCESS_KEY"], own["AWS_SESSION_TOKEN"]
    sts = boto3.Session(*keys, region_name="us-east-1").client(
        "sts", endpoint_url=str(inside.clan.about["url"]), config=Config(proxies={})
    )
    inside.desk.sm.stop_processing_job(ProcessingJobName="inside")
    assert inside.desk.ended("inside")["Status"] == "Stopped"
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        sts.get_caller_identity()
    sts.close()
    until(lambda: not inside.clan.strays(own["WORD_OF_THE_JOB"]), "all its processes are gone")
    until(lambda: not inside.clan.run_folders(), "its folder is given back")
    assert workload.failures(inside.clan.log()) == []
