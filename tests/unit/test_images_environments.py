"""Environments are built for real, by uv, from wheels made here: no network."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from penstock.runs.base import Environment, ImageError
from penstock.runs.images import LocalImages
from penstock.runs.images import registry as registry_module
from penstock.runs.images.table import Tag

UV = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"


def make_wheel(folder: Path, name: str, version: str, text: str = "", requires: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", text or f"__version__ = '{version}'\n")
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", f"[console_scripts]\nrun-{name} = {name}:main\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in ("pip", "setuptools", "wheel"):
        make_wheel(folder, name, "1.0")
    make_wheel(folder, "turbine", "1.2")
    make_wheel(folder, "turbine", "2.0")
    return folder


@pytest.fixture
def environ(tmp_path: Path, wheels: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": str(tmp_path / "home"),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
    }


@pytest.fixture
def images(tmp_path: Path, environ: dict[str, str]) -> LocalImages:
    return LocalImages(tmp_path / "images", environ=environ, fetch_python=False, uv=UV)


def source_of(env: Environment) -> Path:
    """The environment's folder on this machine."""
    return Path(env.layers[0]) / "opt" / "penstock" / "env"


def run_python(images: LocalImages, uri: str, code: str) -> str:
    env = images.look(uri)
    assert env is not None
    python = source_of(env) / "bin" / "python"
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_an_added_image_is_built_with_its_pinned_library(images: LocalImages) -> None:
    images.add("mine:1", ["turbine==1.2"], python=MINOR)
    env = images.pull("mine:1")
    assert env.python == "/opt/penstock/env/bin/python"
    assert env.note == f"mine:1 runs as Python {sys.version.split()[0]} with turbine 1.2"
    assert run_python(images, "mine:1", "import turbine; print(turbine.__version__)") == "1.2"


def test_console_scripts_find_their_python_wherever_the_environment_is_mounted(
    images: LocalImages, tmp_path: Path
) -> None:
    images.add("mine:1", ["turbine==1.2"])
    source = source_of(images.pull("mine:1"))
    moved = tmp_path / "elsewhere"
    source.rename(moved)
    assert str(source) not in (moved / "bin" / "run-turbine").read_text()


def test_modules_are_byte_compiled(images: LocalImages) -> None:
    images.add("mine:1", ["turbine==1.2"])
    source = source_of(images.pull("mine:1"))
    assert list(source.glob("lib/python3*/site-packages/turbine/__pycache__/*.pyc"))


def test_aws_modules_can_be_imported(images: LocalImages) -> None:
    images.add("mine:1", ["turbine==1.2"])
    images.pull("mine:1")
    assert run_python(images, "mine:1", "import sagemaker_training as s; print(s.__name__)") == "sagemaker_training"


def test_a_library_of_the_person_wins_over_ours(images: LocalImages, wheels: Path) -> None:
    make_wheel(wheels, "sagemaker_training", "4.0", "theirs = True\n")
    images.add("mine:1", ["sagemaker_training"])
    images.pull("mine:1")
    assert run_python(images, "mine:1", "import sagemaker_training as s; print(s.theirs)") == "True"


def test_look_builds_in_the_background_and_tells(images: LocalImages) -> None:
    told = threading.Event()
    images.listen(lambda uri: told.set())
    images.add("mine:1", ["turbine==1.2"])
    assert images.look("mine:1") is None
    assert told.wait(60)
    env = images.look("mine:1")
    assert env is not None
    assert env.uri == "mine:1"


def test_everybody_who_asked_is_told_though_it_is_built_once(images: LocalImages) -> None:
    heard: list[str] = []
    told = threading.Semaphore(0)

    def hear(uri: str) -> None:
        heard.append(uri)
        told.release()

    images.listen(hear)
    for uri in ("mine:1", "mine:2"):
        images.add(uri, ["turbine==1.2"])
    assert [images.look("mine:1"), images.look("mine:2")] == [None, None]
    assert told.acquire(timeout=60)
    assert told.acquire(timeout=60)
    assert sorted(heard) == ["mine:1", "mine:2"]


def test_runs_get_the_package_index_of_this_machine(images: LocalImages, wheels: Path) -> None:
    variables, folders = images.packages()
    assert variables["PIP_FIND_LINKS"] == str(wheels)
    assert folders == [str(wheels)]


def test_a_failed_build_says_what_uv_said_and_is_tried_again_later(tmp_path: Path, environ: dict[str, str]) -> None:
    images = LocalImages(tmp_path / "images", environ=environ, fetch_python=False, uv=UV, retry_s=0.0)
    told = threading.Semaphore(0)
    images.listen(lambda uri: told.release())
    images.add("mine:1", ["penstocknothing==9"], python=MINOR)
    assert images.look("mine:1") is None
    assert told.acquire(timeout=60)
    make_wheel(tmp_path / "wheels", "penstocknothing", "9")
    assert images.look("mine:1") is None
    assert told.acquire(timeout=60)
    assert images.look("mine:1") is not None


