"""A test's account: its clients, a bucket of its own, and executions that are waited for."""

from __future__ import annotations

import functools
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import botocore.session

FINAL = ("Succeeded", "Failed", "Stopped")
LOOK_S = 0.1
GROUPS = {"TrainingJob": "/aws/sagemaker/TrainingJobs", "ProcessingJob": "/aws/sagemaker/ProcessingJobs"}


@dataclass(frozen=True, repr=False)
class Execution:
    """How a pipeline's execution ended."""

    arn: str
    status: str
    reason: str
    """Why it failed; empty where it did not."""
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each step's entry of ListPipelineExecutionSteps, by name."""
    logs: dict[str, str] = field(default_factory=dict)
    """What the jobs of steps that failed printed, by the step's name."""

    @property
    def succeeded(self) -> bool:
        return self.status == "Succeeded"

    def __repr__(self) -> str:
        """All that a person needs to see why an assertion about it failed."""
        lines = [f"{self.status}: {self.reason}" if self.reason else self.status]
        lines += [
            f"  {name}: {step['StepStatus']} {step.get('FailureReason', '')}" for name, step in self.steps.items()
        ]
        return "\n".join([*lines, *(f"--- {name}\n{text}" for name, text in self.logs.items())])


class Account:
    """An account on the session's server that only this test has.

    Takes: its keys, as `penstock account add --json` prints them, and the variables of `penstock env`.
    """

    def __init__(self, keys: dict[str, str], variables: dict[str, str]):
        self.id = keys["AccountId"]
        self.role = keys["RoleArn"]
        """The role that pipelines and jobs run as."""
        self.region = variables["AWS_DEFAULT_REGION"]
        self.url = variables["AWS_ENDPOINT_URL"]
        self.env = {
            **variables,
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        }
        """What leads AWS's clients to the account; set in the environment while the test runs."""
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """A client of a service (botocore's, which boto3's are)."""
        if service not in self._clients:
            session = botocore.session.Session()
            self._clients[service] = session.create_client(
                service,
                region_name=self.region,
                endpoint_url=self.url,
                aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            )
        return self._clients[service]

    @functools.cached_property
    def bucket(self) -> str:
        """A bucket that only this test has; made when first asked for."""
        name = f"test-{self.id}-{secrets.token_hex(4)}"
        self.client("s3").create_bucket(Bucket=name)
        return name

    def put(self, key: str, data: bytes | str) -> str:
        """Puts an object into the test's bucket; gives its S3 URI."""
        self.client("s3").put_object(Bucket=self.bucket, Key=key, Body=data)
        return f"s3://{self.bucket}/{key}"

    def read(self, uri: str) -> bytes:
        """The bytes of an object."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        data: bytes = self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return data

    def keys(self, uri: str) -> list[str]:
        """The S3 URIs of the objects below a prefix."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [f"s3://{bucket}/{entry['Key']}" for page in pages for entry in page.get("Contents", ())]

    def run(self, pipeline: str, timeout_s: float = 600.0, **parameters: Any) -> Execution:
        """Starts a pipeline with parameters by name, and waits for its end."""
        given = [{"Name": name, "Value": str(value)} for name, value in parameters.items()]
        started = self.client("sagemaker").start_pipeline_execution(PipelineName=pipeline, PipelineParameters=given)
        return self.wait(started["PipelineExecutionArn"], timeout_s)

    def wait(self, arn: str, timeout_s: float = 600.0) -> Execution:
        """Waits for an execution's end.

        Raises: TimeoutError, with what its steps are at.
        """
        sagemaker, deadline = self.client("sagemaker"), time.monotonic() + timeout_s
        while True:
            told = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
            status = told["PipelineExecutionStatus"]
            if status in FINAL or time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)
        pages = sagemaker.get_paginator("list_pipeline_execution_steps").paginate(
            PipelineExecutionArn=arn, SortOrder="Ascending"
        )
        steps = {step["StepName"]: step for page in pages for step in page["PipelineExecutionSteps"]}
        failed = {name: step for name, step in steps.items() if step["StepStatus"] == "Failed"}
        logs = {name: text for name, step in failed.items() if (text := self._log(step))}
        execution = Execution(arn, status, told.get("FailureReason", ""), steps, logs)
        if status not in FINAL:
            raise TimeoutError(f"{arn} has not ended after {timeout_s:.0f} s.\n{execution}")
        return execution

    def _log(self, step: dict[str, Any]) -> str:
        """What the job of a step printed."""
        logs = self.client("logs")
        for kind, group in GROUPS.items():
            if arn := step.get("Metadata", {}).get(kind, {}).get("Arn"):
                name = arn.rpartition("/")[2]
                told = logs.filter_log_events(logGroupName=group, logStreamNamePrefix=f"{name}/")
                return "\n".join(event["message"] for event in told["events"])
        return ""

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
