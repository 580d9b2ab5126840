"""`LocalImages`: image URIs to environments of this machine; builds in the background and tells when one is ready."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.runs.base import Environment, Held, ImageError, Mount
from penstock.runs.images.built import Built, Shelf, held
from penstock.runs.images.environments import (
    ENV,
    Environments,
    Made,
    Progress,
    Wanted,
    canonical,
    find_uv,
    requirement_name,
    write_note,
)
from penstock.runs.images.indexes import read_indexes, redact
from penstock.runs.images.interpreters import minor_of
from penstock.runs.images.metrics import XGBOOST_METRICS
from penstock.runs.images.pruning import prune
from penstock.runs.images.table import PYTHON_ENV, PYTHON_SOURCE, TAGS, Tag
from penstock.runs.images.uris import parse_uri, strip_suffix

SETTLED_S = 1.0
"""How old the last change of what stands for URIs must be to be believed to be the last: file systems count time in ticks."""
INDEXES_S = 10.0
"""How long pip's own configuration files are believed to stay as they were read."""
ADDED = "added.json"
RESOLVED = 200
"""URIs of which it is remembered what they stand for."""
PATH = f"{ENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PYTHON_TAG = re.compile(r"^(3\.\d+)(?:\.\d+)?(?:-|$)")
_LINE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^\]]*\])?\s*(?:[<>=!~;].*)?$")


@dataclass(frozen=True, slots=True)
class _Image:
    """A URI that is understood: what it wants, and what to tell about it."""

    uri: str
    framework: str
    version: str
    wanted: Wanted
    env: dict[str, str] = field(default_factory=dict)
    source: str = ""
    differs: str = ""
    built: Built | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """What a Dockerfile's FROM stands on."""

    environment: Environment
    wanted: Wanted
    mark: str
    """Which environment it is: another one of the same packages has another mark."""
    keys: list[str]
    """The layers above the environment."""
    size_bytes: int
    own_local: bool


