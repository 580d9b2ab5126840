"""Caching, retry policies and selective execution as users of the SageMaker SDK v2 meet them; `penstock explain` and `fault`."""

from __future__ import annotations

import json

import pytest

from tests.journeys.test_sdk_v2 import START
from tests.programs import Desk, Programs

pytestmark = [pytest.mark.sandbox, pytest.mark.clients]
SCRIPT = """
from sagemaker.inputs import TrainingInput
from sagemaker.processing import ProcessingInput, ProcessingOutput, ScriptProcessor
from sagemaker.sklearn import SKLearn
from sagemaker.workflow.retry import SageMakerJobExceptionTypeEnum, SageMakerJobStepRetryPolicy
from sagemaker.workflow.selective_execution_config import SelectiveExecutionConfig
from sagemaker.workflow.steps import CacheConfig, ProcessingStep, TrainingStep
os.chdir(here)
session = PipelineSession()
image = sagemaker.image_uris.retrieve("sklearn", "us-east-1", version="1.2-1")
common = dict(role=role, instance_count=1, instance_type="ml.m5.large", sagemaker_session=session)
cached = CacheConfig(enable_caching=True, expire_after="PT1H")
again = SageMakerJobStepRetryPolicy(
    failure_reason_types=[SageMakerJobExceptionTypeEnum.INTERNAL_ERROR], interval_seconds=1, backoff_rate=1.0, max_attempts=3
)

def run(eta, **selection):
    prepared = ScriptProcessor(image_uri=image, command=["python3"], **common).run(
        code="prepare.py",
        inputs=[ProcessingInput(source="data.csv", destination="/opt/ml/processing/input", input_name="data")],
        outputs=[ProcessingOutput(output_name="train", source="/opt/ml/processing/train")],
    )
    prepare = ProcessingStep(name="Prepare", step_args=prepared, cache_config=cached)
    where = prepare.properties.ProcessingOutputConfig.Outputs["train"].S3Output.S3Uri
    estimator = SKLearn(entry_point="train.py", source_dir="src", framework_version="1.2-1", hyperparameters={"eta": eta}, **common)
    trained = estimator.fit({"train": TrainingInput(where)})
    train = TrainingStep(name="Train", step_args=trained, cache_config=cached, retry_policies=[again])
    pipeline = Pipeline(name="Cached", steps=[prepare, train], sagemaker_session=session)
    pipeline.upsert(role_arn=role)
    execution = pipeline.start(selective_execution_config=SelectiveExecutionConfig(**selection) if selection else None)
    status = ended(execution)
    steps = shown(execution)
    assert status == "Succeeded", steps
    described = execution.describe().get("SelectiveExecutionConfig")
    reused = {name: step.get("SelectiveExecutionResult", {}).get("SourcePipelineExecutionArn") for name, step in steps.items()}
    return {
        "arn": execution.arn, "attempts": steps["Train"]["AttemptCount"], "selection": described, "reused": reused["Prepare"],
        **{name: "CacheHitResult" in step for name, step in steps.items()},
    }

runs = [run(1), run(1), run(2)]
open("data.csv", "w").write("3,4\\n")
runs.append(run(2))
runs.append(run(3, selected_steps=["Train"]))
print(json.dumps(runs))
"""
FILES = {
    "data__csv": "1,2\n",
    "prepare__py": """
    import shutil
    shutil.copy("/opt/ml/processing/input/data.csv", "/opt/ml/processing/train/data.csv")
    """,
    "src___train__py": """
    import os
    data = open(os.environ["SM_CHANNEL_TRAIN"] + "/data.csv").read()
    open(os.environ["SM_MODEL_DIR"] + "/model", "w").write(data + os.environ["SM_HP_ETA"])
    """,
}


def test_steps_are_tried_again_cached_and_selected_as_the_script_says(v2: Desk, programs: Programs) -> None:
    assert "internal-error for Trai?, 2 more" in programs.own("fault", "add", "internal-error", "Trai?", "-n", "2").out
    first, again, tuned, moved, selected = v2(START + SCRIPT, **FILES).result
    assert first["attempts"] == 3
    assert json.loads(programs.own("fault", "list", "--json").out) == []
    assert (first["Prepare"], first["Train"]) == (False, False)
    assert (again["Prepare"], again["Train"]) == (True, True), "packing the same code again is no change"
    assert (tuned["Prepare"], tuned["Train"]) == (True, False)
    assert (moved["Prepare"], moved["Train"]) == (False, False), "other bytes at the same URI"
    assert (selected["reused"], selected["Train"], selected["attempts"]) == (moved["arn"], False, 1), "the latest execution"
    assert selected["selection"]["SelectedSteps"] == [{"StepName": "Train"}]
    told = json.loads(programs.own("explain", tuned["arn"], "Train", "--json").out)
    assert told[0]["differences"] == [{"attribute": "HyperParameters.eta", "before": "1", "now": "2"}]
    out = programs.own("explain", moved["arn"].rpartition("/")[2]).out
    assert "Prepare  refused (aws+guard)" in out
    assert "by AWS's key this is a hit" in out
    tries = programs.own("explain", first["arn"], "Train").out
    assert tries.count("SageMaker.JOB_INTERNAL_ERROR, again after 1 s.") == 2
    made = json.loads(programs.own("fault", "add", "throttling", "Nothing", "--json").out)
    assert made == {"Id": made["Id"], "Fault": "throttling", "Target": "Nothing", "Left": 1}
    assert programs.own("fault", "clear", made["Id"]).code == 0
    assert "There is no fault 'fire'" in programs.own("fault", "add", "fire", "Train").err
    wrong = programs.own("explain", moved["arn"], "Nobody")
    assert (wrong.code, "has no step 'Nobody'" in wrong.err) == (2, True)
    assert programs.own("explain", "nowhere").code == 2

    plan = json.loads(programs.own("plan", "Cached", "--json").out)
    assert [(step["step"], step["expected"]) for step in plan["steps"]] == [("Prepare", "hit"), ("Train", "hit")]
    drawn = programs.own("plan", "Cached").out
    assert "At AWS: $0." in drawn
    assert "2 x" not in drawn
    assert "1 x ml.m5.large" in drawn
    absent = programs.own("plan", "Absent")
    assert (absent.code, "There is no script and no pipeline 'Absent'. The pipelines: Cached" in absent.err) == (2, True)
    unknown = programs.own("plan", "Cached", "-p", "Eta=1")
    assert (unknown.code, "Unknown parameter 'Eta'. Cached has no parameters." in unknown.err) == (2, True)
    bill = json.loads(programs.own("cost", first["arn"], "--json").out)
    assert [len(step["jobs"]) for step in sorted(bill["steps"], key=lambda step: step["step"])] == [1, 3]
    assert bill["usd"] == pytest.approx(sum(step["usd"] for step in bill["steps"]))
    assert 0 < bill["usd"] < 0.1
    assert "AWS would have billed $0." in programs.own("cost", again["arn"].rpartition("/")[2]).out
