"""`pytest --penstock`, as a person runs it on tests of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import IMAGES

EXAMPLE = Path(__file__).parents[2] / "examples" / "testing"
THEIRS = """
import json, os, pathlib
import boto3, pytest

@pytest.mark.parametrize("number", range(4))
def test_an_account_of_its_own(penstock, number):
    boto3.client("sagemaker").create_experiment(ExperimentName="same-name")
    seen = {"account": boto3.client("sts").get_caller_identity()["Account"], "url": penstock.url,
            "bucket": penstock.bucket, "own": penstock.id, "worker": os.environ.get("PYTEST_XDIST_WORKER")}
    (pathlib.Path(__file__).parent / f"seen-{number}.json").write_text(json.dumps(seen))

@pytest.mark.penstock
def test_a_marked_test_needs_not_name_it():
    assert boto3.client("sagemaker").list_experiments()["ExperimentSummaries"] == []

def test_a_job_that_fails(penstock, tmp_path, monkeypatch):
    import pipeline
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clean.py").write_text("print('so far')\\nraise ValueError('no table')")
    pipeline.create("clean", penstock.role, penstock.bucket)
    execution = penstock.run("clean", Table=penstock.put("1.csv", "a"), Target=f"s3://{penstock.bucket}/out")
    assert execution.succeeded, execution

def test_the_others_see_nothing_of_it():
    assert os.environ["AWS_ENDPOINT_URL_S3"] == "http://elsewhere.invalid"
    assert "AWS_ENDPOINT_URL" not in os.environ
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A person's project, whose data folder has the suite's environments of images, and whose temporary folder is looked at."""
    (tmp_path / "data").mkdir()
    (tmp_path / "temporary").mkdir()
    IMAGES.mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / "images").symlink_to(IMAGES)
    yield tmp_path
    left = list((tmp_path / "temporary").glob("penstock-tests-*"))
    assert left == [], "the session's folder is gone with its server"


def run_pytest(folder: Path, tests: Path, *options: str) -> str:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "AWS_"))}
    environment = mine | {
        "PENSTOCK_DATA": str(folder / "data"),
        "TMPDIR": str(folder / "temporary"),
        "AWS_ENDPOINT_URL_S3": "http://elsewhere.invalid",
    }
    settings = folder / "pytest.ini"  # the person's, not this project's, which lies above the example
    settings.write_text("[pytest]\n")
    words = [sys.executable, "-m", "pytest", "-c", str(settings), "-p", "no:cacheprovider", "--rootdir", str(tests)]
    done = subprocess.run(
        [*words, *options, str(tests)], capture_output=True, text=True, env=environment, cwd=tests, timeout=280
    )
    return f"{done.stdout}{done.stderr}\nexit code {done.returncode}"


def test_without_the_option_tests_that_need_a_server_are_skipped(folder: Path) -> None:
    said = run_pytest(folder, EXAMPLE)
    assert "3 skipped" in said, said


@pytest.mark.sandbox
def test_the_example_and_others_share_a_server_and_have_accounts_of_their_own(folder: Path) -> None:
    """In two processes: the example's three tests, a person's six, and one whose job fails."""
    tests = folder / "theirs"
    shutil.copytree(EXAMPLE, tests, ignore=shutil.ignore_patterns("__pycache__"))
    (tests / "test_theirs.py").write_text(THEIRS)
    said = run_pytest(folder, tests, "--penstock", "-n", "2")
    assert "1 failed, 9 passed" in said, said
    assert "Clean: Failed" in said, "the execution is shown"
    assert "so far" in said, "and what its job printed"
    assert "ValueError: no table" in said
    seen = [json.loads(path.read_text()) for path in tests.glob("seen-*.json")]
    assert len({one["account"] for one in seen}) == len({one["bucket"] for one in seen}) == 4
    assert all(one["account"] == one["own"] for one in seen)
    assert len({one["url"] for one in seen}) == 1
