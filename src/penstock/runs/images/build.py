"""Builds an image from a Dockerfile: each RUN, and each group of COPYs between them, is a run in the sandbox whose writes
become a layer. Nothing of the Dockerfile is executed, and no archive is opened, outside of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import posixpath
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from penstock.runs import handout, runner
from penstock.runs.base import ENDED, LOST, STARTING, ImageError, Input, Instance, Mount, RunSpec, RunState
from penstock.runs.folder import KEPT, Order, RunFolder, Setup
from penstock.runs.images import dockerfile
from penstock.runs.images.built import MOST_LAYERS, Built
from penstock.runs.images.context import Context
from penstock.runs.images.dockerfile import Instruction
from penstock.runs.images.registry import Ground, LocalImages
from penstock.runs.trees import remove_tree

FORMAT = 1
CONTAINERS = Path(__file__).resolve().parents[2] / "containers"
INSIDE = "/opt/penstock/containers"
CONTEXT = "/opt/penstock/context"
LOOK_S = 0.02
ASK_AGAIN_S = 2.0
TAIL_LINES = 25

Say = Callable[[str], None]


@dataclass(slots=True)
class Workshop:
    """Where builds are done: a data folder whose server is up."""

    data: Path
    setup: Setup
    images: LocalImages
    env: dict[str, str] = field(default_factory=dict)
    """What every instruction's program has in its environment, beside the image's own; none of it stays in the image."""
    inputs: list[Input] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    timeout_s: float = 3600.0
    fresh: bool = False
    """Makes every layer anew."""


@dataclass(slots=True)
class _Place:
    """One source on its way into the image."""

    told: dict[str, Any]
    digest: str
    lay: Callable[[Path], None]


class Build:
    """One build. Takes: `say`, which hears a line at a time."""

    def __init__(self, workshop: Workshop, folder: Path, file: Path, arguments: dict[str, str], say: Say):
        self._shop, self._say, self._given = workshop, say, arguments
        self._name = file.name
        text = file.read_text()
        self._instructions, self._warnings = dockerfile.parse(text), dockerfile.warnings(text)
        self._context = Context(folder, file)
        self._used: set[str] = set()
        self._early: dict[str, str] = {}
        self._args: dict[str, str] = {}
        self._places: list[_Place] = []
        self._layers: list[str] = []
        self._env: dict[str, str] = {}
        self._cwd, self._key = "/", ""
        self._entrypoint: list[str] = []
        self._command: list[str] = []

    def make(self, uri: str) -> Built:
        """Builds, and keeps the image under a URI.

        Raises: ImageError.
        """
        try:
            return self._make(uri)
        finally:
            self._shop.images.shelf.settle(self._layers)

    def _make(self, uri: str) -> Built:
        for warning in self._warnings:
            self._say(warning)
        base = self._begin()
        done = self._instructions.index(self._from) + 1
        for number, one in enumerate(self._instructions[done:], done + 1):
            self._say(f"[{number}/{len(self._instructions)}] {one.text}")
            self._obey(one)
        self._flush()
        if unused := set(self._given) - self._used:
            self._say(f"no ARG asks for {', '.join(sorted(unused))}")
        sizes = self._shop.images.shelf.sizes(self._layers)
        built = Built(
            uri=uri, wanted=asdict(base.wanted), framework=base.environment.framework,
            version=base.environment.version, base=base.environment.uri, layers=self._layers, env=self._env,
            cwd=self._cwd, entrypoint=self._entrypoint, command=self._command,
            sizes=sizes,
            size_bytes=base.size_bytes + sum(sizes[len(base.keys) :]), made=time.time(),
        )  # fmt: skip
        self._shop.images.shelf.settle(self._layers)
        self._shop.images.shelf.keep(built)
        return built

    # --- instructions
    def _begin(self) -> Ground:
        """Reads what stands before FROM, and stands on what FROM names."""
        self._from = next(one for one in self._instructions if one.name == "FROM")
        for one in self._instructions[: self._instructions.index(self._from)]:
            self._declare(one, self._early, {})
        flags, rest = self._from.flags()
        wanted = flags.get("platform", "").removeprefix("linux/")
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        if wanted and not wanted.startswith("$") and wanted != machine:
            raise self._from.refuse(f"This machine is {machine}.")
        words = dockerfile.expand(self._from, rest, self._early)
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
            raise self._from.refuse("FROM names one image.")
        self._say(f"[{self._instructions.index(self._from) + 1}/{len(self._instructions)}] FROM {words[0]}")
        try:
            base = self._shop.images.foundation(words[0], self._say)
        except ImageError as fault:
            raise self._from.refuse(str(fault)) from None
        environment = base.environment
        self._env, self._cwd, self._layers = dict(environment.env), environment.cwd, list(base.keys)
        self._entrypoint, self._command = list(environment.entrypoint), list(environment.command)
        self._base, self._key = base, _digest(FORMAT, base.mark, base.keys)
        return base

    def _obey(self, one: Instruction) -> None:
        {
            "RUN": self._run,
            "COPY": self._copy,
            "ADD": self._copy,
            "ENV": self._set,
            "ARG": lambda each: self._declare(each, self._args, self._early),
            "WORKDIR": self._move,
            "ENTRYPOINT": self._enter,
            "CMD": self._command_is,
        }[one.name](one)

    def _declare(self, one: Instruction, names: dict[str, str], outer: dict[str, str]) -> None:
        for name, default in dockerfile.arguments(one, self._variables()).items():
            self._used.add(name)
            value = self._given.get(name, outer.get(name) if default is None else default)
            if value is not None:
                names[name] = value

    def _variables(self) -> dict[str, str]:
        return {**self._args, **self._env}

    def _set(self, one: Instruction) -> None:
        self._env |= dockerfile.pairs(one, self._variables())

    def _move(self, one: Instruction) -> None:
        path = "".join(dockerfile.expand(one, one.rest, self._variables(), split=False))
        self._cwd = posixpath.normpath(posixpath.join(self._cwd, path))
        told = {"from": "", "to": self._cwd}
        self._places.append(_Place(told, "", lambda place: None))

    def _enter(self, one: Instruction) -> None:
        self._entrypoint, self._command = one.command(), []

    def _command_is(self, one: Instruction) -> None:
        self._command = one.command()

    def _copy(self, one: Instruction) -> None:
        flags, patterns, target = dockerfile.paths(one, self._variables())
        within = target.endswith(("/", "/.")) or target == "."
        to = posixpath.normpath(posixpath.join(self._cwd, target))
        try:
            sources = [(found, pattern) for pattern in patterns for found in self._context.find(pattern)]
            if len(sources) > 1 and not within:
                raise ImageError("several sources need a folder to go to, which ends with /")
            for source, _ in sources:
                told = {
                    "from": "-", "name": posixpath.basename(source.name), "folder": source.folder, "to": to,
                    "within": within, "mode": flags.get("chmod", ""), "unpack": one.name == "ADD",
                }  # fmt: skip
                lay = lambda place, source=source: self._context.copy(source, place)  # noqa: E731
                self._places.append(_Place(told, self._context.digest(source), lay))
        except ImageError as fault:
            raise one.refuse(str(fault)) from None

    def _flush(self) -> None:
        """Puts the sources that wait into a layer of their own."""
        places, self._places = self._places, []
        if not places:
            return
        key = _digest(self._key, "places", [(place.told, place.digest) for place in places])
        if self._reuse(key):
            return
        with _folder(self._shop.images.folder) as folder:
            for number, place in enumerate(places):
                if place.told["from"]:
                    place.told["from"] = str(number)
                    place.lay(folder / str(number))
            (folder / "places.json").write_text(json.dumps([place.told for place in places]))
            for parent, folders, names in os.walk(folder):  # the sandbox's user is another
                for name in [*folders, *names]:
                    path = Path(parent) / name
                    if not path.is_symlink():
                        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
            command = [self._base.environment.python, "-I", f"{INSIDE}/build/place.py", CONTEXT]
            mounts = [Mount(str(CONTAINERS), INSIDE), Mount(str(folder), CONTEXT)]
            self._work(command, key, "/", mounts, "what COPY and ADD name could not be put there")

    def _run(self, one: Instruction) -> None:
        self._flush()
        _, rest = one.flags()
        command = one.command(rest)
        key = _digest(self._key, "run", [command, self._variables(), self._cwd])
        if not self._reuse(key):
            self._work(command, key, self._cwd, [], f"line {one.line}: {one.text}\n  it failed", self._args)

    # --- layers
    def _reuse(self, key: str) -> bool:
        there = not self._shop.fresh and self._shop.images.shelf.has(key)
        if there:
            self._say("as before")
            self._stand_on(key)
        return there

    def _stand_on(self, key: str) -> None:
        self._layers.append(key)
        self._key = key
        if len(self._layers) > MOST_LAYERS:
            raise ImageError(f"an image has at most {MOST_LAYERS} layers; join RUN lines with &&")

    def _work(
        self, command: list[str], key: str, cwd: str, mounts: list[Mount], words: str, args: dict[str, str] | None = None
    ) -> None:  # fmt: skip
        """Runs a program on the layers so far, and keeps what it writes as the layer of a key.

        Raises: ImageError with the program's last lines.
        """
        shop, image = self._shop, self._base.environment
        spec = RunSpec(
            name=f"build.{secrets.token_hex(8)}", command=command, cwd=cwd,
            env={**shop.env, **(args or {}), **self._env}, mounts=[*image.mounts, *shop.mounts, *mounts],
            inputs=shop.inputs, instances=[Instance()], timeout_s=shop.timeout_s, grace_s=2.0, keep=True,
            cpus=float(os.cpu_count() or 1), memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2,
            layers=[*shop.images.shelf.paths(self._layers), image.layers[-1]], own_local=self._base.own_local,
        )  # fmt: skip
        folder = RunFolder(shop.data / "runs" / spec.name)
        try:
            folder.create(Order(spec, shop.setup))
            state = _follow(shop.data, folder, self._say)
            if state.reason:
                tail = "\n  ".join(_lines(folder)[-TAIL_LINES:]) or state.message
                raise ImageError(f"{words} ({_ending(state)}):\n  {tail}")
            if shop.fresh:
                shop.images.shelf.discard(key)
            shop.images.shelf.take(key, folder.path / KEPT)
        finally:
            if left := folder.put_away():
                remove_tree(left)
        self._stand_on(key)


def _follow(data: Path, folder: RunFolder, say: Say) -> RunState:
    """Waits for a run's end, telling what it prints; stopped with it when the person stops this.

    Raises: ImageError for a run that was lost.
    """
    asked, told = 0.0, 0
    try:
        while True:
            state = folder.look()
            lines = _lines(folder)
            for line in lines[told:]:
                say(line)
            told = len(lines)
            if state is not None and state.phase == ENDED:
                return state
            if state is None or state.phase == LOST:
                raise ImageError("the sandbox of this instruction was lost")
            if state.phase == STARTING and time.monotonic() - asked > ASK_AGAIN_S:
                asked = time.monotonic()
                _ask_start(data, folder.name)
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        folder.ask_stop("stopped")
        while (state := folder.look()) is not None and state.phase not in (ENDED, LOST):
            time.sleep(LOOK_S)
        raise


def _ask_start(data: Path, name: str) -> None:
    """Has the runner start a run; a runner that is away now is asked again."""
    with contextlib.suppress(OSError), handout.connect(data / runner.SOCKET) as connection:
        connection.sendall(json.dumps({"op": "start", "run": name}).encode() + b"\n")


def _lines(folder: RunFolder) -> list[str]:
    """What a run has printed so far, without the moments."""
    try:
        text = (folder.path / "algo-1.log").read_text(errors="replace")
    except FileNotFoundError:
        return []
    return [line.partition(" ")[2] for line in text.splitlines()]


def _ending(state: RunState) -> str:
    return f"exit code {state.exit_code}" if state.reason == "exit" else state.reason


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _folder(images: Path) -> Iterator[Path]:
    """A folder for what goes into the sandbox, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=".context-", dir=images))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
