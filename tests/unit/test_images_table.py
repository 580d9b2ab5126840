from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from penstock.runs.images import interpreters
from penstock.runs.images.interpreters import find_interpreter, list_minors, minor_of, nearest_minors
from penstock.runs.images.metrics import XGBOOST_METRICS
from penstock.runs.images.table import TAGS
from penstock.runs.images.uris import parse_uri, strip_suffix

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_an_ecr_uri_is_taken_apart() -> None:
    uri = parse_uri("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1")
    assert (uri.account, uri.region, uri.name, uri.tag) == ("683313688378", "us-east-1", "sagemaker-xgboost", "1.7-1")


def test_china_and_fips_registries_are_ecr() -> None:
    assert parse_uri("390780980154.dkr.ecr.cn-northwest-1.amazonaws.com.cn/a:1").account == "390780980154"
    assert parse_uri("390780980154.dkr.ecr-fips.us-east-2.amazonaws.com/a:1").region == "us-east-2"


def test_a_port_is_no_tag() -> None:
    uri = parse_uri("localhost:5000/team/app")
    assert (uri.registry, uri.repository, uri.tag) == ("localhost:5000", "team/app", "latest")


def test_a_digest_stands_for_a_tag() -> None:
    uri = parse_uri("public.ecr.aws/x/python@sha256:ab")
    assert (uri.repository, uri.tag, uri.digest) == ("x/python", "", "sha256:ab")


@pytest.mark.parametrize(
    ("tag", "plain"),
    [
        ("1.2-1-cpu-py3", "1.2-1"),
        ("1.5-1", "1.5-1"),
        ("0.90-2-cpu-py3", "0.90-2"),
        ("1.7-1-cpu", "1.7-1"),
        ("3.0-5-py3", "3.0-5"),
        ("2.5.1-cpu-py311-ubuntu22.04-sagemaker", "2.5.1"),
        ("2.5-gpu-py311", "2.5"),
    ],
)
def test_the_sdk_s_suffix_is_stripped(tag: str, plain: str) -> None:
    assert strip_suffix(tag) == plain


def test_every_row_has_a_source_and_pins_its_core() -> None:
    for tag in TAGS:
        assert tag.source, tag.uri
        assert all(re.fullmatch(r"[A-Za-z0-9-]+==[\w.]+(\+cpu)?", line) for line in tag.core), tag.uri


@pytest.mark.parametrize(
    ("repository", "tag"),
    [
        *(("sagemaker-scikit-learn", t) for t in ("0.20.0", "0.23-1", "1.0-1", "1.2-1", "1.4-2", "1.4-2-py312")),
        *(
            ("sagemaker-xgboost", t)
            for t in ("0.90-1", "0.90-2", "1.0-1", "1.2-1", "1.2-2", "1.3-1", "1.5-1", "1.7-1", "3.0-5", "3.2-0")
        ),
        *((f"pytorch-{use}", t) for use in ("training", "inference") for t in ("1.13", "2.0.0", "2.0", "2.3", "2.5.1", "2.7")),
        ("sagemaker-base-python-38", "1.0"),
        ("sagemaker-base-python-310", "1.0"),
    ],
)
def test_the_table_serves_what_the_sdk_names(repository: str, tag: str) -> None:
    assert [t for t in TAGS if (t.repository, t.tag) == (repository, tag)]


def test_no_row_brings_cuda() -> None:
    for tag in TAGS:
        for line in tag.core:
            assert not line.startswith("xgboost==") or line < "xgboost==2", line
            assert not line.startswith("torch") or line.endswith("+cpu"), line
        assert tag.only == "cpu" or not any(line.startswith("torch") for line in (*tag.core, *tag.rest))


def test_a_metric_s_expression_finds_the_container_s_line() -> None:
    regex = next(m["Regex"] for m in XGBOOST_METRICS if m["Name"] == "validation:rmse")
    found = re.search(regex, "[12]#011train-rmse:1.50000#011validation-rmse:2.25e-05")
    assert found
    assert float(found[1]) == 2.25e-05


def test_this_python_is_found(tmp_path: Path) -> None:
    found = find_interpreter(OWN, {"PATH": "", "HOME": str(tmp_path)})
    assert found
    assert found.minor == OWN
    assert found.base_prefix == str(Path(sys.base_prefix).resolve())


def test_pyenv_s_versions_are_listed_and_broken_ones_passed_over(tmp_path: Path) -> None:
    for name in ("3.8.18", "3.6.15", "3.8.1", "miniconda3-latest"):
        (tmp_path / "versions" / name / "bin").mkdir(parents=True)
    broken = tmp_path / "versions" / "3.8.18" / "bin" / "python3.8"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    environ = {"PATH": "", "HOME": "/nonexistent", "PYENV_ROOT": str(tmp_path)}
    assert list_minors(environ) == sorted({"3.8", OWN}, key=lambda m: int(m[2:]))
    assert find_interpreter("3.8", environ) is None


def test_the_newest_patch_comes_first(tmp_path: Path) -> None:
    for name in ("3.7.9", "3.7.16"):
        (tmp_path / "versions" / name).mkdir(parents=True)
    candidates = list(interpreters._candidates("3.7", {"PATH": "", "PYENV_ROOT": str(tmp_path)}, None))
    assert [Path(c).parts[-3] for c in candidates] == ["3.7.16", "3.7.9"]


def test_of_two_as_near_the_newer_is_taken() -> None:
    assert nearest_minors("3.9", ["3.7", "3.8", "3.10", "3.12"]) == ["3.10", "3.8", "3.7", "3.12"]
    assert minor_of("3.10.13") == "3.10"
