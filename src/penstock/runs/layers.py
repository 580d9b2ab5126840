"""Layers of roots that are made once and shown to many runs, beside the environments of images.

An overlay of several layers costs a run no more than one of one; a mount of its own costs it 1 ms, and each thing laid into
its own root an inode.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from penstock.runs.trees import remove_tree


def make_layer(runs: Path, content: Mapping[str, Path]) -> Path:
    """Makes a layer in the folder of runs, if one of the same content is not there; gives its path.

    Takes: `content`, the files and folders that are copied, by their paths inside.
    """
    layer = runs / f".layer-{_digest(content)}"
    if layer.exists():
        return layer
    runs.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = runs / f".layer-new-{os.getpid()}"
    remove_tree(fresh) if fresh.exists() else None
    for target, source in content.items():
        place = fresh / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, place) if source.is_dir() else shutil.copyfile(source, place)
    for folder, _, names in os.walk(fresh):  # readable for every user, whatever the umask is
        Path(folder).chmod(0o755)
        for name in names:
            Path(folder, name).chmod(0o644)
    try:
        fresh.rename(layer)
    except OSError:
        if not layer.exists():
            raise
        remove_tree(fresh)
    return layer


def _digest(content: Mapping[str, Path]) -> str:
    """Of names and bytes: times change with each installation."""
    digest = hashlib.sha256()
    for target, source in sorted(content.items()):
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file() and path.suffix != ".pyc":
                told = f"{target}\0{path.relative_to(source)}\0{path.stat().st_size}\0"
                digest.update(told.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
