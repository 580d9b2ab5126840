"""A container engine for tests: Docker's or Podman's that is up here, else a Podman started for the session; and an image with a Python."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from penstock import Refused

IMAGE = f"penstock-test-python-{os.getpid()}"
PYTHON = "/usr/bin/python3"
LEFT_OUT = ("__pycache__", "/test", "dist-packages", "/idlelib", "/lib2to3", "/ensurepip", "/config-3", "/tkinter", "/pydoc_data")
START_S = 60.0


def add_image(address: str, folder: Path, program: str = "") -> None:
    """Gives an engine the image of tests: this machine's system Python and its libraries, and a program `train`. No registry is asked."""
    from penstock.runs.docker import daemon

    archive = folder / "image.tar"
    _pack_python(archive, program)
    with daemon.reach(address).client() as client:
        client.import_image_from_data(archive.read_bytes(), repository=IMAGE)
    archive.unlink()


@contextmanager
def engine(folder: Path, program: str = "") -> Iterator[str]:
    """The address of an engine that has the image; skips the test where there is none, and says why."""
    try:
        from penstock.runs.docker import daemon
    except ImportError:
        pytest.skip("the extra `docker` is not installed")
    try:
        address = daemon.find_address(os.environ.get("PENSTOCK_TEST_DOCKER", "auto"), os.environ)
        daemon.reach(address)
    except Refused as why:
        if shutil.which("podman") is None or os.geteuid():
            pytest.skip(f"no container engine: {why} And no podman that root could start.")
        with _podman() as address:
            add_image(address, folder, program)
            yield address
        return
    add_image(address, folder, program)
    yield address
    with daemon.reach(address).client() as client:
        client.remove_image(IMAGE, force=True)


@contextmanager
def _podman() -> Iterator[str]:
    """A Podman with a store of its own."""
    place = Path(tempfile.mkdtemp(prefix="penstock-podman-"))
    address = f"unix://{place}/podman.sock"
    own = _storage(place)
    runtime = ["--runtime", "runc"] if shutil.which("runc") else []
    with open(place / "log", "wb") as log:
        service = subprocess.Popen(
            ["podman", *own, *runtime, "system", "service", "--time=0", address], stdout=log, stderr=log, cwd="/"
        )
    try:
        if why := _wait(address, service):
            pytest.skip(f"podman's service does not start here: {why} {(place / 'log').read_text()[-300:]}")
        yield address
    finally:
        service.terminate()
        service.wait()
        subprocess.run(["podman", *own, "rm", "--all", "--force"], capture_output=True, check=False)
        for mounted in (path for path in place.glob("*/overlay") if path.is_mount()):
            subprocess.run(["umount", mounted], capture_output=True, check=False)
        shutil.rmtree(place, ignore_errors=True)


def _storage(place: Path) -> list[str | Path]:
    """Where a Podman keeps its images: by layers where the kernel and the disk can, since copies take seconds a container."""
    for driver in ("overlay", "vfs"):
        own = ["--root", place / driver, "--runroot", place / "run", "--cgroup-manager", "cgroupfs", "--storage-driver", driver]
        if not subprocess.run(["podman", *own, "info"], capture_output=True, check=False, cwd="/").returncode:
            break
        shutil.rmtree(place / "run", ignore_errors=True)
    return own


def _wait(address: str, service: subprocess.Popen[bytes]) -> str:
    from penstock.runs.docker import daemon

    why, deadline = "", time.monotonic() + START_S
    while service.poll() is None and time.monotonic() < deadline:
        try:
            daemon.reach(address)
            return ""
        except Refused as refused:
            why = str(refused)
            time.sleep(0.05)
    return why or "it ended."


def _pack_python(archive: Path, program: str) -> None:
    binary = os.path.realpath(PYTHON)
    library = f"/usr/lib/{os.path.basename(binary)}"
    with tarfile.open(archive, "w") as tar:
        for name, target in {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", PYTHON: os.path.basename(binary)}.items():
            link = tarfile.TarInfo(name.lstrip("/"))
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        needed = {
            "usr" + name.removeprefix("/usr"): os.path.realpath(name)
            for name in _needed([binary, *Path(library, "lib-dynload").glob("*.so")]) if not name.startswith(library)
        }  # fmt: skip
        for above in sorted({str(path) for name in [*needed, "tmp/x"] for path in Path(name).parents} - {"."}):
            folder = tarfile.TarInfo(above)  # Docker makes those that are not named for nobody to enter
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, source in needed.items():
            tar.add(source, name)
        train = tarfile.TarInfo("usr/bin/train")
        data = f"#!{PYTHON}\n{program}".encode()
        train.size, train.mode = len(data), 0o755
        tar.addfile(train, io.BytesIO(data))
        tar.add(library, library.lstrip("/"), filter=lambda m: None if any(x in m.name for x in LEFT_OUT) else m)


def _needed(programs: list[str | Path]) -> set[str]:
    """Programs and the libraries that they load."""
    found = set(map(str, programs))
    with suppress(OSError):
        told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
        found |= {word for word in told.split() if word.startswith("/") and not word.endswith(":")}
    return found
