"""The example of four models side by side: each has its own steps, scores and group, and none waits for another."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.clients import ROOT
from tests.conftest import Boto
from tests.crash.families import until
from tests.programs import Programs

pytestmark = [pytest.mark.sandbox, pytest.mark.clients]
MODELS = {"PurchaseRate", "PurchaseTerm", "RefinanceRate", "RefinanceTerm"}
PURCHASES, REFINANCES = 317, 1849
"""Applications to score: a quarter of the loans of a scenario."""


@pytest.fixture(scope="module")
def execution(programs: Programs, boto: Boto, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The pipeline's end."""
    folder = shutil.copytree(ROOT / "examples" / "parallel-models", tmp_path_factory.mktemp("work") / "models")
    told = programs("v2/python", "pipeline.py", "--start", "--rounds", "40", cwd=Path(folder))
    assert told.code == 0, told
    arn = told.out.split("Execution:")[1].strip()

    def look() -> dict[str, Any] | None:
        found = boto("sagemaker").describe_pipeline_execution(PipelineExecutionArn=arn)
        return found if found["PipelineExecutionStatus"] not in ("Executing", "Stopping") else None

    ended = dict(until(look, f"{arn} ends", 240))
    pages = boto("sagemaker").get_paginator("list_pipeline_execution_steps").paginate(PipelineExecutionArn=arn)
    steps = {step["StepName"]: step for page in pages for step in page["PipelineExecutionSteps"]}
    assert ended["PipelineExecutionStatus"] == "Succeeded", (ended, steps)
    return {"id": arn.rpartition("/")[2], "steps": steps}


def test_four_models_are_trained_scored_and_registered(execution: dict[str, Any], boto: Boto) -> None:
    assert len(execution["steps"]) == 1 + 6 * len(MODELS)
    for name in MODELS:
        packages = boto("sagemaker").list_model_packages(ModelPackageGroupName=f"ParallelModels-{name}")
        assert [one["ModelApprovalStatus"] for one in packages["ModelPackageSummaryList"]] == ["PendingManualApproval"]


def test_scores_are_of_every_application_spread_over_two_instances(execution: dict[str, Any], boto: Boto) -> None:
    s3, sagemaker, logs = boto("s3"), boto("sagemaker"), boto("logs")
    for name in MODELS:
        job = execution["steps"][f"Score{name}"]["Metadata"]["TransformJob"]["Arn"].rpartition("/")[2]
        about = sagemaker.describe_transform_job(TransformJobName=job)
        assert about["TransformResources"]["InstanceCount"] == 2
        streams = logs.describe_log_streams(logGroupName="/aws/sagemaker/TransformJobs", logStreamNamePrefix=f"{job}/")
        instances = {one["logStreamName"].split("/")[1].rpartition("-")[0] for one in streams["logStreams"]}
        assert instances == {"algo-1", "algo-2"}
        bucket, _, prefix = about["TransformOutput"]["S3OutputPath"].removeprefix("s3://").partition("/")
        assert execution["id"] in prefix
        found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix + "/")["Contents"]
        assert [one["Key"].rpartition("/")[2] for one in found] == [f"part-{n}.csv.out" for n in range(4)]
        bodies = [s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in found]
        lines = b"".join(bodies).decode().split()
        scores = [float(line.split(",")[1]) for line in lines]
        assert len({line.split(",")[0] for line in lines}) == (PURCHASES if "Purchase" in name else REFINANCES)
        low, high = (0, 1) if name.endswith("Term") else (4, 32)
        assert all(low <= score <= high for score in scores)


def test_no_model_waits_for_another(execution: dict[str, Any]) -> None:
    def began(step: str) -> datetime:
        moment: datetime = execution["steps"][step]["StartTime"]
        return moment

    first_end = min(execution["steps"][f"Train{name}"]["EndTime"] for name in MODELS)
    assert all(began(f"Train{name}") < first_end for name in MODELS)
