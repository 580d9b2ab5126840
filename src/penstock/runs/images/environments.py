"""Environments on disk: asked for by content, built by uv, renamed into place whole.

`<folder>/<digest>/layer` is a layer of roots with a relocatable virtual environment at `/opt/penstock/env` and a place for
its interpreter; `<folder>/<digest>/made.json` says what was asked and what became. What is being built lies in
`<folder>/.making-…`, and is removed by the next builder if its own died.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.runs.base import ImageError
from penstock.runs.images.indexes import read_indexes, redact
from penstock.runs.images.interpreters import (
    Interpreter,
    find_interpreter,
    install_interpreter,
    list_minors,
    minor_of,
    nearest_minors,
)
from penstock.runs.images.table import ML, TOOLS

FORMAT = 2
ENV = "/opt/penstock/env"
"""Where a run sees its environment."""
KEPT_S = 28 * 86400.0
"""How long a replaced environment stays: as long as a training job may run."""
SHIMS = Path(__file__).resolve().parents[2] / "containers" / "shims"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")
_UNSOLVED = ("No solution found", "--no-build", "no usable wheels", "no matching wheels", "only-binary")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an environment shall hold. Only this decides its digest."""

    python: str
    core: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    strict: bool = False
    """A person's own requirements: they are never loosened."""
    index: str = ""
    """An index that the exact packages are on; where it cannot be reached, what stands for them is looked for on the machine's."""
    only: str = ""
    """The package that `core` begins with, of which only builds of this local version ("cpu") are ever taken."""


