"""Built images on disk: records, layers, and what is given back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.runs.base import ImageError, RunSpec
from penstock.runs.folder import Order, RunFolder, Setup
from penstock.runs.images import LocalImages
from penstock.runs.images.built import Built, Shelf, held

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com/own"
KEYS = ["a" * 64, "b" * 64]


def built(uri: str, keys: list[str] | None = None) -> Built:
    wanted = {"python": "3.11", "core": [], "rest": [], "strict": False}
    layers = KEYS[:1] if keys is None else keys
    return Built(uri, wanted, "python", "3.11", "python:3.11", layers, {"A": "1"}, sizes=[1] * len(layers), made=5.0)


def lay(shelf: Shelf, key: str, tmp_path: Path) -> None:
    folder = tmp_path / f"made-{key[:4]}"
    folder.mkdir()
    (folder / "file").write_text(key)
    shelf.take(key, folder)


def test_an_image_is_found_by_tag_and_by_digest(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.keep(built(f"{ECR}:1"))
    found = shelf.find(f"{ECR}:1")
    assert found is not None
    assert found.env == {"A": "1"}
    digest = held(found).digest
    assert shelf.find(f"{ECR}@{digest}") == found
    assert shelf.find(f"{ECR}:2") is None
    assert shelf.find(f"{ECR}@sha256:{'0' * 64}") is None
    assert shelf.remove(f"{ECR}:1")
    assert not shelf.remove(f"{ECR}:1")


def test_a_tag_of_nothing_is_latest(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.keep(built(ECR))
    assert shelf.find(f"{ECR}:latest") is not None


def test_the_same_image_has_the_same_digest_under_every_tag(tmp_path: Path) -> None:
    assert held(built(f"{ECR}:1")).digest == held(built(f"{ECR}:2")).digest
    assert held(built(f"{ECR}:1")).digest != held(built(f"{ECR}:1", KEYS)).digest


def test_of_two_that_made_the_same_layer_the_first_stays(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "images")
    lay(shelf, KEYS[0], tmp_path)
    lay_again = tmp_path / "again"
    lay_again.mkdir()
    shelf.take(KEYS[0], lay_again)
    assert (shelf.layer(KEYS[0]) / "file").read_text() == KEYS[0]
    assert sorted(path.name for path in shelf.layers.glob(".new-*")) == []


def test_a_layer_that_was_not_settled_before_the_machine_went_down_is_made_again(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "images")
    lay(shelf, KEYS[0], tmp_path)
    assert shelf.has(KEYS[0])
    [mark] = shelf.layers.glob("*.unsettled")
    os.utime(mark, (1, 1))  # before this machine was started
    assert not shelf.has(KEYS[0])
    lay(shelf, KEYS[1], tmp_path)
    shelf.settle(KEYS)
    assert not list(shelf.layers.glob("*.unsettled"))
    assert shelf.has(KEYS[1])


def test_an_image_whose_layers_are_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="build it again"):
        Shelf(tmp_path).paths(KEYS)


def test_what_no_image_stands_on_and_no_run_has_mounted_is_given_back(tmp_path: Path) -> None:
    images = LocalImages(tmp_path / "images", environ={"PATH": os.defpath, "HOME": str(tmp_path)})
    lay(images.shelf, KEYS[0], tmp_path)
    lay(images.shelf, KEYS[1], tmp_path)
    lay(images.shelf, "c" * 64, tmp_path)
    images.shelf.keep(built(f"{ECR}:1"))
    stray = tmp_path / "images" / ("d" * 24)
    stray.mkdir()
    (stray / "file").write_text("12345")
    runs = tmp_path / "runs"
    runs.mkdir()
    spec = RunSpec("busy", layers=[str(images.shelf.layer(KEYS[1]))])
    RunFolder(runs / "busy").create(Order(spec, Setup("bwrap")))
    assert images.prune(runs) == 64 + 5
    assert sorted(path.name for path in images.shelf.layers.iterdir() if path.is_dir()) == ["a" * 32, "b" * 32]
    assert not stray.exists()
