"""A disk that is full, wherever in a write that happens: what was acknowledged is there, what was not is refused and told.

The data folder lies on a small tmpfs, which a file fills to leave as much as the test likes; so it takes root.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.runs import sandbox
from tests.crash.families import Clan, raise_clan, until
from tests.crash.hostile import BUCKET, SETTINGS, Attack, Ring

KIB, MIB = 1 << 10, 1 << 20
STEPS = [*range(0, 64, 4), *range(64, 400, 48), 2048]
"""How much is left, in KiB: a write of the database fails in its first page, its tenth, and so on."""
pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk"),
]
WAITS = Attack(
    "waits",
    "import time\nprint('up', flush=True)\nwhile True:\n    print('x' * 1000, flush=True)\n    time.sleep(0.005)",
    "Failed",
)


class Small:
    """A family on a small disk."""

    def __init__(self, clan: Clan, disk: Path):
        self.clan, self.disk, self.ballast = clan, disk, disk / "ballast"
        self.s3, self.sm = clan.client("s3", 1), clan.client("sagemaker", 1)

    def leave(self, kib: int) -> None:
        """Fills the disk but for so much."""
        with open(self.ballast, "ab") as file:
            for _ in range(100):
                told = os.statvfs(self.disk)
                size = os.fstat(file.fileno()).st_size
                more = told.f_bavail * told.f_frsize - kib * KIB
                with suppress(OSError):  # somebody wrote meanwhile
                    return (
                        os.posix_fallocate(file.fileno(), size, more)
                        if more > 0
                        else os.truncate(file.fileno(), size + more)
                    )

    def free(self) -> None:
        self.ballast.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    disk = tmp_path_factory.mktemp("small")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m,mode=0700", "penstock-test", disk], check=False)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with raise_clan(disk, **SETTINGS) as clan:
            made = Small(clan, disk)
            made.s3.create_bucket(Bucket=BUCKET)
            yield made
            made.free()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def refused(call: Any, **params: Any) -> bool:
    """Whether a call is answered that nothing was written; any other failure is one of the test."""
    try:
        call(**params)
    except ClientError as fault:
        if fault.response["ResponseMetadata"]["HTTPStatusCode"] != 503:
            raise
        return True
    return False


def test_writes_on_a_full_disk_are_refused_or_durable(small: Small) -> None:
    acknowledged: dict[str, bytes] = {}
    groups, outcomes = set(), set()
    for kib in STEPS:
        small.leave(kib)
        for size in (100, 60 * KIB, 300 * KIB):
            key, body = f"full/{kib}-{size}", os.urandom(size)
            gone = refused(small.s3.put_object, Bucket=BUCKET, Key=key, Body=body)
            outcomes.add((size, gone))
            if not gone:
                acknowledged[key] = body
        if not refused(small.sm.create_model_package_group, ModelPackageGroupName=f"group-{kib}"):
            groups.add(f"group-{kib}")
    small.free()
    assert {(300 * KIB, True), (300 * KIB, False), (100, False)} <= outcomes  # it was met on both sides
    for key, body in acknowledged.items():
        assert small.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == body
    listed = {each["Key"] for each in small.s3.list_objects_v2(Bucket=BUCKET, Prefix="full/").get("Contents", [])}
    assert listed == set(acknowledged)
    found = small.sm.list_model_package_groups(MaxResults=100)["ModelPackageGroupSummaryList"]
    assert {each["ModelPackageGroupName"] for each in found} == groups
    with sqlite3.connect(small.clan.data / "penstock.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_a_job_on_a_full_disk_ends_and_its_end_is_told_when_there_is_room(small: Small) -> None:
    ring = Ring(small.clan)
    name = ring.begin(WAITS)
    until(lambda: " up\n" in ring.log(name), "the program runs", 60)
    small.leave(0)
    until(lambda: not small.clan.strays(f"hostile-{name}"), "the program is ended", 60)
    small.free()
    job = ring.ended(name, 120)
    assert job["ProcessingJobStatus"] == "Failed"
    assert "The server's disk is full" in job["FailureReason"]
    assert "attempt" not in ring.log(name)  # it was not lost
    ring.await_given_back(name)


def test_a_job_that_is_begun_on_a_full_disk_runs_when_there_is_room(small: Small) -> None:
    ring = Ring(small.clan)
    small.clan.kill("runner")  # so that it is not at once
    small.leave(200)
    name = ring.begin(Attack("later", "print('at last')", "Completed"))
    small.leave(0)
    until(lambda: small.clan.member("runner"), "the runner is back", 60)
    small.free()
    job = ring.ended(name, 120)
    assert (job["ProcessingJobStatus"], job.get("FailureReason")) == ("Completed", None)
    ring.await_given_back(name)
