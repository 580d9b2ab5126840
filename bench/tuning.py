"""A tuning job of 50 trials that do nothing, two at a time, beside plain python in bubblewrap, two at a time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import steps
from bench.world import Family, Row

TRIALS, WIDE = 50, 2
BUCKET = "bench-tuning"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/bench-trial:1"
DOCKERFILE = f"""FROM {steps.IMAGE}
ENTRYPOINT ["python3", "-c", "print('score: 1.5')"]
"""
STRATEGIES = ("Random", "Bayesian")


def measure(family: Family) -> list[Row]:
    python = family.environment_of(steps.IMAGE) / "bin" / "python"
    client = family.client("sagemaker")
    prepare(family)
    tune(client, family.keys["role_arn"], "Bayesian", 2)  # imports the search's library
    limit, *ours = steps.in_turns(
        lambda: bare(python, TRIALS) / TRIALS,
        *(
            lambda strategy=each: tune(client, family.keys["role_arn"], strategy, TRIALS) / TRIALS
            for each in STRATEGIES
        ),
    )
    return [
        Row(
            f"{TRIALS} no-op trials, {strategy}, {WIDE} at a time, per trial", "ms", found * 1e3, limit * 1e3,
            f"python in bubblewrap, {WIDE} at a time", "<= 2 x",
        )
        for strategy, found in zip(STRATEGIES, ours, strict=True)
    ]  # fmt: skip


def prepare(family: Family) -> None:
    """A bucket, and an image whose program is a trial: a tuning job names no command of its own."""
    family.client("s3").create_bucket(Bucket=BUCKET)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        (Path(name) / "Dockerfile").write_text(DOCKERFILE)
        command = [sys.executable, "-m", "penstock", "image", "build", name, "--tag", IMAGE]
        subprocess.run(command, check=True, env=family.environment(), capture_output=True)


def bare(python: Path, times: int) -> float:
    """Seconds for as many sandboxed interpreters, two at a time."""
    began = time.perf_counter()
    with ThreadPoolExecutor(WIDE) as pool:
        list(pool.map(lambda _: steps.bare(python, 1), range(times)))
    return time.perf_counter() - began


def tune(client: Any, role: str, strategy: str, trials: int) -> float:
    """Seconds from a tuning job's creation to its end."""
    name = f"bench-{time.time_ns() // 1_000_000}"
    client.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name,
        HyperParameterTuningJobConfig={
            "Strategy": strategy, "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "score"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": trials, "MaxParallelTrainingJobs": WIDE},
            "ParameterRanges": {
                "ContinuousParameterRanges": [
                    {"Name": "eta", "MinValue": "0.001", "MaxValue": "1", "ScalingType": "Logarithmic"},
                    {"Name": "alpha", "MinValue": "0", "MaxValue": "2"},
                ],
                "IntegerParameterRanges": [{"Name": "depth", "MinValue": "1", "MaxValue": "10"}],
            },
        },
        TrainingJobDefinition={
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE, "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "score", "Regex": "score: ([0-9.]+)"}],
            },
            "RoleArn": role, "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "ResourceConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        },
    )  # fmt: skip
    while True:
        job = client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        if job["HyperParameterTuningJobStatus"] not in ("InProgress", "Stopping"):
            break
        time.sleep(steps.ASK_S)
    assert job["HyperParameterTuningJobStatus"] == "Completed", job.get("FailureReason")
    assert job["TrainingJobStatusCounters"]["Completed"] == trials, job["TrainingJobStatusCounters"]
    return float((job["HyperParameterTuningEndTime"] - job["CreationTime"]).total_seconds())
