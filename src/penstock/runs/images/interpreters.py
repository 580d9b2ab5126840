"""Python interpreters of this machine: on PATH, in pyenv, among uv's own. Nothing is installed without being asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_MINOR = re.compile(r"(\d+\.\d+)")
_ASK = (
    "import json,ssl,sys,zlib;"
    "print(json.dumps(['%d.%d.%d'%sys.version_info[:3],sys.base_prefix,sys.implementation.name]))"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that can be started: the file, its full version, the folder its standard library lies in."""

    path: str
    version: str
    base_prefix: str

    @property
    def minor(self) -> str:
        return minor_of(self.version)


def minor_of(version: str) -> str:
    """`3.9.18` is `3.9`."""
    match = _MINOR.match(version)
    return match[1] if match else version


def find_interpreter(minor: str, environ: Mapping[str, str], extra: Path | None = None) -> Interpreter | None:
    """The first interpreter of this minor version that starts and has ssl.

    Takes: `extra`, a folder of uv-managed Pythons to look into besides uv's own.
    """
    for candidate in _candidates(minor, environ, extra):
        found = ask_interpreter(candidate)
        if found and found.minor == minor:
            return found
    return None


def list_minors(environ: Mapping[str, str], extra: Path | None = None) -> list[str]:
    """Minor versions (3.7 and up) for which an interpreter may be there, by file names alone."""
    minors = {minor_of(".".join(map(str, sys.version_info[:2])))}
    for folder in _path_folders(environ):
        if "shims" not in folder.parts:
            minors.update(p.name[6:] for p in folder.glob("python3.*") if re.fullmatch(r"python3\.\d+", p.name))
    for versions in (_pyenv_versions(environ), *_uv_pythons(environ, extra)):
        if versions.is_dir():
            minors.update(m for p in versions.iterdir() if (m := _named_minor(p.name)))
    return sorted((m for m in minors if _number(m) >= 7), key=_number)


def nearest_minors(minor: str, available: list[str]) -> list[str]:
    """The available minors by distance from the wanted one; of two as far, the newer first."""
    return sorted((m for m in available if m != minor), key=lambda m: (abs(_number(m) - _number(minor)), -_number(m)))


def ask_interpreter(path: str) -> Interpreter | None:
    """Starts a Python and asks what it is. None: it does not start, is not CPython, or lacks ssl."""
    try:
        command = [path, "-I", "-S", "-c", _ASK]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env={"PATH": ""})
        version, base, name = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    real = Path(base).resolve()
    own = real / "bin" / f"python{minor_of(version)}"
    if name != "cpython":
        return None
    return Interpreter(str(own) if own.exists() else os.path.realpath(path), version, str(real))


def install_interpreter(uv: str, minor: str, folder: Path, environ: Mapping[str, str]) -> bool:
    """Has uv fetch a Python into `folder`. False, quietly and soon, where it cannot be had."""
    env = {**environ, "UV_PYTHON_INSTALL_DIR": str(folder), "UV_HTTP_RETRIES": "0"}
    env.setdefault("UV_HTTP_TIMEOUT", "10")
    try:
        done = subprocess.run(
            [uv, "python", "install", "--quiet", "--no-bin", minor], env=env, capture_output=True, timeout=300
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _candidates(minor: str, environ: Mapping[str, str], extra: Path | None) -> Iterator[str]:
    if minor == f"{sys.version_info[0]}.{sys.version_info[1]}":
        yield os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    versions = _pyenv_versions(environ)
    if versions.is_dir():
        for patch in sorted(versions.iterdir(), key=lambda p: _patch(p.name), reverse=True):
            if _named_minor(patch.name) == minor:
                yield str(patch / "bin" / f"python{minor}")
    for folder in _uv_pythons(environ, extra):
        for patch in sorted(folder.glob(f"cpython-{minor}.*"), key=lambda p: _patch(p.name), reverse=True):
            yield str(patch / "bin" / f"python{minor}")
    for folder in _path_folders(environ):
        for name in (f"python{minor}", "python3", "python"):
            # pyenv's shims answer for versions that are not switched on, and slowly
            if "shims" not in folder.parts and (folder / name).is_file():
                yield str(folder / name)


def _path_folders(environ: Mapping[str, str]) -> list[Path]:
    return [Path(p) for p in environ.get("PATH", "").split(os.pathsep) if p]


def _pyenv_versions(environ: Mapping[str, str]) -> Path:
    root = environ.get("PYENV_ROOT")
    return (Path(root) if root else Path(environ.get("HOME", "/nonexistent")) / ".pyenv") / "versions"


def _uv_pythons(environ: Mapping[str, str], extra: Path | None) -> list[Path]:
    data = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME", "/nonexistent")) / ".local" / "share")
    own = Path(environ.get("UV_PYTHON_INSTALL_DIR") or Path(data) / "uv" / "python")
    return [own, extra] if extra else [own]


def _named_minor(name: str) -> str:
    match = re.match(r"(?:cpython-)?(3\.\d+)\.\d+(?!t)(?:$|-)", name)
    return match[1] if match else ""


def _patch(name: str) -> int:
    match = re.search(r"3\.\d+\.(\d+)", name)
    return int(match[1]) if match else -1


def _number(minor: str) -> int:
    return int(minor.split(".")[1]) if "." in minor else -1
