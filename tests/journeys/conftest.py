"""The clients that the journeys' tests share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Boto, Family
from tests.programs import EXAMPLE, Desk, Programs, desk


@pytest.fixture(scope="session")
def programs(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(family, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def boto(family: Family) -> Iterator[Boto]:
    made = family.boto()
    yield made
    made.close()


@pytest.fixture(scope="session")
def v2(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """SageMaker SDK v2."""
    modules = ("sagemaker.workflow.pipeline", "sagemaker.workflow.steps", "sagemaker.sklearn", "sagemaker.xgboost")
    with desk(programs, "v2", tmp_path_factory.mktemp("v2"), modules) as made:
        yield made


@pytest.fixture(scope="session")
def v3(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """SageMaker SDK v3."""
    modules = ("sagemaker.core.processing", "sagemaker.train", "sagemaker.core.helper.session_helper")
    with desk(programs, "v3", tmp_path_factory.mktemp("v3"), modules) as made:
        yield made


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, as a user has it."""
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("work") / "quality-gate"))
