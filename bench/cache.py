"""A pipeline of steps that are all cached: what one costs, by the client's clock, from the start to the end that it sees."""

from __future__ import annotations

import time
from typing import Any

from bench.steps import run, step
from bench.world import Family, Row, median_of

STEPS = 50
BUDGET_MS = 5.0


def measure(family: Family) -> list[Row]:
    client, role = family.client("sagemaker"), family.keys["role_arn"]
    bucket, s3 = "bench-cache", family.client("s3")
    s3.create_bucket(Bucket=bucket)
    for number in range(10):
        s3.put_object(Bucket=bucket, Key=f"in/{number}.csv", Body=b"1,2\n" * 100)
    rows = []
    for name, wide in (("a chain", False), ("side by side", True)):
        steps = cached(bucket, wide)
        run(client, role, f"cached-{wide}", steps)
        per_step = median_of(7, lambda: again(client, f"bench-cached-{wide}")) / STEPS  # noqa: B023
        rows.append(Row(f"{STEPS} cached steps, {name}, per step", "ms", per_step * 1e3, budget=f"<= {BUDGET_MS:g} ms"))
    return rows


def again(client: Any, pipeline: str) -> float:
    """Seconds of another execution, as its client sees it."""
    began = time.perf_counter()
    arn = client.start_pipeline_execution(PipelineName=pipeline)["PipelineExecutionArn"]
    while client.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"] == "Executing":
        time.sleep(0.002)
    took = time.perf_counter() - began
    listed = client.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    assert len(listed) == STEPS
    assert all("CacheHitResult" in each for each in listed)
    return took


def cached(bucket: str, wide: bool) -> Any:
    def steps(role: str) -> list[dict[str, Any]]:
        made = [step(f"s{n}", [f"s{n - 1}"] if n and not wide else [], role) for n in range(STEPS)]
        for each in made:
            each["CacheConfig"] = {"Enabled": True, "ExpireAfter": "P1D"}
            each["Arguments"]["ProcessingInputs"] = [{
                "InputName": "in",
                "S3Input": {"S3Uri": f"s3://{bucket}/in", "LocalPath": "/opt/ml/processing/in", "S3DataType": "S3Prefix"},
            }]  # fmt: skip
        return made

    return steps
