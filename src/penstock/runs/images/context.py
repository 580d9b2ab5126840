"""The folder that an image is built of: what .dockerignore leaves of it, and which files a COPY means.

Nothing is reached outside the folder: names that lead out are refused, links that are named are followed within it only,
and links below a folder that is copied stay links.
Source: docs.docker.com/build/concepts/context (.dockerignore), pkg.go.dev/path/filepath#Match.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.runs.base import ImageError
from penstock.runs.sandbox import copy_bytes

WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder of the context that a COPY names: its path below the context, and where its bytes are."""

    name: str
    path: Path
    folder: bool


class Context:
    """The folder of a build. Takes: the Dockerfile, whose own ignore file wins."""

    def __init__(self, folder: Path, dockerfile: Path):
        self.folder = Path(os.path.realpath(folder))
        own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
        ignore = own if own.exists() else self.folder / ".dockerignore"
        self._rules = read_rules(ignore.read_text()) if ignore.exists() else []

    def find(self, pattern: str) -> list[Source]:
        """What a source of a COPY means, in the order of names.

        Raises: ImageError for a path that leads out, and where there is nothing.
        """
        plain = posixpath.normpath("/" + pattern).lstrip("/")
        if ".." in pattern.split("/"):
            raise ImageError(f"{pattern!r} leads out of the folder that the image is built of")
        names = list(self._expand(plain)) if WILD.search(plain) else [plain]
        found = [self._source(name, pattern) for name in names]
        if not found or not all(any(True for _ in self.files(one)) or one.folder for one in found):
            raise ImageError(f"{pattern!r} is not there, or .dockerignore leaves it out")
        return found

    def files(self, source: Source) -> Iterator[tuple[str, Path]]:
        """The files, links and folders of a source: their names in it ("" for a file itself), and where they are."""
        if not source.folder:
            if not self.ignored(source.name):
                yield "", source.path
            return
        for parent, folders, names in os.walk(source.path):
            within = os.path.relpath(parent, source.path)
            for name in sorted([*folders, *names]):
                relative = posixpath.normpath(posixpath.join(within, name))
                path = Path(parent) / name
                if not self.ignored(posixpath.join(source.name, relative)):
                    yield relative, path
            folders[:] = sorted(name for name in folders if not (Path(parent) / name).is_symlink())

    def ignored(self, name: str) -> bool:
        """Whether .dockerignore leaves a path out."""
        out = False
        for keeps, rule in self._rules:
            if rule.match(name):
                out = not keeps
        return out

    def _expand(self, pattern: str) -> Iterator[str]:
        wanted = re.compile(_translate(pattern) + r"\Z")
        depth = pattern.count("/")
        for parent, folders, names in os.walk(self.folder):
            within = os.path.relpath(parent, self.folder)
            here = [posixpath.normpath(posixpath.join(within, name)) for name in sorted([*folders, *names])]
            yield from (name for name in here if wanted.match(name) and not self.ignored(name))
            if (within != "." and within.count("/") + 1 >= depth) or not depth:
                folders[:] = []

    def _source(self, name: str, pattern: str) -> Source:
        path = Path(os.path.realpath(self.folder / name))
        if path != self.folder and self.folder not in path.parents:
            raise ImageError(f"{pattern!r} is a link that leads out of the folder that the image is built of")
        if not path.exists():
            raise ImageError(f"{pattern!r} is not there")
        return Source("" if name == "." else name, path, path.is_dir())

    # --- what is taken
    def digest(self, source: Source) -> str:
        """The hash of a source's names, modes and bytes."""
        seen = hashlib.sha256()
        for name, path in self.files(source):
            about = path.lstat()
            seen.update(f"{name}\0{stat.S_IMODE(about.st_mode):o}\0{stat.S_IFMT(about.st_mode):o}\0".encode())
            if stat.S_ISLNK(about.st_mode):
                seen.update(os.readlink(path).encode() + b"\0")
            elif stat.S_ISREG(about.st_mode):
                with open(path, "rb") as file:
                    seen.update(hashlib.file_digest(file, "sha256").digest())
        return seen.hexdigest()

    def copy(self, source: Source, target: Path) -> None:
        """Lays what is left of a source at a path on this machine."""
        if source.folder:
            target.mkdir(parents=True)
        for name, path in self.files(source):
            place = target / name if name else target
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                place.symlink_to(os.readlink(path))
            elif path.is_dir():
                place.mkdir(exist_ok=True)
                place.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IRWXU)
            elif path.is_file():
                copy_bytes(str(path), str(place))
                os.utime(place, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))


def read_rules(text: str) -> list[tuple[bool, re.Pattern[str]]]:
    """The rules of an ignore file, in order: whether it keeps, and what it means."""
    rules = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        keeps = line.startswith("!")
        pattern = posixpath.normpath("/" + line.removeprefix("!").strip()).lstrip("/")
        if pattern:
            rules.append((keeps, re.compile(_translate(pattern) + r"(/.*)?\Z", re.DOTALL)))
    return rules


def _translate(pattern: str) -> str:
    """A pattern as a regular expression: `*` and `?` stay within a name, `**` goes over any number of them."""
    made, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            made, at = made + r"(?:[^/]+/)*", at + 3
        elif pattern.startswith("**", at):
            made, at = made + ".*", at + 2
        elif pattern[at] == "*":
            made, at = made + "[^/]*", at + 1
        elif pattern[at] == "?":
            made, at = made + "[^/]", at + 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 1)) > 0:
            made, at = made + pattern[at : end + 1].replace("\\", "\\\\"), end + 1
        else:
            made, at = made + re.escape(pattern[at]), at + 1
    return made
