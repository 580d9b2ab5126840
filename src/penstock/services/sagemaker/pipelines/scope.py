"""The values that a running execution's expressions refer to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker.pipelines import callbacks, jobs, lambdas
from penstock.services.sagemaker.pipelines.definition import Step
from penstock.services.sagemaker.pipelines.events import iso
from penstock.services.sagemaker.pipelines.expressions import Unresolved, walk
from penstock.services.sagemaker.pipelines.files import read_json
from penstock.store.records import Document


class StartScope:
    """What is known when an execution starts: parameters and execution variables."""

    def __init__(self, call: Call, execution: Document):
        self.call, self.execution = call, execution
        self._contents: dict[str, Any] = {}

    def parameter(self, name: str) -> Any:
        return self.execution.body["_parameters"][name]

    def variable(self, name: str) -> Any:
        """Source: at AWS, Execution.PipelineName is the name in lower case (so are the experiments named by it)."""
        body = self.execution.body
        values = {
            "StartDateTime": iso(self.execution.created, "milliseconds"),
            "CurrentDateTime": iso(self.call.now, "milliseconds"),
            "PipelineName": body["_pipeline"].lower(),
            "PipelineArn": body["PipelineArn"],
            "PipelineExecutionId": self.execution.name,
            "PipelineExecutionArn": self.execution.arn,
        }
        if name not in values:
            raise Unresolved(f"The execution variable '{name}' has no value here")
        return values[name]

    def outputs(self, step: str) -> dict[str, Any]:
        raise Unresolved(f"The step '{step}' has not run yet")

    def file_uri(self, step: str, file: str) -> str:
        raise Unresolved(f"The step '{step}' has not run yet")

    def content(self, uri: str) -> Any:
        if uri not in self._contents:
            self._contents[uri] = read_json(self.call, uri)
        return self._contents[uri]


class StepScope(StartScope):
    """What a step of a running execution may refer to: also the steps before it, and the name of its own job."""

    def __init__(self, call: Call, execution: Document, steps: Mapping[str, Step], job_name: str = ""):
        super().__init__(call, execution)
        self.steps, self.job_name = steps, job_name
        self._outputs: dict[str, dict[str, Any]] = {}

    def variable(self, name: str) -> Any:
        if name in ("TrainingJobName", "ProcessingJobName") and self.job_name:
            return self.job_name
        return super().variable(name)

    def outputs(self, step: str) -> dict[str, Any]:
        if step not in self._outputs:
            self._outputs[step] = self._describe(step)
        return self._outputs[step]

    def file_uri(self, step: str, file: str) -> str:
        output, path = self.steps[step].files[file]
        try:
            place = walk(self.outputs(step), ("ProcessingOutputConfig", "Outputs", output, "S3Output", "S3Uri"))
        except Unresolved as why:
            raise Unresolved(f"The output '{output}' of step '{step}' has no place in S3: {why}") from None
        return f"{str(place).rstrip('/')}/{path.lstrip('/')}"

    def _describe(self, step: str) -> dict[str, Any]:
        entry = self.execution.body["_steps"].get(step)
        if entry is None or entry["status"] != "Succeeded":
            raise Unresolved(f"The step '{step}' has not succeeded")
        if "outcome" in entry:
            return {"Outcome": entry["outcome"]}
        if "outputs" in entry:
            return dict(entry["outputs"])
        job = jobs.find(self.call, self.execution, entry) if "job" in entry else None
        if job is None:
            raise Unresolved(f"What step '{step}' made is not there any more")
        if job.kind == callbacks.CALLBACK.kind:
            return callbacks.outputs(job)
        if job.kind == lambdas.INVOKED.kind:
            return lambdas.outputs(job)
        try:
            return jobs.describe(self.call, self.steps[step].type, job)
        except ServiceError as fault:
            raise Unresolved(f"What step '{step}' made cannot be described: {fault.message}") from None