class LocalImages:
    """Images as environments in `<folder>`.

    Takes: `folder`, usually `<data>/images`; `environ`, whose PIP_*, UV_*, PATH and HOME are honoured; `fetch_python`,
    whether uv may download an interpreter that is missing; `retry_s`, how long a failure is remembered.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        environ: Mapping[str, str] | None = None,
        fetch_python: bool = True,
        retry_s: float = 60.0,
        uv: str | None = None,
    ):
        self._environ = dict(os.environ if environ is None else environ)
        self._folder = Path(folder).absolute()
        self.folder, self.shelf = self._folder, Shelf(self._folder)
        self._environments = Environments(self._folder, uv or find_uv(self._environ), self._environ, fetch_python)
        self._retry_s = retry_s
        self._ready: dict[str, Made] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._building: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(2)
        self._heard: list[Callable[[str], None]] = []
        self._added: tuple[float, dict[str, dict[str, Any]]] = (0.0, {})
        self._resolved: tuple[tuple[float, float], dict[str, _Image]] = ((0.0, 0.0), {})
        self._packages: tuple[float, dict[str, str], list[str]] = (-math.inf, {}, [])

    def look(self, uri: str) -> Environment | None:
        """The environment if it is ready, None while it is being built (asking starts the building).

        Raises: ImageError for a URI that nothing stands for, and where the building failed.
        """
        image = self._resolve(uri)
        digest = self._environments.digest(image.wanted)
        made = self._ready.get(digest)
        if made and (self._environments.path(digest) / "bin" / "python").exists():
            return self._describe(image, digest, made)
        with self._lock:
            if digest in self._building:
                self._building[digest].add(uri)
                return None
            when, message = self._failed.get(digest, (0.0, ""))
            if message and time.monotonic() - when < self._retry_s:
                raise ImageError(f"{uri}: {message}")
        made = self._environments.read(digest)
        if made and not self._environments.improvable(made):
            self._ready[digest] = made
            return self._describe(image, digest, made)
        self._start(image, digest)
        return None

    def pull(self, uri: str, progress: Progress | None = None, *, again: bool = False) -> Environment:
        """Builds now, in this thread; `progress` hears a line at a time.

        Raises: ImageError.
        """
        image = self._resolve(uri)
        digest = self._environments.digest(image.wanted)
        try:
            made = self._environments.build(image.wanted, progress or _quiet, again)
        except ImageError as error:
            raise ImageError(f"{uri}: {error}") from None
        self._ready[digest] = made
        self._failed.pop(digest, None)
        return self._describe(image, digest, made)

    def add(
        self,
        uri: str,
        requirements: Sequence[str] = (),
        *,
        file: str | Path | None = None,
        python: str | None = None,
        base_uri: str | None = None,
    ) -> None:
        """Makes a URI stand for a person's own requirements, kept in `added.json`. Nothing is built yet.

        Takes: requirement lines and/or a requirements file; `base_uri`, a known image whose Python, libraries and
        container behaviour it starts from (a line for the same library replaces the base's).
        Raises: ImageError for lines that are no plain requirement.
        """
        lines = _read_lines([*requirements, *(Path(file).read_text().splitlines() if file else [])])
        if python and not re.fullmatch(r"3\.\d+(\.\d+)?", python):
            raise ImageError(f"{python} is no Python version like 3.11")
        if base_uri:
            self._resolve(base_uri)
        added = dict(self._read_added())
        added[uri] = {"requirements": lines, "python": minor_of(python) if python else "", "base": base_uri or ""}
        self._write_added(added)

    def foundation(self, uri: str, progress: Progress | None = None) -> Ground:
        """What an image may be built upon, its environment made.

        Raises: ImageError.
        """
        environment = self.pull(uri, progress)
        image = self._resolve(uri)
        digest = self._environments.digest(image.wanted)
        made = self._ready[digest]
        keys = list(image.built.layers) if image.built else []
        size = image.built.size_bytes if image.built else made.size_bytes
        return Ground(environment, image.wanted, f"{digest} {made.made}", keys, size, _own_local(made))

    def prune(self, runs: Path, everything: bool = False) -> int:
        """Deletes layers that no built image has, and environments that no image is; what a run stands on stays.

        Takes: `runs`, the folder of runs; `everything`: also environments that could be built again.
        Gives: the bytes.
        """
        built = self.shelf.all()
        used = {self.shelf.layer(key).name for one in built for key in one.layers}
        kept = {self._environments.digest(_from_built(one.uri, one).wanted) for one in built}
        if not everything:
            kept |= {self._environments.digest(self._resolve(uri).wanted) for uri in self._read_added()}
            kept |= {self._environments.digest(_from_tag(tag, tag.uri).wanted) for tag in TAGS}
            kept |= {self._environments.digest(Wanted(f"3.{minor}")) for minor in range(7, 20)}
        return prune(self._folder, used, kept, runs)

    def held(self) -> list[Held]:
        """The images that were built from Dockerfiles."""
        return [held(built) for built in self.shelf.all()]

    def remove(self, uri: str) -> bool:
        """Forgets a built or added URI; what it stands on stays on disk until `prune`."""
        if self.shelf.remove(uri):
            return True
        added = dict(self._read_added())
        if uri not in added:
            return False
        del added[uri]
        self._write_added(added)
        return True

    def listen(self, heard: Callable[[str], None]) -> None:
        self._heard.append(heard)

    def known(self) -> list[dict[str, Any]]:
        """Every URI that can be named: `uri, framework, version, python, libraries, state, size_bytes, source, note`.

        `state` is "ready", "building", "failed" or "absent" (not built yet).
        """
        own = [*(built.uri for built in self.shelf.all()), *self._read_added()]
        images = [*(self._resolve(uri) for uri in dict.fromkeys(own)), *(_from_tag(tag, tag.uri) for tag in TAGS)]
        return [self._tell(image) for image in images]

    def check(self, uri: str) -> None:
        """Raises: ImageError for a URI that nothing stands for. Nothing is built."""
        self._resolve(uri)

    def asks(self, uri: str) -> bool:
        return False

    def lacks(self, uri: str) -> str:
        """Why an image has another Python here than it asks for; empty where it has its own, or may get it yet.

        Raises: ImageError for a URI that nothing stands for.
        """
        wanted = self._resolve(uri).wanted
        made = self._environments.read(self._environments.digest(wanted))
        if made is not None and minor_of(made.python) == wanted.python:
            return ""
        return self._environments.lacks(wanted, made is not None)

    def packages(self) -> tuple[dict[str, str], list[str]]:
        """Variables for pip and uv inside a sandbox, and the local folders they name."""
        read, variables, folders = self._packages
        if time.monotonic() - read > INDEXES_S:
            indexes = read_indexes(self._environ)
            variables, folders = indexes.for_jobs(), indexes.folders()
            self._packages = (time.monotonic(), variables, folders)
        return dict(variables), list(folders)

    def close(self) -> None:
        self._environments.close()

    def _start(self, image: _Image, digest: str) -> None:
        with self._lock:
            if digest in self._building:
                self._building[digest].add(image.uri)
                return
            self._building[digest] = {image.uri}
        threading.Thread(target=self._work, args=(image, digest), name=f"image-{digest[:8]}", daemon=True).start()

    def _work(self, image: _Image, digest: str) -> None:
        made, message = None, ""
        try:
            with self._slots:
                made = self._environments.build(image.wanted, _quiet)
        except (ImageError, OSError) as error:
            message = redact(str(error)) or type(error).__name__
        with self._lock:
            if made:
                self._ready[digest] = made
                self._failed.pop(digest, None)
            else:
                self._failed[digest] = (time.monotonic(), message)
            uris = self._building.pop(digest)
        for uri in sorted(uris):
            for heard in list(self._heard):
                heard(uri)

    def _resolve(self, uri: str) -> _Image:
        """What a URI stands for, found once while neither built nor added images change.

        Raises: ImageError for one that nothing stands for.
        """
        stamp = changed_at(self.shelf.records), changed_at(self._folder / ADDED)
        known = self._resolved[1] if self._resolved[0] == stamp else {}
        if uri in known:
            return known[uri]
        image = self._find(uri)
        if max(stamp) < time.time() - SETTLED_S:
            self._resolved = stamp, {**(known if len(known) < RESOLVED else {}), uri: image}
        return image

    def _find(self, uri: str) -> _Image:
        if built := self.shelf.find(uri):
            return _from_built(uri, built)
        parsed = parse_uri(uri)
        added = self._read_added()
        for name in (uri, parsed.short):
            if name in added:
                return self._from_added(uri, added[name])
        tags = {(t.repository, t.tag): t for t in TAGS}
        for tag in (parsed.tag, strip_suffix(parsed.tag)):
            if row := tags.get((parsed.repository, tag)) or tags.get((parsed.name, tag)):
                return _from_tag(row, uri)
        if parsed.name == "python":
            match = _PYTHON_TAG.match(parsed.tag)
            if match or parsed.tag in ("3", "latest") or re.match(r"3-[a-z]|slim", parsed.tag):
                minor = match[1] if match else _default_python()
                return _Image(uri, "python", parsed.tag, Wanted(minor), PYTHON_ENV, PYTHON_SOURCE)
        own = [parse_uri(built.uri).short for built in self.shelf.all()]
        raise ImageError(_unknown(uri, parsed.short, [*own, *added, *(t.uri for t in TAGS)]))

    def _from_added(self, uri: str, entry: dict[str, Any]) -> _Image:
        lines: tuple[str, ...] = tuple(entry["requirements"])
        if not entry["base"]:
            wanted = Wanted(entry["python"] or _default_python(), lines, (), strict=True)
            return _Image(uri, "python", parse_uri(uri).tag, wanted, PYTHON_ENV, "added by hand")
        base = self._resolve(entry["base"])
        given = {canonical(requirement_name(line)) for line in lines}
        core, rest = (
            [x for x in each if canonical(requirement_name(x)) not in given]
            for each in (base.wanted.core, base.wanted.rest)
        )
        only = base.wanted.only if core and core[0] == base.wanted.core[0] else ""
        python, index = entry["python"] or base.wanted.python, base.wanted.index if only else ""
        parts = (tuple(core), (*lines, *rest)) if only else ((*lines, *core, *rest), ())
        wanted = Wanted(python, *parts, strict=True, index=index, only=only)
        return _Image(uri, base.framework, base.version, wanted, base.env, f"added by hand, from {entry['base']}")

    def _describe(self, image: _Image, digest: str, made: Made) -> Environment:
        mounts = []
        if not made.base_prefix.startswith("/usr/") and made.base_prefix != "/usr":
            mounts.append(Mount(made.base_prefix, made.base_prefix, "ro"))
        built = image.built or Built(image.uri, {}, image.framework, image.version, "")
        note = write_note(parse_uri(built.base or image.uri).short, image.wanted, made, differs=image.differs)
        return Environment(
            uri=image.uri,
            framework=image.framework,
            version=image.version,
            python=f"{ENV}/bin/python",
            mounts=mounts,
            env={"PATH": PATH, **image.env},
            note=f"{parse_uri(image.uri).short}, built here from {note}" if image.built else note,
            layers=(*self.shelf.paths(built.layers), str(self._environments.layer(digest))),
            cwd=built.cwd,
            entrypoint=list(built.entrypoint),
            command=list(built.command),
            own_local=image.built is not None and _own_local(made),
            metrics=[dict(m) for m in XGBOOST_METRICS] if image.framework == "xgboost" else [],
        )

    def _tell(self, image: _Image) -> dict[str, Any]:
        digest = self._environments.digest(image.wanted)
        made = self._ready.get(digest) or self._environments.read(digest)
        with self._lock:
            building, failed = digest in self._building, self._failed.get(digest)
        libraries = dict(line.split("==") for line in image.wanted.core if "==" in line)
        return {
            "uri": image.uri,
            "framework": image.framework,
            "version": image.version,
            "python": made.python if made else image.wanted.python,
            "libraries": {k: made.libraries.get(canonical(k), "") for k in libraries} if made else libraries,
            "state": "building" if building else "ready" if made else "failed" if failed else "absent",
            "size_bytes": made.size_bytes if made else 0,
            "source": image.source,
            "note": write_note(image.uri, image.wanted, made, image.differs) if made else failed[1] if failed else "",
        }

    def _read_added(self) -> dict[str, dict[str, Any]]:
        """The added images, read again when another process has written them."""
        path = self._folder / ADDED
        try:
            changed = path.stat().st_mtime_ns / 1e9
            if changed != self._added[0]:
                self._added = (changed, json.loads(path.read_text()))
        except (OSError, ValueError):
            self._added = (0.0, {})
        return self._added[1]

    def _write_added(self, added: dict[str, dict[str, Any]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / f"added.json.{os.getpid()}"
        new.write_text(json.dumps(added, indent=1, sort_keys=True))
        new.replace(self._folder / ADDED)
        self._added = (0.0, {})


def changed_at(path: Path) -> float:
    """When a file, or what a folder holds, was changed; 0 where it is not there."""
    try:
        return os.stat(path).st_mtime_ns / 1e9
    except OSError:
        return 0.0


def _from_tag(tag: Tag, uri: str) -> _Image:
    wanted = Wanted(tag.python, tag.core, tag.rest, index=tag.index, only=tag.only)
    return _Image(uri, tag.framework, tag.tag, wanted, tag.env, tag.source, tag.differs)


def _own_local(made: Made) -> bool:
    """Whether an image may have a /usr/local of its own: not where its Python lies in the machine's."""
    return not made.base_prefix.startswith("/usr/local")


def _from_built(uri: str, built: Built) -> _Image:
    asked: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in built.wanted.items()
    }
    source = f"built here, from {built.base}"
    return _Image(uri, built.framework, built.version, Wanted(**asked), built.env, source, built=built)


def _read_lines(lines: list[str]) -> list[str]:
    """Requirement lines without comments; options, paths and URLs are refused: they would run code or hold secrets."""
    found = []
    for line in lines:
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if not line:
            continue
        if not _LINE.match(line):
            raise ImageError(
                f"'{redact(line)}' is no plain requirement (name, version). Only wheels from a package index go into "
                "an image; set the index by PIP_INDEX_URL or PIP_EXTRA_INDEX_URL, and put other code into the job's "
                "requirements.txt"
            )
        found.append(line)
    return found


def _unknown(uri: str, short: str, names: list[str]) -> str:
    near = difflib.get_close_matches(short, names, n=3, cutoff=0.5)
    hint = f" The nearest known: {', '.join(near)}." if near else ""
    bring = f"penstock image add {uri} --requirements FILE"
    return f"No environment is known for the image {uri}.{hint} Bring your own: {bring}"


def _default_python() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _quiet(line: str) -> None:
    """Progress that nobody watches."""
