"""Jobs that mean harm, and what becomes of them, of the server's answers meanwhile, and of the disk.

    python -m tests.crash.hostile                 the whole sizes, one after another (`make chaos ARGS=hostile`)
    python -m tests.crash.hostile --only log      one of them

`test_hostile.py` runs the same programs in small.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash import workload
from tests.crash.families import PLAIN, Clan, raise_clan, until

BUCKET = "hostile"
GIB = 1 << 30
KINDS = {1: "ml.t3.small", 4: "ml.m5.large"}
SETTINGS = {"cpus": "2", "memory_bytes": str(GIB), "grace_s": "1"}


@dataclass(frozen=True)
class Attack:
    """A program, and what must become of its job."""

    name: str
    program: str
    status: str
    reason: str = ""
    """A regular expression that FailureReason matches."""
    log: str = ""
    """One that the log matches."""
    small: tuple[Any, ...] = ()
    """The program's arguments in the suite."""
    full: tuple[Any, ...] = ()
    runtime_s: int = 600
    small_runtime_s: int = 0
    volume_gib: int = 1
    full_volume_gib: int = 0
    keys: tuple[str, ...] = ()
    """The objects that it may publish; "*" for as many as its argument says."""
    heavy: bool = False
    """Not in the suite: it has no small size."""


ATTACKS = (
    Attack(
        "forks",
        """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
        "Stopped|Failed", reason="memory", small_runtime_s=4, runtime_s=20,
    ),
    Attack(
        "threads",
        """
import threading
made = 0
try:
    while True:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        made += 1
except RuntimeError:
    raise SystemExit(f"no more than {made} threads")
""",
        "Failed", reason=r"limit of 8192 processes was reached|memory",
    ),
    Attack("memory", "held = []\nwhile True: held.append(bytearray(32 << 20))", "Failed", reason="more memory"),
    Attack(
        "shm",
        """
with open("/dev/shm/bomb", "wb") as file:
    while True:
        file.write(bytes(16 << 20))
""",
        "Failed", reason="No space left|more memory",
    ),
    Attack(
        "writes",
        """
import os, sys, time
number = 0
while True:
    with open(f"/tmp/bomb{number}", "wb") as file:
        number += 1
        if sys.argv[1] == "small":
            os.posix_fallocate(file.fileno(), 0, 256 << 20)
            time.sleep(0.05)
        else:
            for _ in range(64):
                file.write(bytes(16 << 20))
""",
        "Failed", reason="disk space.*wrote more than 1024 MiB", small=("small",), full=("full",),
    ),
    Attack(
        "files",
        """
import os, sys
for number in range(int(sys.argv[1])):
    if number % 1000 == 0:
        os.mkdir(f"/tmp/{number}")
        os.chdir(f"/tmp/{number}")
    os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY))
import time; time.sleep(600)
""",
        "Failed", reason="disk space.*made more than 65536 files", full=(10_000_000,), heavy=True,
    ),
    Attack(
        "a million files",
        """
import os, sys
for number in range(int(sys.argv[1])):
    if number % 1000 == 0:
        os.mkdir(f"/tmp/{number}")
        os.chdir(f"/tmp/{number}")
    os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY))
""",
        "Completed", small=(1_000,), full=(1_000_000,), full_volume_gib=30,
    ),
    Attack(
        "log",
        """
import os, sys
line = b"x" * 1023 + b"\\n"
for _ in range(int(sys.argv[1])):
    os.write(1, line * 1024)
print("the end is told")
raise SystemExit("after all")
""",
        "Failed", reason="after all", small=(20,), full=(10 * 1024,),
    ),
    Attack(
        "deep",
        """
import os, sys
for number in range(int(sys.argv[1])):
    os.mkdir("d" * 100)
    os.chdir("d" * 100)
open("bottom", "w").write("x")
""",
        "Completed|Failed", reason="disk space", small=(3_000,), full=(50_000,),
    ),
    Attack(
        "deaf",
        """
import os, signal, sys, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
for _ in range(3):
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        for fd in range(3):
            os.close(fd)
        time.sleep(600)
while True:
    time.sleep(600)
""",
        "Stopped", small_runtime_s=2, runtime_s=5,
    ),
    Attack(
        "leaves others behind",
        """
import os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        time.sleep(600)
    os._exit(0)
""",
        "Completed",
    ),
    Attack(
        "kills all",
        """
import contextlib, os, signal
for pid in (-1, 1, os.getpid()):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
""",
        "Failed", reason="exit code: 137",
    ),
    Attack(
        "holes",
        """
