"""Step caching as users of the SageMaker SDK v2 meet it, and what `penstock explain` says of it."""

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
from sagemaker.workflow.steps import CacheConfig, ProcessingStep, TrainingStep
os.chdir(here)
session = PipelineSession()
image = sagemaker.image_uris.retrieve("sklearn", "us-east-1", version="1.2-1")
common = dict(role=role, instance_count=1, instance_type="ml.m5.large", sagemaker_session=session)
cached = CacheConfig(enable_caching=True, expire_after="PT1H")

def run(eta):
    prepared = ScriptProcessor(image_uri=image, command=["python3"], **common).run(
        code="prepare.py",
        inputs=[ProcessingInput(source="data.csv", destination="/opt/ml/processing/input", input_name="data")],
        outputs=[ProcessingOutput(output_name="train", source="/opt/ml/processing/train")],
    )
    prepare = ProcessingStep(name="Prepare", step_args=prepared, cache_config=cached)
    where = prepare.properties.ProcessingOutputConfig.Outputs["train"].S3Output.S3Uri
    estimator = SKLearn(entry_point="train.py", source_dir="src", framework_version="1.2-1", hyperparameters={"eta": eta}, **common)
    trained = estimator.fit({"train": TrainingInput(where)})
    train = TrainingStep(name="Train", step_args=trained, cache_config=cached)
    pipeline = Pipeline(name="Cached", steps=[prepare, train], sagemaker_session=session)
    pipeline.upsert(role_arn=role)
    execution = pipeline.start()
    status = ended(execution)
    steps = shown(execution)
    assert status == "Succeeded", steps
    return {"arn": execution.arn, **{name: "CacheHitResult" in step for name, step in steps.items()}}

runs = [run(1), run(1), run(2)]
open("data.csv", "w").write("3,4\\n")
runs.append(run(2))
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


def test_an_upsert_of_the_same_script_hits_and_other_parameters_or_data_do_not(v2: Desk, programs: Programs) -> None:
    first, again, tuned, moved = v2(START + SCRIPT, **FILES).result
    assert (first["Prepare"], first["Train"]) == (False, False)
    assert (again["Prepare"], again["Train"]) == (True, True), "packing the same code again is no change"
    assert (tuned["Prepare"], tuned["Train"]) == (True, False)
    assert (moved["Prepare"], moved["Train"]) == (False, False), "other bytes at the same URI"
    told = json.loads(programs.own("explain", tuned["arn"], "Train", "--json").out)
    assert told[0]["differences"] == [{"attribute": "HyperParameters.eta", "before": "1", "now": "2"}]
    out = programs.own("explain", moved["arn"].rpartition("/")[2]).out
    assert "Prepare  refused (aws+guard)" in out
    assert "by AWS's key this is a hit" in out
    wrong = programs.own("explain", moved["arn"], "Nobody")
    assert (wrong.code, "has no step 'Nobody'" in wrong.err) == (2, True)
    assert programs.own("explain", "nowhere").code == 2