def test_a_failure_is_raised_while_it_is_fresh(images: LocalImages) -> None:
    told = threading.Event()
    images.listen(lambda uri: told.set())
    images.add("mine:1", ["penstocknothing==9"], python=MINOR)
    images.look("mine:1")
    assert told.wait(60)
    with pytest.raises(ImageError, match="penstocknothing"):
        images.look("mine:1")


def test_a_source_distribution_is_never_built(images: LocalImages, wheels: Path, tmp_path: Path) -> None:
    import tarfile

    trap = tmp_path / "trapped"
    source = tmp_path / "trap-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(trap)!r}, 'w')\nfrom setuptools import setup\nsetup(name='trap')\n")
    with tarfile.open(wheels / "trap-1.0.tar.gz", "w:gz") as tar:
        tar.add(source, "trap-1.0")
    images.add("mine:1", ["trap==1.0"], python=MINOR)
    with pytest.raises(ImageError):
        images.pull("mine:1")
    assert not trap.exists()


def test_two_processes_build_one_environment_once(images: LocalImages, tmp_path: Path, environ: dict[str, str]) -> None:
    images.add("mine:1", ["turbine==1.2"])
    other = LocalImages(tmp_path / "images", environ=environ, fetch_python=False, uv=UV)
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda i=i: made.append(i.pull("mine:1").layers[0])) for i in (images, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(made)) == 1
    assert not list((tmp_path / "images").glob(".making-*"))


def test_what_a_dead_builder_left_is_removed(images: LocalImages, tmp_path: Path) -> None:
    images.add("mine:1", ["turbine==1.2"])
    digest = Path(images.pull("mine:1").layers[0]).parent.name
    left = tmp_path / "images" / f".making-{digest}-dead"
    (left / "layer").mkdir(parents=True)
    images.pull("mine:1", again=True)
    assert not left.exists()


def test_a_run_keeps_the_files_of_an_environment_that_is_replaced(images: LocalImages, tmp_path: Path) -> None:
    images.add("mine:1", ["turbine==1.2"])
    source = source_of(images.pull("mine:1"))
    folder = os.open(source, os.O_RDONLY)
    try:
        images.pull("mine:1", again=True)
        assert os.stat("bin/python", dir_fd=folder)
    finally:
        os.close(folder)
    ancient = tmp_path / "images" / ".old-x-1000"
    ancient.mkdir()
    images.pull("mine:1", again=True)
    assert not ancient.exists()


def test_an_environment_whose_interpreter_went_is_built_again(images: LocalImages) -> None:
    images.add("mine:1", ["turbine==1.2"])
    source = source_of(images.pull("mine:1"))
    (source / "bin" / "python").unlink()
    assert images.look("mine:1") is None
    images.close()


def test_an_image_may_stand_on_another(images: LocalImages) -> None:
    images.add("base:1", ["turbine==1.2"], python=MINOR)
    images.add("mine:1", ["turbine==2.0"], base_uri="base:1")
    images.pull("mine:1")
    assert run_python(images, "mine:1", "import turbine; print(turbine.__version__)") == "2.0"


def test_another_process_sees_what_was_added(images: LocalImages, tmp_path: Path, environ: dict[str, str]) -> None:
    other = LocalImages(tmp_path / "images", environ=environ, fetch_python=False, uv=UV)
    with pytest.raises(ImageError):
        other.pull("mine:1")
    images.add("mine:1", ["turbine==1.2"])
    assert other.pull("mine:1").uri == "mine:1"


@pytest.mark.parametrize(
    "line", ["-e .", "./here", "git+https://x/y", "--index-url https://u:secret@h/", "x @ file:///y"]
)
def test_only_plain_requirements_are_added(images: LocalImages, line: str) -> None:
    with pytest.raises(ImageError) as refused:
        images.add("mine:1", [line])
    assert "secret" not in str(refused.value)