import os
os.makedirs("/opt/ml/processing/out", exist_ok=True)
for number in range(100):
    os.truncate(os.open(f"/opt/ml/processing/out/{number}", os.O_CREAT | os.O_WRONLY), 1 << 42)
""",
        "Failed", reason="disk space.*holes",
    ),
    Attack(
        "odd outputs",
        """
import os, socket
out = "/opt/ml/processing/out"
os.makedirs(out, exist_ok=True)
open(f"{out}/good", "w").write("good")
os.symlink("/etc/passwd", f"{out}/passwd")
os.symlink("/proc/self/environ", f"{out}/environ")
os.symlink("/", f"{out}/root")
os.symlink("../../../../../../../../etc", f"{out}/up")
os.symlink("loop", f"{out}/loop")
os.mkfifo(f"{out}/pipe")
socket.socket(socket.AF_UNIX).bind(f"{out}/socket")
for kind in (0o60000, 0o20000):
    try:
        os.mknod(f"{out}/device{kind}", kind | 0o666, os.makedev(8, 0))
        print("a device was made")
    except OSError:
        pass
os.mkdir(f"{out}/closed", 0)
os.link(f"{out}/good", f"{out}/again")
""",
        "Completed", keys=("again", "good"),
    ),
    Attack(
        "too many outputs",
        """
import os, sys
os.makedirs("/opt/ml/processing/out", exist_ok=True)
os.chdir("/opt/ml/processing/out")
for number in range(int(sys.argv[1])):
    os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY))
""",
        "Failed", reason="disk space.*outputs are more than 100000 files", full=(1_000_000,), full_volume_gib=30, heavy=True,
    ),
    Attack(
        "many outputs",
        """
import os, sys
os.makedirs("/opt/ml/processing/out", exist_ok=True)
os.chdir("/opt/ml/processing/out")
for number in range(int(sys.argv[1])):
    os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY))
""",
        "Completed", full=(90_000,), full_volume_gib=30, heavy=True, keys=("*",),
    ),
    Attack(
        "connections",
        """
