"""The engine killed in the middle of attempts, hits and selected steps: each happens once, and as it was noted."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.runs import sandbox
from tests.crash import workload
from tests.crash.families import PLAIN, Clan, raise_clan, until

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]
FAULTS = {"throttling": "T*", "internal-error": "R"}
POLICIES = [{"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR", "Step.THROTTLING"], "BackoffRate": 1, "MaxAttempts": 9}]
LENGTH, TIMES, KILLS = 4, 2, 3


def step(role: str, name: str, *needs: str) -> dict[str, Any]:
    """A step that says to its program which jobs came before."""
    before = {f"AFTER_{need}": {"Get": f"Steps.{need}.ProcessingJobName"} for need in needs}
    return {"Name": name, "Type": "Processing", "CacheConfig": {"Enabled": True}, "RetryPolicies": POLICIES, "Arguments": {
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}},
        "AppSpecification": {"ImageUri": PLAIN, "ContainerEntrypoint": ["python3", "-c", "pass"]}, "RoleArn": role,
        **({"Environment": before} if before else {}),
    }}  # fmt: skip


def definition(role: str) -> str:
    chain = [step(role, f"S{n}", *([f"S{n - 1}"] if n else ["T", "R"])) for n in range(LENGTH)]
    return json.dumps({"Version": "2020-12-01", "Steps": [step(role, "T"), step(role, "R"), *chain]})


def run(clan: Clan, chance: random.Random, **members: Any) -> tuple[str, dict[str, dict[str, Any]]]:
    """The steps of an execution during which the engine is killed, and killed again."""
    sm = clan.client("sagemaker")
    arn = sm.start_pipeline_execution(PipelineName="killed", **members)["PipelineExecutionArn"]
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.0, 0.6))
        clan.kill("engine")
        until(lambda: clan.member("engine"), "another engine")
    status = until(
        lambda: (got := sm.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"]) != "Executing" and got,
        "the execution ends",
    )  # fmt: skip
    assert status == "Succeeded"
    listed = sm.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    return arn, {each["StepName"]: each for each in listed}


def test_attempts_hits_and_results_are_neither_lost_nor_made_twice(tmp_path: Path) -> None:
    chance = random.Random(11)
    with raise_clan(tmp_path, cpus="8", memory_bytes=str(16 << 30)) as clan:
        sm = clan.client("sagemaker")
        sm.create_pipeline(
            PipelineName="killed", PipelineDefinition=definition(clan.keys["role_arn"]), RoleArn=clan.keys["role_arn"]
        )
        for kind, target in FAULTS.items():
            made = clan.penstock("fault", "add", kind, target, "--times", str(TIMES))
            assert f"{kind} for {target}, {TIMES} more" in made.stdout, made.stderr
        arn, first = run(clan, chance)
        assert {name: each["AttemptCount"] for name, each in first.items()} == {
            "T": TIMES + 1, "R": TIMES + 1, **{f"S{n}": 1 for n in range(LENGTH)}
        }  # fmt: skip
        assert clan.penstock("fault", "list").stdout == "There are no faults.\n"
        jobs = sm.list_processing_jobs(MaxResults=100)["ProcessingJobSummaries"]
        ended = [job["ProcessingJobStatus"] for job in jobs]
        assert (ended.count("Completed"), ended.count("Failed")) == (LENGTH + 2, TIMES)

        _, second = run(clan, chance)
        assert {name: each["Metadata"] for name, each in second.items()} == {
            n: each["Metadata"] for n, each in first.items()
        }
        assert all("CacheHitResult" in each for each in second.values())
        assert len(sm.list_processing_jobs(MaxResults=100)["ProcessingJobSummaries"]) == len(jobs)

        chosen = {"SelectedSteps": [{"StepName": "S1"}, {"StepName": "S2"}], "SourcePipelineExecutionArn": arn}
        _, third = run(clan, chance, SelectiveExecutionConfig=chosen)
        assert {name: "SelectiveExecutionResult" in each for name, each in third.items()} == {
            "S0": True,
            "S1": False,
            "S2": False,
        }
        assert len(sm.list_processing_jobs(MaxResults=100)["ProcessingJobSummaries"]) == len(jobs)
        clan.kill("engine")  # what it had not given back yet, its next life gives back
        until(lambda: clan.member("engine"), "another engine")
        until(lambda: not clan.run_folders(), "no folder of a run is left")
        assert workload.failures(clan.log()) == []
