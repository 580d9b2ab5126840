"""kill -9 in the middle of a first start: the next start makes whole what was half made."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from penstock.runs import sandbox
from tests.crash import workload
from tests.crash.families import Clan, free_port, process, processes, until

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]
SEED = int(os.environ.get("PENSTOCK_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
STARTS = 3
STARTED = (
    "credentials.json",
    "penstock.db",
    "ca",
    "server.lock",
    "runner.lock",
    "sockets/writer.sock",
    "sockets/front.sock",
)


def family_of(data: Path) -> list[int]:
    return [pid for pid in processes() if str(data) in process(pid, "cmdline") and pid != os.getpid()]


def start(clan: Clan) -> subprocess.Popen[bytes]:
    """Starts a keeper in the foreground, in a session of its own."""
    api, doorway = map(str, clan.ports)
    command = [clan.python, "-m", "penstock", "up", "--port", api, "--doorway-port", doorway]
    out = subprocess.DEVNULL
    return subprocess.Popen(command, env=clan.environment, cwd="/", stdout=out, stderr=out, start_new_session=True)


@pytest.mark.parametrize("moment", STARTED)
def test_a_start_killed_when_something_appears_is_made_good_by_the_next(tmp_path: Path, moment: str) -> None:
    clan = Clan(tmp_path / "data", ports=(free_port(), free_port()))
    first = start(clan)
    until(lambda: (clan.data / moment).exists() or first.poll() is not None, f"{moment} appears")
    first.kill()
    first.wait()
    works(clan)


def test_starts_killed_at_random_moments_are_made_good_by_the_next(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    print("seed", SEED)
    clan = Clan(tmp_path / "data", ports=(free_port(), free_port()))
    for _ in range(STARTS):
        first = start(clan)
        time.sleep(chance.uniform(0.1, 1.3))
        first.kill()
        first.wait()
    works(clan)


def test_an_account_whose_keys_are_lost_is_given_others(tmp_path: Path) -> None:
    clan = Clan(tmp_path / "data", ports=(free_port(), free_port()))
    works(clan)
    (clan.data / "credentials.json").unlink()  # as if killed after the account was made, and before its keys were written
    works(clan, "again")


def works(clan: Clan, bucket: str = "works") -> None:
    """The next start answers, with credentials that are good and a runner that runs."""
    clan.up()
    try:
        identity = clan.client("sts").get_caller_identity()
        assert identity["Account"] == clan.keys["account"]
        clan.client("s3").create_bucket(Bucket=bucket)
        assert clan.client("iam").get_role(RoleName="SageMakerExecutionRole")["Role"]["Arn"] == clan.keys["role_arn"]
        assert clan.member("runner")
        assert workload.failures(clan.log()) == []
    finally:
        clan.down()
    until(lambda: family_of(clan.data) == [], "all processes are gone")
    for pid in family_of(clan.data):
        os.kill(pid, signal.SIGKILL)
