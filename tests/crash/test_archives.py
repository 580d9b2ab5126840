"""Archives, keys and outputs that lead out of a job, or blow up: they stay inside, the job says why, the host is unharmed."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.runs import sandbox
from tests.crash import workload
from tests.crash.families import raise_clan
from tests.crash.test_stops import BUCKET, Desk

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]
SCRIPT = "import os; print('ran'); print(sorted(os.listdir('.')))"
MARK = f"penstock-archive-{os.getpid()}"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with raise_clan(tmp_path_factory.mktemp("archives"), cpus="4", memory_bytes=str(32 << 30), grace_s="1") as clan:
        yield Desk(clan)


def member(name: str, data: bytes = b"out", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data) if not more.get("type") else 0
    for attribute, value in more.items():
        setattr(info, attribute, value)
    return info, data if not more.get("type") else b""


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for info, data in [member("train.py", SCRIPT.encode()), *members]:
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def bomb(gib: int) -> bytes:
    """An archive of some MB with a file of zeros in it: the compressed zeros are repeated, as gzip allows."""
    info = tarfile.TarInfo("zeros")
    info.size = gib << 30
    script = member("train.py", SCRIPT.encode())
    head = script[0].tobuf() + script[1] + b"\0" * (-len(script[1]) % 512) + info.tobuf()
    return gzip.compress(head) + gzip.compress(b"\0" * (64 << 20)) * (gib * 16) + gzip.compress(b"\0" * 1024)


def train(desk: Desk, name: str, data: bytes) -> dict[str, Any]:
    key = f"evil/{name}/sourcedir.tar.gz"
    desk.s3.put_object(Bucket=BUCKET, Key=key, Body=data)
    given = desk.training("hold")
    given["HyperParameters"] = {"sagemaker_program": "train.py", "sagemaker_submit_directory": f"s3://{BUCKET}/{key}"}
    desk.sm.create_training_job(TrainingJobName=name, **given)
    return desk.ended(name)


LEADING_OUT: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {
    "parent": [member(f"../../../../../../../../tmp/{MARK}")],
    "absolute": [member(f"/tmp/{MARK}")],
    "hidden-parent": [member(f"a/../../../../../../tmp/{MARK}")],
    "link-out": [member("out", type=tarfile.SYMTYPE, linkname="/tmp"), member(f"out/{MARK}")],
    "relative-link-out": [member("a/out", type=tarfile.SYMTYPE, linkname="../../../../tmp"), member(f"a/out/{MARK}")],
    "hard-link-out": [member("passwd", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "device": [member("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0)],
    "terminal": [member("tty", type=tarfile.CHRTYPE, devmajor=5, devminor=0)],
    "pipe": [member("pipe", type=tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("kind", LEADING_OUT)
def test_an_archive_that_leads_out_fails_its_job_with_a_sentence(desk: Desk, kind: str) -> None:
    job = train(desk, f"out-{kind}", archive(*LEADING_OUT[kind]))
    assert job["Status"] == "Failed"
    assert "the code's archive has a " in job["FailureReason"], job["FailureReason"]
    assert "ran" not in desk.log(f"out-{kind}")
    assert not Path("/tmp", MARK).exists()


def test_names_that_look_dangerous_and_are_not_are_unpacked(desk: Desk) -> None:
    harmless = [member("a/../b"), member("..c"), member("good", type=tarfile.SYMTYPE, linkname="b")]
    job = train(desk, "harmless", archive(*harmless))
    assert job["Status"] == "Completed", job["FailureReason"]
    assert "['..c', 'b', 'good', 'train.py']" in desk.log("harmless")


def test_what_is_no_archive_is_told(desk: Desk) -> None:
    job = train(desk, "torn", archive()[:60])
    assert job["Status"] == "Failed"
    assert "cannot be unpacked" in job["FailureReason"]


def test_a_bomb_ends_at_the_jobs_disk(desk: Desk) -> None:
    before = os.statvfs(desk.clan.data)
    job = train(desk, "bomb", bomb(2))
    assert job["Status"] == "Failed"
    told = "ClientError: The job needs more disk space than it has; raise VolumeSizeInGB. It wrote more than 1024 MiB."
    assert job["FailureReason"] == told
    after = os.statvfs(desk.clan.data)
    assert after.f_bavail * after.f_frsize > before.f_bavail * before.f_frsize - (3 << 30)


def process(desk: Desk, name: str, program: str, **more: Any) -> dict[str, Any]:
    desk.s3.put_object(Bucket=BUCKET, Key=f"{name}/program.py", Body=program)
    given = desk.processing(name)
    given["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"] = f"s3://{BUCKET}/out/{name}"
    given["ProcessingInputs"] += more.pop("inputs", [])
    desk.sm.create_processing_job(ProcessingJobName=name, **given)
    return desk.ended(name)


def outputs(desk: Desk, name: str) -> dict[str, bytes]:
    listed = desk.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"out/{name}/").get("Contents", [])
    read: Callable[[str], bytes] = lambda key: bytes(desk.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())  # noqa: E731
    return {found["Key"].removeprefix(f"out/{name}/"): read(found["Key"]) for found in listed}


def test_outputs_are_what_the_job_wrote_and_nothing_that_its_links_point_at(desk: Desk) -> None:
    program = """
import os, socket
os.chdir("/opt/ml/processing/out")
open("own", "w").write("mine")
os.symlink("own", "link")
os.symlink("/etc/passwd", "passwd")
os.symlink("/", "root")
os.symlink("/proc/self/environ", "environ")
os.mkfifo("pipe")
socket.socket(socket.AF_UNIX).bind("socket")
os.mkdir("folder")
os.symlink("..", "folder/up")
os.link("own", "again")
"""
    job = process(desk, "links", program)
    assert job["Status"] == "Completed"
    assert outputs(desk, "links") == {"own": b"mine", "again": b"mine"}


def test_an_output_folder_that_became_a_link_gives_nothing(desk: Desk) -> None:
    program = """
import os
os.rmdir("/opt/ml/processing/out")
os.symlink("/etc", "/opt/ml/processing/out")
"""
    assert process(desk, "became", program)["Status"] == "Completed"
    assert outputs(desk, "became") == {}


def test_a_file_of_holes_is_a_full_disk(desk: Desk) -> None:
    job = process(desk, "holes", "open('/opt/ml/processing/out/x', 'w').truncate(1 << 43)")
    assert job["Status"] == "Failed"
    assert "more disk space" in job["FailureReason"]


def test_keys_that_are_no_file_names_stay_below_the_inputs_folder(desk: Desk) -> None:
    for key in ("keys/../../../etc/evil", "keys//double", "keys/a", "keys/a/b", "keys/" + "x" * 600, "keys/./dot"):
        desk.s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    program = """
import os
assert not os.path.exists("/etc/evil")
for folder, _, names in os.walk("/opt/ml/processing/keys"):
    for name in names:
        print("found", open(os.path.join(folder, name)).read()[:30])
"""
    job = process(desk, "keys", program, inputs=[workload.source("keys", f"s3://{BUCKET}/keys/")])
    assert job["Status"] == "Completed", job.get("FailureReason")
    assert desk.log("keys").count("found keys/") == 6


def test_the_family_is_unharmed(desk: Desk) -> None:
    assert workload.failures(desk.clan.log()) == []