import os, resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held, deadline = [], time.monotonic() + float(__import__("sys").argv[1])
while time.monotonic() < deadline and len(held) < 15000:
    for port in (4600, 4601):
        try:
            held.append(socket.create_connection(("127.0.0.1", port), 1))
            held[-1].send(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n")
        except OSError:
            time.sleep(0.01)
print(len(held), "held", flush=True)
time.sleep(2)
""",
        "Completed", small=(2,), full=(30,),
    ),
    Attack(
        "watches",
        """
import ctypes, os, time
libc = ctypes.CDLL(None)
made = 0
while libc.inotify_init1(0) >= 0:
    made += 1
print(made, "instances", flush=True)
time.sleep(1)
""",
        "Completed", log="instances",
    ),
)  # fmt: skip


@dataclass
class Neighbour:
    """Somebody else's calls while an attack runs: how long each took, and whether one failed."""

    clan: Clan
    took_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __enter__(self) -> Neighbour:
        self._over = threading.Event()
        self._sm, self._s3 = self.clan.client("sagemaker", 1), self.clan.client("s3", 1)
        self._thread = threading.Thread(target=self._call)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _call(self) -> None:
        while not self._over.wait(0.02):
            for call in (
                self._sm.list_processing_jobs,
                lambda: self._s3.put_object(Bucket=BUCKET, Key="neighbour", Body=b""),
            ):
                began = time.monotonic()
                try:
                    call()
                except Exception as fault:
                    self.faults.append(repr(fault))
                self.took_s.append(time.monotonic() - began)

    def share(self, part: float) -> float:
        return sorted(self.took_s)[int(part * (len(self.took_s) - 1))]


class Ring:
    """A family that attacks are made upon."""

    def __init__(self, clan: Clan, full: bool = False):
        self.clan, self.full = clan, full
        self.sm, self.s3 = clan.client("sagemaker"), clan.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)  # us-east-1 takes it again
        self.job(Attack("prepares", "print('the image is there')", "Completed"))

    def job(self, attack: Attack) -> dict[str, Any]:
        """The Describe answer of an attack's job, once it has ended."""
        name = self.begin(attack)
        return self.ended(name, attack.runtime_s + 120)

    def begin(self, attack: Attack) -> str:
        name = re.sub(r"\W", "-", attack.name) + f"-{time.time_ns() // 1000}"
        self.s3.put_object(Bucket=BUCKET, Key=f"{name}/program.py", Body=attack.program)
        place = {
            "S3Uri": f"s3://{BUCKET}/{name}/out",
            "LocalPath": "/opt/ml/processing/out",
            "S3UploadMode": "EndOfJob",
        }
        arguments = [str(each) for each in (attack.full if self.full else attack.small)]
        volume = (self.full and attack.full_volume_gib) or attack.volume_gib
        self.sm.create_processing_job(
            ProcessingJobName=name,
            RoleArn=self.clan.keys["role_arn"],
            AppSpecification={
                "ImageUri": PLAIN, "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/program.py", *arguments],
            },
            ProcessingResources={
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": volume}
            },
            ProcessingInputs=[workload.source("code", f"s3://{BUCKET}/{name}/program.py")],
            ProcessingOutputConfig={"Outputs": [{"OutputName": "out", "S3Output": place}]},
            Environment={"WORD": f"hostile-{name}"},
            StoppingCondition={
                "MaxRuntimeInSeconds": (not self.full and attack.small_runtime_s) or attack.runtime_s
            },
        )  # fmt: skip
        return name

    def ended(self, name: str, seconds: float) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def over() -> bool:
            found.update(self.sm.describe_processing_job(ProcessingJobName=name))
            return found["ProcessingJobStatus"] in ("Completed", "Failed", "Stopped")

        until(over, f"{name} ends", seconds)
        return found

    def log(self, name: str) -> str:
        return "".join(path.read_text() for path in (self.clan.data / "logs").rglob(f"*{name}*/*") if path.is_file())

    def judge(self, attack: Attack, job: dict[str, Any]) -> list[str]:
        """What is not as it must be, of a job that has ended."""
        name, found = job["ProcessingJobName"], []
        if not re.fullmatch(attack.status, job["ProcessingJobStatus"]):
            found.append(f"{attack.name} is {job['ProcessingJobStatus']}: {job.get('FailureReason')}")
        elif job["ProcessingJobStatus"] == "Failed" and not re.search(attack.reason, job["FailureReason"], re.DOTALL):
            found.append(f"{attack.name}: its end is not told: {job['FailureReason']}")
        if attack.log and not re.search(attack.log, self.log(name)):
            found.append(f"{attack.name}: its log does not tell")
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{name}/out/")
        keys = tuple(each["Key"].rpartition("/out/")[2] for page in pages for each in page.get("Contents", []))
        if len(keys) != attack.full[0] if attack.keys == ("*",) else keys != attack.keys:
            found.append(f"{attack.name}: it published {keys[:9]}")
        return found

    def await_given_back(self, name: str, seconds: float = 120) -> None:
        """Waits until nothing of a run is there: no folder, no process, no credentials, no cgroup."""
        until(lambda: not self.clan.run_folders(), "the run's folder is given back", seconds)
        until(lambda: not self.clan.strays(f"hostile-{name}"), "no process is left", seconds)
        until(lambda: not self.clan.job_keys(), "no credentials are left", seconds)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args(arguments)
    faults: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="penstock-hostile-") as folder,
        raise_clan(Path(folder), **SETTINGS) as clan,
    ):
        ring = Ring(clan, full=not given.small)
        with Neighbour(clan) as calm:
            time.sleep(2)
        print(
            f"{'at rest':22} {len(calm.took_s):6} calls, p50 {calm.share(0.5) * 1e3:.0f} ms, p99 {calm.share(0.99) * 1e3:.0f} ms"
        )
        for attack in ATTACKS:
            if given.only not in attack.name or (given.small and attack.heavy):
                continue
            began = time.monotonic()
            with Neighbour(clan) as neighbour:
                job = ring.job(attack)
                ended_s = time.monotonic() - began
                ring.await_given_back(job["ProcessingJobName"])
            found = [*ring.judge(attack, job), *neighbour.faults]
            faults += found
            print(
                f"{attack.name:22} {job['ProcessingJobStatus']:9} after {ended_s:5.1f} s, all given back after "
                f"{time.monotonic() - began:5.1f} s; {len(neighbour.took_s)} calls, p50 {neighbour.share(0.5) * 1e3:.0f} ms, "
                f"p99 {neighbour.share(0.99) * 1e3:.0f} ms, longest {max(neighbour.took_s) * 1e3:.0f} ms; "
                f"{job.get('FailureReason', '')[-120:]!r} {found or ''}",
                flush=True,
            )
        faults += workload.failures(clan.log())
    print("faults:", *faults or ["none"], sep="\n  ")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