@dataclass(slots=True)
class Made:
    """What became of it; kept as made.json."""

    asked: dict[str, Any]
    python: str
    base_prefix: str
    exact: bool
    libraries: dict[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    seconds: float = 0.0
    made: float = 0.0


@dataclass(frozen=True, slots=True)
class _Attempt:
    interpreter: Interpreter
    lines: tuple[str, ...]
    exact: bool
    index: str = ""


class Environments:
    """The folder of environments of one data folder; any number of processes may build in it at once."""

    def __init__(self, folder: Path, uv: str, environ: Mapping[str, str], fetch_python: bool = True):
        self.folder = folder
        self._uv = uv
        self._environ = dict(environ)
        self._fetch_python = fetch_python
        self._pythons = folder / "pythons"
        self._shims = _digest_tree(SHIMS)
        self._running: set[subprocess.Popen[str]] = set()
        self._guard = threading.Lock()
        self._closed = False

    def digest(self, wanted: Wanted) -> str:
        parts = [FORMAT, wanted.python, wanted.core, wanted.rest, wanted.strict, self._shims]
        text = json.dumps([*parts, wanted.index, wanted.only] if wanted.only else parts)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def layer(self, digest: str) -> Path:
        return self.folder / digest / "layer"

    def path(self, digest: str) -> Path:
        return self.layer(digest) / ENV.lstrip("/")

    def read(self, digest: str) -> Made | None:
        """The finished environment, if it is there and its interpreter still is."""
        try:
            made = Made(**json.loads((self.folder / digest / "made.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return made if (self.path(digest) / "bin" / "python").exists() else None

    def improvable(self, made: Made) -> bool:
        """Whether the interpreter that was missing when this was built has come since."""
        wanted = made.asked["python"]
        if made.exact or minor_of(made.python) == wanted:
            return False
        return find_interpreter(wanted, self._environ, self._pythons) is not None

    def lacks(self, wanted: Wanted, tried: bool) -> str:
        """Why there is no interpreter of the version that is wanted; empty where there is one, or one can be fetched.

        Takes: `tried`, whether fetching one was tried already.
        """
        if (self._fetch_python and not tried) or find_interpreter(wanted.python, self._environ, self._pythons):
            return ""
        why = "it could not be fetched" if self._fetch_python else "PENSTOCK_PYTHON_DOWNLOADS says not to fetch one"
        return f"there is no Python {wanted.python} (looked on PATH, in pyenv, among uv's own), and {why}."

    def build(self, wanted: Wanted, progress: Progress, again: bool = False) -> Made:
        """Builds the environment, or waits for the process that is building it.

        Raises: ImageError, with uv's last lines.
        """
        digest = self.digest(wanted)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(digest):
            made = self.read(digest)
            if made and not again and not self.improvable(made):
                return made
            for left in self.folder.glob(f".making-{digest}-*"):
                shutil.rmtree(left, ignore_errors=True)
            return self._build_first(wanted, digest, progress)

    def close(self) -> None:
        """Ends the builds under way."""
        with self._guard:
            self._closed = True
            for process in self._running:
                process.terminate()

    def _build_first(self, wanted: Wanted, digest: str, progress: Progress) -> Made:
        reasons: list[str] = []
        for attempt in self._attempts(wanted):
            making = Path(tempfile.mkdtemp(prefix=f".making-{digest}-", dir=self.folder))
            try:
                made = self._make(attempt, wanted, making, progress)
            except _Unsolved as unsolved:
                reasons.append(f"Python {attempt.interpreter.minor}: {unsolved}")
                progress(f"not to be had for Python {attempt.interpreter.minor}")
                continue
            else:
                self._place(making, digest)
                return made
            finally:
                shutil.rmtree(making, ignore_errors=True)
        if wanted.only and not reasons:
            raise ImageError(f"no {wanted.only} build of {requirement_name(wanted.core[0])} is to be had here")
        if reasons:
            raise ImageError("its packages are not to be had as wheels. " + reasons[0])
        raise ImageError(f"no Python {wanted.python} or near it is here (looked on PATH, in pyenv, among uv's own)")

    def _attempts(self, wanted: Wanted) -> Iterator[_Attempt]:
        yield from self._attempts_only(wanted) if wanted.only else self._attempts_plain(wanted)

    def _attempts_only(self, wanted: Wanted) -> Iterator[_Attempt]:
        """The exact builds, then the wheels of that local version that lie on this machine: never another build."""
        name, _, version = wanted.core[0].partition("==")
        loose = wanted.rest if wanted.strict else tuple(map(requirement_name, wanted.rest))
        if interpreter := self._find(wanted.python):
            yield _Attempt(interpreter, (*wanted.core, *wanted.rest), True)
            yield _Attempt(interpreter, (*wanted.core, *wanted.rest), True, wanted.index)
        for minor in (wanted.python, *nearest_minors(wanted.python, list_minors(self._environ, self._pythons))):
            near = find_interpreter(minor, self._environ, self._pythons)
            for found in read_indexes(self._environ).wheels(name, wanted.only, minor) if near else []:
                assert near is not None
                if found != version or minor != wanted.python:
                    yield _Attempt(near, (f"{name}=={found}", *loose), False)

    def _attempts_plain(self, wanted: Wanted) -> Iterator[_Attempt]:
        loose = (*wanted.core, *(wanted.rest if wanted.strict else map(requirement_name, wanted.rest)))
        interpreter = self._find(wanted.python)
        if interpreter:
            yield _Attempt(interpreter, (*wanted.core, *wanted.rest), True)
            if loose != (*wanted.core, *wanted.rest):
                yield _Attempt(interpreter, loose, False)
        for minor in nearest_minors(wanted.python, list_minors(self._environ, self._pythons)):
            near = find_interpreter(minor, self._environ, self._pythons)
            if near:
                yield _Attempt(near, loose, False)
        if not wanted.strict and wanted.core:
            default = find_interpreter(_own_minor(), self._environ, self._pythons)
            if default:
                yield _Attempt(default, ML, False)

    def _find(self, minor: str) -> Interpreter | None:
        found = find_interpreter(minor, self._environ, self._pythons)
        if found or not self._fetch_python:
            return found
        env = read_indexes(self._environ).for_uv(self._environ)
        if install_interpreter(self._uv, minor, self._pythons, env):
            return find_interpreter(minor, self._environ, self._pythons)
        return None

    def _make(self, attempt: _Attempt, wanted: Wanted, making: Path, progress: Progress) -> Made:
        started = time.monotonic()
        env = making / "layer" / ENV.lstrip("/")
        python = str(env / "bin" / "python")
        # A place to mount it on: bubblewrap would make one in each run's own root.
        (making / "layer" / attempt.interpreter.base_prefix.lstrip("/")).mkdir(parents=True, exist_ok=True)
        lines = [
            *attempt.lines,
            *(t for t in TOOLS if requirement_name(t) not in map(requirement_name, attempt.lines)),
        ]
        (making / "requirements.txt").write_text("\n".join(lines) + "\n")
        progress(f"Python {attempt.interpreter.version} ({attempt.interpreter.path}), {len(lines)} packages")
        venv = ["venv", "--relocatable", "--no-project", "--python", attempt.interpreter.path, str(env)]
        self._call(venv, making, progress)
        # a setup.py is its author's code: nothing is built outside a sandbox
        install = ["pip", "install", "--python", python, "--only-binary", ":all:", "--link-mode", "hardlink"]
        install += read_indexes(self._environ).arguments()
        if attempt.index:
            install += ["--index", attempt.index, "--index-strategy", "unsafe-best-match"]
        try:
            self._call([*install, "-r", str(making / "requirements.txt")], making, progress)
        except ImageError as error:
            if attempt.index:  # it cannot be reached
                raise _Unsolved(str(error)) from None
            raise
        site = _site_packages(env)
        for hook in ("_virtualenv.pth", "_virtualenv.py"):  # run at every start of a Python, for nothing
            (site / hook).unlink(missing_ok=True)
        self._copy_shims(site)
        progress("compiling")
        self._compile(site, python)
        made = Made(
            asked={"python": wanted.python, "core": list(wanted.core), "rest": list(wanted.rest)},
            python=attempt.interpreter.version,
            base_prefix=attempt.interpreter.base_prefix,
            exact=attempt.exact,
            libraries=_libraries(site),
            size_bytes=sum(p.lstat().st_size for p in env.rglob("*")),
            seconds=round(time.monotonic() - started, 2),
            made=time.time(),
        )
        (making / "made.json").write_text(json.dumps({k: getattr(made, k) for k in Made.__slots__}, indent=1))
        return made

    def _copy_shims(self, site: Path) -> None:
        for package in sorted(SHIMS.iterdir()) if SHIMS.is_dir() else []:
            # the originals win where somebody asked for them
            if package.is_dir() and package.name != "__pycache__" and not (site / package.name).exists():
                shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__"))

    def _compile(self, site: Path, python: str) -> None:
        """Byte-compiles what programs import: not the libraries' own tests, which are half of all files."""
        command = [python, "-I", "-m", "compileall", "-q", "-j", "0", "-x", r"/tests?/|/lib2to3/tests/", str(site)]
        subprocess.run(command, check=False, capture_output=True, cwd=site)

    def _call(self, words: list[str], cwd: Path, progress: Progress) -> None:
        env = read_indexes(self._environ).for_uv(self._environ)
        command = [self._uv, "--color", "never", "--no-progress", *words]
        with self._guard:
            if self._closed:
                raise ImageError("Penstock is closing")
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
            self._running.add(process)
        tail: list[str] = []
        try:
            with process:
                for line in process.stderr or ():
                    tail = [*tail[-40:], redact(line.rstrip())]
                    if words[0] == "pip" and tail[-1].startswith(("Resolved", "Prepared", "Installed", "Downloading")):
                        progress(tail[-1])
        finally:
            with self._guard:
                self._running.discard(process)
        if process.returncode == 0:
            return
        said = "\n".join(_telling(tail))
        if any(word in said for word in _UNSOLVED):
            raise _Unsolved(said)
        raise ImageError(f"uv could not build it (exit code {process.returncode}):\n{said}")

    def _place(self, making: Path, digest: str) -> None:
        target = self.folder / digest
        if target.exists():
            # runs may have it mounted: its files stay until none can
            target.rename(target.with_name(f".old-{digest}-{time.time_ns()}"))
        making.rename(target)
        target.chmod(0o755)
        for old in self.folder.glob(".old-*"):
            if time.time() - int(old.name.rpartition("-")[2]) > KEPT_S:
                shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def _locked(self, digest: str) -> Iterator[None]:
        with open(self.folder / f"{digest}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class _Unsolved(Exception):
    """These packages do not exist for this Python, in these versions, as wheels."""


def write_note(uri: str, wanted: Wanted, made: Made, differs: str = "") -> str:
    """The sentence at the head of a job's log: which image became what, and in what it differs."""
    names = [requirement_name(line) for line in wanted.core]
    held = [f"{name} {made.libraries[canonical(name)]}" for name in names if canonical(name) in made.libraries]
    parts = [differs] if differs else []
    if minor_of(made.python) != wanted.python:
        parts.append(f"Python {minor_of(made.python)} instead of {wanted.python}")
    for line in wanted.core:
        name, _, version = line.partition("==")
        key = canonical(name)
        now = made.libraries.get(key, "")
        if version and now != version:
            parts.append(f"{name} {now} instead of {version}" if now else f"no {name}")
    if not made.exact and not parts:
        parts.append("some of the lesser libraries have other versions")
    text = f"{uri} runs as Python {made.python}" + (f" with {', '.join(held)}" if held else "")
    if parts:
        return f"{text}; differs from the image: {'; '.join(parts)}"
    return f"{text}, as in the image" if wanted.core and not wanted.strict else text


def canonical(name: str) -> str:
    """A distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(line: str) -> str:
    """A requirement line's distribution."""
    match = _NAME.match(line)
    return match[0] if match else line


def _telling(lines: list[str]) -> list[str]:
    """The lines a person wants to read: uv's last ones, without warnings about interpreters."""
    start = next((i for i, line in enumerate(lines) if line.lstrip().startswith("error:")), 0)
    return [line for line in lines[start:] if line.strip()][:12]


def _own_minor() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _site_packages(env: Path) -> Path:
    return next((env / "lib").glob("python3*")) / "site-packages"


def _libraries(site: Path) -> dict[str, str]:
    found = {}
    for folder in site.glob("*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        found[canonical(name)] = version
    return dict(sorted(found.items()))


def _digest_tree(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")) if folder.is_dir() else []:
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def find_uv(environ: Mapping[str, str]) -> str:
    """The uv program: beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / "uv"
    if beside.exists():
        return str(beside)
    found = shutil.which("uv", path=environ.get("PATH", os.defpath))
    if not found:
        raise ImageError("uv is not to be found: install it beside Penstock (pip install uv)")
    return found