def test_a_requirements_file_may_have_comments(images: LocalImages, tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# ours\nturbine[fast]>=1,<3 ; python_version > '3'  # why\n\n")
    images.add("mine:1", file=file)
    kept = json.loads((tmp_path / "images" / "added.json").read_text())
    assert kept["mine:1"]["requirements"] == ["turbine[fast]>=1,<3 ; python_version > '3'"]


def test_an_unknown_image_names_the_nearest_and_the_command(images: LocalImages) -> None:
    with pytest.raises(ImageError) as unknown:
        images.look("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.3-1-cpu-py3")
    assert "sagemaker-scikit-learn:1.2-1-cpu-py3" in str(unknown.value)
    assert "penstock image add" in str(unknown.value)


def test_known_lists_states_and_sizes(images: LocalImages) -> None:
    images.add("mine:1", ["turbine==1.2"])
    before = next(i for i in images.known() if i["uri"] == "mine:1")
    images.pull("mine:1")
    after = next(i for i in images.known() if i["uri"] == "mine:1")
    assert (before["state"], after["state"]) == ("absent", "ready")
    assert after["size_bytes"] > 0
    assert after["libraries"] == {"turbine": "1.2"}


def test_credentials_of_an_index_are_in_no_error(tmp_path: Path, environ: dict[str, str]) -> None:
    environ = {k: v for k, v in environ.items() if k != "PIP_NO_INDEX"}
    environ |= {"PIP_INDEX_URL": "http://ann:s3cr3t@127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    images = LocalImages(tmp_path / "images", environ=environ, fetch_python=False, uv=UV)
    images.add("mine:1", ["turbines==1"], python=MINOR)
    lines: list[str] = []
    with pytest.raises(ImageError) as failed:
        images.pull("mine:1", lines.append)
    assert "s3cr3t" not in str(failed.value) + "".join(lines)
    assert "127.0.0.1:9" in str(failed.value)


@pytest.fixture
def tag(monkeypatch: pytest.MonkeyPatch) -> str:
    rows = (
        Tag("framework", "1-1", "sklearn", "3.2", "3.2", ("turbine==1.2",), ("wheel==7.7",), suffix="-cpu-py3"),
        Tag("framework", "2-1", "xgboost", MINOR, MINOR, ("turbine==2.0",), ("wheel==7.7",)),
    )
    monkeypatch.setattr(registry_module, "TAGS", rows)
    return "1.dkr/framework"


def test_a_missing_python_gives_the_nearest_and_the_note_says_so(images: LocalImages, tag: str) -> None:
    note = images.pull("framework:1-1-cpu-py3").note
    assert "turbine 1.2" in note
    assert "instead of 3.2" in note


def test_a_lesser_pin_that_is_not_to_be_had_is_loosened_and_told(images: LocalImages, tag: str) -> None:
    env = images.pull("123456789012.dkr.ecr.eu-west-1.amazonaws.com/framework:2-1")
    assert "lesser libraries" in env.note
    assert env.framework == "xgboost"
    assert {"Name": "validation:rmse"}.items() <= next(m for m in env.metrics if m["Name"] == "validation:rmse").items()


# --- builds without CUDA
def make_torch(folder: Path, version: str, minor: str = MINOR) -> None:
    make_wheel(folder, "torch", version)
    tag = f"cp{minor.replace('.', '')}-cp{minor.replace('.', '')}-linux_x86_64"
    (folder / f"torch-{version}-py3-none-any.whl").rename(folder / f"torch-{version}-{tag}.whl")


@pytest.fixture
def torch_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    index = "http://127.0.0.1:9/simple"  # nobody is there, as where the internet is not
    tag = Tag("torching", "1", "pytorch", MINOR, MINOR, ("torch==2.0.0+cpu", "torchvision==1.0+cpu"), ("turbine==1.2",),
              index=index, only="cpu")  # fmt: skip
    monkeypatch.setattr(registry_module, "TAGS", (tag,))


@pytest.mark.usefixtures("torch_tag")
def test_of_pytorch_only_a_build_without_cuda_is_taken(images: LocalImages, wheels: Path) -> None:
    for version in ("9.0", "2.9.0+cpu", "2.10.0+cpu", "9.9.0+cu129"):
        make_torch(wheels, version)
    env = images.pull("torching:1")
    assert "torch 2.10.0+cpu instead of 2.0.0+cpu; no torchvision" in env.note
    images.add("more:1", ["turbine==2.0"], base_uri="torching:1")
    images.pull("more:1")
    script = "import torch, turbine; print(torch.__version__, turbine.__version__)"
    assert run_python(images, "more:1", script) == "2.10.0+cpu 2.0"


@pytest.mark.usefixtures("torch_tag")
def test_without_such_a_build_there_is_no_image(images: LocalImages, wheels: Path) -> None:
    make_torch(wheels, "9.0")
    with pytest.raises(ImageError, match="not to be had as wheels"):
        images.pull("torching:1")


def test_what_is_added_or_removed_counts_at_once_also_where_it_was_asked_for_before(tmp_path: Path) -> None:
    def settle() -> None:
        os.utime(tmp_path / "added.json", (time.time() - 100, time.time() - 100 - next(ages)))

    ages, images, other = itertools.count(), LocalImages(tmp_path), LocalImages(tmp_path)
    images.add("mine:1", ["turbine==1.2"])
    settle()
    images.check("mine:1")
    images.check("mine:1")
    other.remove("mine:1")
    settle()
    for _ in range(2):
        with pytest.raises(ImageError):
            images.check("mine:1")
    other.add("mine:1", ["turbine==1.3"])
    images.check("mine:1")
