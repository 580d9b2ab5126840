"""What scripts do with the SageMaker SDK v2's tuners: a search of its own, and one as a step whose best model goes on."""

from __future__ import annotations

import pytest

from tests.journeys.test_sdk_v2 import START
from tests.programs import Desk

pytestmark = [pytest.mark.sandbox, pytest.mark.clients]
TRAIN = """
import argparse, os
parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
parser.add_argument("--depth", type=int)
parser.add_argument("--kind")
args = parser.parse_args()
print("score=%.4f;" % (1 - abs(args.rate - 0.3) - args.depth / 100 - (args.kind == "bad")))
open(os.environ["SM_MODEL_DIR"] + "/model.txt", "w").write(args.kind)
"""
TUNER = """
from sagemaker.sklearn import SKLearn
from sagemaker.tuner import CategoricalParameter, ContinuousParameter, HyperparameterTuner, IntegerParameter

def tuner(name, session, strategy="Bayesian"):
    estimator = SKLearn(
        entry_point="train.py", framework_version="1.2-1", role=role, instance_type="ml.m5.large", instance_count=1,
        sagemaker_session=session,
    )
    ranges = {"rate": ContinuousParameter(0.001, 1), "depth": IntegerParameter(1, 5), "kind": CategoricalParameter(["good", "bad"])}
    return HyperparameterTuner(
        estimator, "score", ranges, [{"Name": "score", "Regex": "score=([-0-9.]+);"}], max_jobs=4, max_parallel_jobs=2,
        base_tuning_job_name=name, strategy=strategy, random_seed=3,
    )
"""
ALONE = """
found = tuner("alone", session)
found.fit(wait=False)
client = boto3.client("sagemaker")
name = found.latest_tuning_job.name
until(lambda: found.describe()["HyperParameterTuningJobStatus"] != "InProgress")
told = found.describe()
frame = found.analytics().dataframe()
best = found.best_training_job()
print(json.dumps({
    "status": told["HyperParameterTuningJobStatus"], "counters": told["ObjectiveStatusCounters"], "best": best,
    "first": frame.sort_values("FinalObjectiveValue", ascending=False).iloc[0]["TrainingJobName"], "rows": len(frame),
    "kinds": sorted(set(frame["kind"])),
}))
"""
STEP = """
from sagemaker.model import Model
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.steps import TuningStep
session = PipelineSession()
step = TuningStep(name="SearchForTheBest", step_args=tuner("step", session).fit())
image = sagemaker.image_uris.retrieve("sklearn", "us-east-1", version="1.2-1")
model = Model(
    image_uri=image, role=role, sagemaker_session=session,
    model_data=step.get_top_model_s3_uri(top_k=0, s3_bucket=bucket),
)
best_step = ModelStep(name="Best", step_args=model.create(instance_type="ml.m5.large"))
pipeline = Pipeline("Tuned", steps=[step, best_step], sagemaker_session=session)
pipeline.upsert(role)
execution = pipeline.start()
status = ended(execution)
steps = shown(execution)
client = boto3.client("sagemaker")
name = steps["SearchForTheBest"]["Metadata"]["TuningJob"]["Arn"].rpartition("/")[2]
best = client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)["BestTrainingJob"]["TrainingJobName"]
model_arn = next(s for n, s in steps.items() if n.startswith("Best"))["Metadata"]["Model"]["Arn"]
made = client.describe_model(ModelName=model_arn.rpartition("/")[2])
data = made["PrimaryContainer"]["ModelDataUrl"]
there = boto3.client("s3").head_object(Bucket=bucket, Key=data.split("/", 3)[3])["ContentLength"]
print(json.dumps({"status": status, "of the best": best in data, "bytes": there}))
"""


def test_a_tuner_finds_the_best_of_its_training_jobs(v2: Desk) -> None:
    told = v2.ended(v2.begin(START + TUNER + ALONE, train__py=TRAIN)).result
    assert (told["status"], told["rows"]) == ("Completed", 4)
    assert told["counters"] == {"Succeeded": 4, "Pending": 0, "Failed": 0}
    assert told["best"] == told["first"]
    assert set(told["kinds"]) <= {'"good"', '"bad"'}


def test_the_best_model_of_a_tuning_step_goes_on(v2: Desk) -> None:
    told = v2.ended(v2.begin(START + TUNER + STEP, train__py=TRAIN)).result
    assert (told["status"], told["of the best"]) == ("Succeeded", True)
    assert told["bytes"] > 0
