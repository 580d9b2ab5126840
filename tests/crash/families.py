"""Families of real processes whose members can be found, killed, and counted afterwards."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from uv import find_uv_bin

import penstock
from penstock import presence
from penstock.kernel.auth import KEY
from penstock.runs import runner
from penstock.store.records import Event, Query
from penstock.store.sqlite import SqliteReads

WAIT_S = 120.0
MEMBERS = ("front", "engine", "doorway", "porter")
PLAIN = "python:3.11"
IMAGES = Path(
    os.environ.get("PENSTOCK_TEST_IMAGES") or Path(tempfile.gettempdir()) / f"penstock-test-images-{os.getuid()}"
)
"""Environments of images that the families of a test run share, so that each is built once."""


def until(found: Callable[[], Any], what: str, seconds: float = WAIT_S) -> Any:
    """What `found` gives, once it is true."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
    return result


def process(pid: int | str, name: str) -> str:
    """What /proc tells of a process; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace").strip("\n")
    except OSError:
        return ""


def processes() -> Iterator[int]:
    """All processes that live (one that is dead and not yet reaped does not)."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        if process(name, "stat").rpartition(")")[2].split()[:1] not in ([], ["Z"], ["X"]):
            yield int(name)


@dataclass
class Clan:
    """A family on a folder of its own: brought up, killed in part or as a whole, brought up again at the same ports."""

    data: Path
    prefix: Sequence[str] = ()
    """What starts its processes: `setpriv` for another user's."""
    python: str = sys.executable
    env: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    ports: tuple[int, int] = (0, 0)

    # --- up and down

    def penstock(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the command line on this family's folder."""
        command = [*self.prefix, self.python, "-m", "penstock", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, cwd="/")

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PENSTOCK_DATA": str(self.data)} | self.env

    def exec_command(self, program: Sequence[str]) -> list[str]:
        """The command that runs a program with the way to this family in its environment."""
        return [*self.prefix, self.python, "-m", "penstock", "exec", "--", *program]

    def up(self) -> None:
        if not self.ports[0]:
            self.ports = (free_port(), free_port())
        api, doorway = map(str, self.ports)
        done = self.penstock("up", "--detach", "--port", api, "--doorway-port", doorway, "--json")
        assert done.returncode == 0, f"{done.stderr}\n{self.log()}"
        self.about = json.loads(done.stdout)
        self.keys = json.loads((self.data / "credentials.json").read_text())

    def up_again(self) -> None:
        """Brings it up once the last one has let go of the folder."""
        assert presence.await_gone(self.data, WAIT_S)
        self.up()

    def running(self) -> dict[str, Any]:
        """What the server of the folder tells of itself."""
        return until(lambda: presence.running(self.data), "a server is up")  # type: ignore[no-any-return]

    def down(self) -> None:
        done = self.penstock("down", "--jobs")
        assert done.returncode == 0, done.stderr

    def log(self) -> str:
        return (self.data / "server.log").read_text(errors="replace") if (self.data / "server.log").exists() else ""

    def client(self, service: str, attempts: int = 12) -> Any:
        """A boto3 client that tries again while the server is away, as every user's does."""
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts}, connect_timeout=5, read_timeout=60, proxies={},
            s3={"addressing_style": "path"}, max_pool_connections=50,
        )  # fmt: skip
        keys = self.keys["access_key_id"], self.keys["secret_access_key"]
        session = boto3.Session(*keys, region_name="us-east-1")
        return session.client(service, endpoint_url=str(self.about["url"]), config=config)

    # --- its members

    @property
    def keeper(self) -> int:
        return int(self.about["pid"])

    def member(self, name: str) -> int | None:
        """The pid of a member by its name."""
        if name == "keeper":
            return self.keeper
        if name == "runner":
            with suppress(OSError, ValueError):
                return int(runner.ask(self.data, {"op": "ping"})["pid"])
            return None
        for pid in process(self.keeper, f"task/{self.keeper}/children").split():
            if process(pid, "comm").startswith(f"penstock-{name}"):
                return int(pid)
        return None

    def supervisors(self) -> dict[str, int]:
        """The supervisors that have taken up a run, by the run's name."""
        found = {}
        for pid in processes():
            if process(pid, "comm") == "penstock-run":
                with suppress(OSError):
                    folder = Path(os.readlink(f"/proc/{pid}/cwd"))
                    # What it starts has its name until it is bubblewrap.
                    parent = [*process(pid, "stat").rpartition(")")[2].split()[1:2], "0"][0]
                    if folder.parent == self.data / "runs" and process(parent, "comm") != "penstock-run":
                        found[folder.name] = pid
        return found

    def strike(self, run: str) -> bool:
        """kill -9 of a run's supervisor; whether it had one. Held first: a moment later it may have another run."""
        pid = self.supervisors().get(run)
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            struck = self.supervisors().get(run) == pid
            os.kill(pid, signal.SIGKILL if struck else signal.SIGCONT)
            return struck
        return False

    def kill(self, name: str) -> bool:
        """kill -9 of a member; whether it was there. A keeper's children end with it."""
        pid = self.member(name)
        if pid is None:
            return False
        children = [] if name != "keeper" else [self.member(each) for each in MEMBERS]
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for gone in (pid, *filter(None, children)):
            until(lambda gone=gone: not process(gone, "comm") or is_dead(gone), f"the end of {name} ({gone})")
        return True

    def kill_all(self) -> None:
        """kill -9 of everything but the supervisors, at one moment."""
        pids = [pid for name in ("keeper", *MEMBERS, "runner") if (pid := self.member(name))]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            until(lambda pid=pid: is_dead(pid), f"the end of {pid}")

    # --- what is left

    def reads(self) -> SqliteReads:
        return SqliteReads(self.data / "penstock.db")

    def events(self) -> list[Event]:
        """The whole outbox."""
        reads = self.reads()
        try:
            return list(reads.events(0, limit=1_000_000))
        finally:
            reads.close()

    def job_keys(self) -> list[str]:
        """The runs whose access keys are still there."""
        reads = self.reads()
        try:
            return [
                key.body["_caller"]["run"]
                for key in reads.page(Query(kind=KEY, limit=10_000))
                if key.name[:4] == "ASIA"
            ]
        finally:
            reads.close()

    def run_folders(self) -> list[str]:
        return [path.name for path in (self.data / "runs").iterdir() if not path.name.startswith((".base-", ".layer-"))]

    def strays(self, word: str) -> list[str]:
        """Processes that runs left behind: with `word` in their environment, or below a run's folder without a supervisor."""
        supervisors, found = set(self.supervisors().values()), []
        for pid in processes():
            folder = ""
            with suppress(OSError):
                folder = os.readlink(f"/proc/{pid}/cwd")
            below = folder.startswith(str(self.data / "runs")) and pid not in supervisors
            if below or word in process(pid, "environ"):
                found.append(f"{pid} {process(pid, 'cmdline')[:200]!r}")
        return found

    def mounts(self) -> list[str]:
        return [line for line in process("self", "mountinfo").splitlines() if str(self.data) in line]


