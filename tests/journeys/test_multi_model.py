"""The example of several algorithms: two executions at once, each on its data set; a gate that says why it is shut."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.clients import ROOT
from tests.conftest import Boto
from tests.crash.families import until
from tests.programs import Programs

pytestmark = [pytest.mark.sandbox, pytest.mark.clients]


def begin(programs: Programs, folder: Path, *words: str) -> list[str]:
    told = programs("v2/python", "pipeline.py", *words, cwd=folder)
    assert told.code == 0, told
    return [line.split()[-1] for line in told.out.splitlines() if line.startswith("Execution:")]


def ended(boto: Boto, arn: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = boto("sagemaker").describe_pipeline_execution(PipelineExecutionArn=arn)
        return found if found["PipelineExecutionStatus"] not in ("Executing", "Stopping") else None

    return dict(until(look, f"{arn} ends", 240))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(ROOT / "examples" / "multi-model", tmp_path_factory.mktemp("work") / "multi-model"))


def test_two_data_sets_at_once_each_with_its_own_end(programs: Programs, folder: Path, boto: Boto) -> None:
    (good,) = begin(programs, folder, "--start", "breast-cancer", "--trials", "2")
    (shut,) = begin(programs, folder, "--start", "wine", "--trials", "1", "--minimum", "1.1")

    execution = ended(boto, good)
    assert execution["PipelineExecutionStatus"] == "Succeeded", execution
    group = boto("sagemaker").list_model_packages(ModelPackageGroupName="MultiModel-breast-cancer")
    assert [one["ModelApprovalStatus"] for one in group["ModelPackageSummaryList"]] == ["PendingManualApproval"]
    (tuning,) = boto("sagemaker").list_hyper_parameter_tuning_jobs(NameContains=f"{good.rpartition('/')[2]}-Tune")[
        "HyperParameterTuningJobSummaries"
    ]
    trials = boto("sagemaker").list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=tuning["HyperParameterTuningJobName"]
    )["TrainingJobSummaries"]
    assert len({trial["TrainingJobDefinitionName"] for trial in trials}) == 2

    assert ended(boto, shut)["PipelineExecutionStatus"] == "Failed"
    steps = boto("sagemaker").list_pipeline_execution_steps(PipelineExecutionArn=shut)["PipelineExecutionSteps"]
    reason = next(step["FailureReason"] for step in steps if step["StepName"] == "RegistrationFailed")
    assert reason == "The auc of the best model on wine is less than 1.1"
