"""Images that were built from a Dockerfile: an environment, layers above it, and how programs are started in them.

`<folder>/built/<hash of the URI>.json` is the record; `<folder>/layers/<key>` is what one instruction wrote, as an overlay's
upper folder: a key is the hash of all that went into it, so equal instructions on equal layers are made once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from penstock.runs import linux
from penstock.runs.base import Held, ImageError
from penstock.runs.images.uris import parse_uri
from penstock.runs.trees import remove_tree

MOST_LAYERS = 40
"""What the kernel's mount call has room for."""


@dataclass(slots=True)
class Built:
    """The record of a built image."""

    uri: str
    wanted: dict[str, Any]
    """The environment that it stands on."""
    framework: str
    version: str
    base: str
    """What its FROM named."""
    layers: list[str] = field(default_factory=list)
    """Keys, the lowest first."""
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """The layers' bytes."""
    size_bytes: int = 0
    made: float = 0.0

    def manifest(self) -> str:
        """The image as a registry would describe it: its configuration and its layers by hash."""
        config = {"Env": self.env, "WorkingDir": self.cwd, "Entrypoint": self.entrypoint, "Cmd": self.command}
        text = json.dumps([config, self.wanted, self.layers], sort_keys=True)
        layers = [
            {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "size": size,
                "digest": f"sha256:{key}",
            }
            for key, size in zip(self.layers, self.sizes, strict=True)
        ]
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(text),
                    "digest": f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
                },
                "layers": layers,
            },
            indent=3,
        )


class Shelf:
    """The built images and the layers of one folder of images; several processes may use it at once."""

    def __init__(self, folder: Path):
        self.records, self.layers = folder / "built", folder / "layers"

    # --- images
    def find(self, uri: str) -> Built | None:
        """The image of a URI, by its tag, or by its digest where one is given."""
        try:
            return Built(**json.loads(self._file(uri).read_text()))
        except (OSError, ValueError, TypeError):
            pass
        parsed = parse_uri(uri)
        if not parsed.digest:
            return None
        for one in self.all():
            mine = parse_uri(one.uri)
            same = (mine.registry, mine.repository) == (parsed.registry, parsed.repository)
            if same and held(one).digest == parsed.digest:
                return one
        return None

    def all(self) -> list[Built]:
        found = []
        for path in sorted(self.records.glob("*.json")) if self.records.is_dir() else []:
            try:
                found.append(Built(**json.loads(path.read_text())))
            except (OSError, ValueError, TypeError):
                continue
        return found

    def keep(self, built: Built) -> None:
        """Writes a record, whole or not at all."""
        self.records.mkdir(parents=True, exist_ok=True)
        path = self._file(built.uri)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        fresh.write_text(json.dumps(asdict(built), indent=1))
        fresh.replace(path)

    def remove(self, uri: str) -> bool:
        """Forgets an image; its layers stay until `prune`."""
        try:
            self._file(uri).unlink()
        except FileNotFoundError:
            return False
        return True

    def _file(self, uri: str) -> Path:
        parsed = parse_uri(uri)
        name = f"{parsed.registry}/{parsed.repository}:{parsed.tag}@{parsed.digest}"
        return self.records / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"

    # --- layers
    def layer(self, key: str) -> Path:
        return self.layers / key[:32]

    def has(self, key: str) -> bool:
        """Whether a layer is there, and whole: one that was never settled may have lost bytes when the machine went down."""
        layer, mark = self.layer(key), self._mark(key)
        with contextlib.suppress(FileNotFoundError):
            if mark.stat().st_mtime < _booted():
                remove_tree(layer)
                mark.unlink()
        return layer.is_dir()

    def _mark(self, key: str) -> Path:
        return self.layers / f"{key[:32]}.unsettled"

    def paths(self, keys: Iterable[str]) -> tuple[str, ...]:
        """The folders of layers, the uppermost first.

        Raises: ImageError where one was taken away.
        """
        found = [self.layer(key) for key in keys]
        if not all(path.is_dir() for path in found):
            raise ImageError("layers of the image are gone; build it again")
        return tuple(str(path) for path in reversed(found))

    def take(self, key: str, folder: Path) -> None:
        """Takes a folder for the layer of a key. Of two that made the same, the first stays."""
        self.layers.mkdir(parents=True, exist_ok=True)
        fresh = self.layers / f".new-{secrets.token_hex(6)}"
        try:
            folder.rename(fresh)
        except OSError:  # another file system; what stands for deleted files is copied, too
            subprocess.run(["cp", "-a", "--reflink=auto", str(folder), str(fresh)], check=True)
        self._mark(key).touch()
        try:
            fresh.rename(self.layer(key))
        except OSError:
            remove_tree(fresh)

    def settle(self, keys: Iterable[str]) -> None:
        """Has the disk take layers, all at once: each for itself would wait as long."""
        marks = [mark for key in keys if (mark := self._mark(key)).exists()]
        if not marks:
            return
        with open(marks[0]) as file:
            linux.sync_filesystem(file.fileno())
        for mark in marks:
            mark.unlink(missing_ok=True)

    def discard(self, key: str) -> None:
        remove_tree(self.layer(key))

    def sizes(self, keys: Iterable[str]) -> list[int]:
        return [measure(self.layer(key)) for key in keys]


def held(built: Built) -> Held:
    """A built image as a registry shows it."""
    parsed = parse_uri(built.uri)
    manifest = built.manifest()
    return Held(
        uri=built.uri,
        account=parsed.account,
        region=parsed.region,
        repository=parsed.repository,
        tag=parsed.tag,
        manifest=manifest,
        digest=f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}",
        size_bytes=built.size_bytes,
        made=built.made,
    )


def _booted() -> float:
    """When the machine was started; 0 where that is not told."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def measure(folder: Path) -> int:
    """The bytes of the files below a folder."""
    total = 0
    for parent, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(parent, name)).st_size for name in names)
    return total