def is_dead(pid: int) -> bool:
    return process(pid, "stat").rpartition(")")[2].split()[:1] in ([], ["Z"], ["X"])


def free_port() -> int:
    """A free port that no outgoing connection is given, so that it is still free when the family comes again."""
    chance = random.Random(os.urandom(8))
    while True:
        port = chance.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def raise_clan(folder: Path, *, images: bool = True, **settings: str) -> Iterator[Clan]:
    """Brings a family up on a fresh folder, and takes it down with all its jobs.

    Takes: `images`, whether it uses the environments that are built already; settings, as PENSTOCK_ variables.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    if images:
        IMAGES.mkdir(parents=True, exist_ok=True)
        (data / "images").symlink_to(IMAGES)
    clan = Clan(data, env={f"PENSTOCK_{name.upper()}": value for name, value in settings.items()})
    clan.up()
    try:
        yield clan
    finally:
        with suppress(AssertionError):
            clan.down()
        for pid in clan.supervisors().values():  # of a test that failed
            os.kill(pid, signal.SIGKILL)


@contextmanager
def raise_foreign_clan(user: int, **settings: str) -> Iterator[Clan]:
    """The same as another user, on a folder of its own that only he reads; by root.

    Raises: FileNotFoundError without a Python that he may run.
    """
    place = Path(tempfile.mkdtemp(prefix="penstock-foreign-"))
    try:
        # Copies, since another user may not reach this checkout or this environment.
        site = place / "site"
        shutil.copytree(Path(penstock.__file__).parent, site / "penstock")
        libraries = Path(boto3.__file__).parent.parent
        for path in libraries.iterdir():
            if path.name.split("-")[0].split(".")[0] not in HEAVY and path.suffix != ".pth":
                (site / path.name).symlink_to(path) if path.name != "penstock" else None
        (place / "bin").mkdir()
        shutil.copy(find_uv_bin(), place / "bin" / "uv")
        home = place / "home"
        home.mkdir()
        shutil.chown(home, user, user)
        place.chmod(0o755)
        prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        python = find_python(prefix, site)
        env = {
            "PYTHONPATH": str(site), "HOME": str(home), "PATH": f"{place}/bin:/usr/local/bin:/usr/bin:/bin", "XDG_DATA_HOME": "",
            **{f"PENSTOCK_{name.upper()}": value for name, value in settings.items()},
        }  # fmt: skip
        clan = Clan(home / "data", prefix, python, env)
        clan.up()
        try:
            yield clan
        finally:
            with suppress(AssertionError):
                clan.down()
    finally:
        shutil.rmtree(place, ignore_errors=True)


HEAVY = ("pip", "numpy", "pandas", "sklearn", "scipy", "xgboost", "pyarrow", "hypothesis", "mypy", "pytest", "ruff")


def find_python(prefix: Sequence[str], site: Path) -> str:
    """A Python that another user may run, with our libraries.

    Raises: FileNotFoundError.
    """
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"  # compiled libraries are for one
    check = (
        "import sys, subprocess; subprocess.check_call([sys.executable, '-c', 'import penstock.keeper, penstock.cli'])"
    )
    for python in (os.path.realpath(sys.executable), f"/usr/bin/python{version}"):
        with suppress(OSError, subprocess.CalledProcessError):
            environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}
            subprocess.run([*prefix, python, "-c", check], check=True, capture_output=True, env=environment, cwd="/")
            return python
    raise FileNotFoundError(f"no Python {version} that another user may run")
