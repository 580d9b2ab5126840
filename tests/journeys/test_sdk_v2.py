"""What scripts do with the SageMaker SDK v2 beside the main job: processors, estimators, repacked models, logic, stops."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from tests.conftest import Boto
from tests.programs import Desk, Told

pytestmark = [pytest.mark.sandbox, pytest.mark.clients]
START = """
import json, os, sys, time
import boto3, sagemaker
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
role = sagemaker.get_execution_role()
session = sagemaker.Session()
bucket = session.default_bucket()
here = os.path.dirname(os.path.abspath(__file__))

def until(found, seconds=120):
    end = time.time() + seconds
    while not (result := found()):
        assert time.time() < end, "waited in vain"
        time.sleep(0.05)
    return result

def ended(execution):
    until(lambda: execution.describe()["PipelineExecutionStatus"] not in ("Executing", "Stopping"))
    return execution.describe()["PipelineExecutionStatus"]

def shown(execution):
    return {step["StepName"]: step for step in execution.list_steps()}
"""


def archive(boto: Boto, uri: str) -> dict[str, bytes]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    packed = io.BytesIO(boto("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    with tarfile.open(fileobj=packed) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


# --- jobs that scripts wait for, their logs before them


@pytest.fixture(scope="module")
def waited(v2: Desk) -> dict[str, Told]:
    """Scripts that wait with logs, all at once: the SDK looks every ten seconds."""
    begun = {name: v2.begin(START + script, **files) for name, (script, files) in WAITED.items()}
    return {name: v2.ended(each) for name, each in begun.items()}


WAITED: dict[str, tuple[str, dict[str, str]]] = {
    "script processor on two hosts": (
        """
from sagemaker.processing import ProcessingInput, ProcessingOutput, ScriptProcessor
for name in "abc":
    session.upload_string_as_file_body(name, bucket, f"two-hosts/in/{name}.txt")
image = sagemaker.image_uris.retrieve("sklearn", session.boto_region_name, version="1.2-1")
processor = ScriptProcessor(
    image_uri=image, command=["python3"], role=role, instance_count=2, instance_type="ml.m5.large",
    base_job_name="two-hosts", env={"GREETING": "hello"},
)
processor.run(
    code="process.py", arguments=["--word", "with a space"],
    inputs=[ProcessingInput(
        source=f"s3://{bucket}/two-hosts/in", destination="/opt/ml/processing/letters",
        s3_data_distribution_type="ShardedByS3Key",
    )],
    outputs=[ProcessingOutput(source="/opt/ml/processing/output", output_name="out")],
    wait=True, logs=True,
)
job = processor.jobs[-1]
out = job.outputs[0].destination
print(json.dumps({"status": job.describe()["ProcessingJobStatus"],
    "files": sorted(uri[len(out):] for uri in sagemaker.s3.S3Downloader.list(out))}))
""",
        {
            "process__py": """
            import json, os, sys
            config = json.load(open("/opt/ml/config/resourceconfig.json"))
            mine = sorted(os.listdir("/opt/ml/processing/letters"))
            print(config["current_host"], "of", config["hosts"], "has", mine, sys.argv[1:], os.environ["GREETING"])
            open("/opt/ml/processing/output/" + config["current_host"], "w").write(str(mine))
            """
        },
    ),
    "framework processor": (
        """
from sagemaker.processing import FrameworkProcessor, ProcessingOutput
from sagemaker.sklearn import SKLearn
processor = FrameworkProcessor(
    estimator_cls=SKLearn, framework_version="1.2-1", role=role, instance_count=1, instance_type="ml.m5.large",
    base_job_name="framework",
)
processor.run(code="main_job.py", source_dir="src", arguments=["--n", "3"], wait=True, logs=True)
print(json.dumps({"status": processor.jobs[-1].describe()["ProcessingJobStatus"]}))
""",
        {
            "src___main_job__py": """
            import sys
            import iniconfig
            from beside import WORD
            print("imported", iniconfig.__name__, WORD, sys.argv[1:])
            """,
            "src___beside__py": "WORD = 'the module beside'",
            "src___requirements__txt": "iniconfig==2.0.0\n",
        },
    ),
    "scikit-learn estimator": (
        """
from sagemaker.sklearn import SKLearn
for name, text in (("train", "0,0\\n1,2\\n2,4\\n"), ("test", "3,6\\n")):
    session.upload_string_as_file_body(text, bucket, f"sklearn/{name}/{name}.csv")
estimator = SKLearn(
    entry_point="train.py", source_dir="src", framework_version="1.2-1", role=role, instance_type="ml.m5.large",
    instance_count=1, hyperparameters={"alpha": 0.5, "name": "a b", "flag": True}, base_job_name="sklearn",
    metric_definitions=[{"Name": "test:error", "Regex": "error=([0-9.]+);"}],
)
estimator.fit({name: f"s3://{bucket}/sklearn/{name}" for name in ("train", "test")}, wait=True, logs=True)
session.logs_for_job(estimator.latest_training_job.name, wait=False)
job = estimator.latest_training_job.describe()
print(json.dumps({"model": estimator.model_data, "status": job["TrainingJobStatus"],
    "metrics": [[metric["MetricName"], metric["Value"]] for metric in job["FinalMetricDataList"]]}))
""",
        {
            "src___train__py": """
            import argparse, os
            import iniconfig, joblib, numpy as np
            from sklearn.linear_model import Ridge
            parser = argparse.ArgumentParser()
            parser.add_argument("--alpha", type=float)
            parser.add_argument("--name")
            parser.add_argument("--flag")
            parser.add_argument("--model-dir", default=os.environ["SM_MODEL_DIR"])
            parser.add_argument("--train", default=os.environ["SM_CHANNEL_TRAIN"])
            parser.add_argument("--test", default=os.environ["SM_CHANNEL_TEST"])
            args = parser.parse_args()
            train = np.loadtxt(args.train + "/train.csv", delimiter=",")
            test = np.loadtxt(args.test + "/test.csv", delimiter=",")
            model = Ridge(alpha=args.alpha).fit(train[:, :1], train[:, 1])
            print("error=%.3f;" % abs(model.predict(test[None, :1])[0] - test[1]), args.name, args.flag)
            joblib.dump(model, args.model_dir + "/model.joblib")
            """,
            "src___requirements__txt": "iniconfig\n",
        },
    ),
    "XGBoost estimator": (
        """
from sagemaker.inputs import TrainingInput
from sagemaker.xgboost import XGBoost
session.upload_string_as_file_body("".join(f"{n % 2},{n % 2},{n % 5}\\n" for n in range(100)), bucket, "xgboost/train/t.csv")
estimator = XGBoost(
    entry_point="train.py", framework_version="1.7-1", role=role, instance_type="ml.m5.large", instance_count=1,
    hyperparameters={"num_round": 3, "max_depth": 2}, base_job_name="xgboost",
)
estimator.fit({"train": TrainingInput(f"s3://{bucket}/xgboost/train", content_type="csv")}, wait=True, logs=True)
print(json.dumps({"model": estimator.model_data}))
""",
        {
            "train__py": """
            import argparse, os
            import numpy as np, xgboost
            parser = argparse.ArgumentParser()
            parser.add_argument("--num_round", type=int)
            parser.add_argument("--max_depth", type=int)
            args = parser.parse_args()
            rows = np.loadtxt(os.environ["SM_CHANNEL_TRAIN"] + "/t.csv", delimiter=",")
            model = xgboost.train({"max_depth": args.max_depth, "objective": "binary:logistic"},
                xgboost.DMatrix(rows[:, 1:], rows[:, 0]), args.num_round)
            print("trained", model.num_boosted_rounds(), "rounds with xgboost", xgboost.__version__)
            model.save_model(os.environ["SM_MODEL_DIR"] + "/xgboost-model")
            """
        },
    ),
    "a job that fails": (
        """
from sagemaker.sklearn import SKLearn
estimator = SKLearn(entry_point="train.py", framework_version="1.2-1", role=role, instance_type="ml.m5.large", instance_count=1)
try:
    estimator.fit(wait=True, logs=True)
except sagemaker.exceptions.UnexpectedStatusException as error:
    print(json.dumps({"told": str(error), "status": error.actual_status}))
""",
        {"train__py": "raise RuntimeError('the columns are gone')"},
    ),
}


def test_a_processor_waits_with_the_logs_of_both_its_hosts(waited: dict[str, Told]):
    told = waited["script processor on two hosts"]
    assert told.result == {"status": "Completed", "files": ["/algo-1", "/algo-2"]}
    assert "algo-1 of ['algo-1', 'algo-2'] has ['a.txt', 'c.txt'] ['--word', 'with a space'] hello" in told.out
    assert "algo-2 of ['algo-1', 'algo-2'] has ['b.txt'] ['--word', 'with a space'] hello" in told.out


def test_a_framework_processor_installs_its_requirements_and_runs_in_its_folder(waited: dict[str, Told]):
    told = waited["framework processor"]
    assert told.result == {"status": "Completed"}
    assert "imported iniconfig the module beside ['--n', '3']" in told.out


def test_a_scikit_learn_estimator_fits_in_script_mode(waited: dict[str, Told], boto: Boto):
    told = waited["scikit-learn estimator"]
    result = told.result
    assert result["status"] == "Completed"
    assert list(archive(boto, result["model"])) == ["model.joblib"]
    assert [[name, round(value, 3)] for name, value in result["metrics"]] == [["test:error", 0.8]]
    assert "error=0.800; a b True" in told.out  # printed as the job went, by fit(logs=True)
    assert told.out.count("error=0.800;") == 2  # and again by logs_for_job


def test_an_xgboost_estimator_fits_in_script_mode(waited: dict[str, Told], boto: Boto):
    told = waited["XGBoost estimator"]
    assert list(archive(boto, told.result["model"])) == ["xgboost-model"]
    assert "trained 3 rounds with xgboost 1.7" in told.out


def test_fit_raises_with_the_reason_of_a_job_that_failed(waited: dict[str, Told]):
    told = waited["a job that fails"]
    assert told.result["status"] == "Failed"
    assert "RuntimeError: the columns are gone" in told.result["told"]
    assert told.out.count("RuntimeError: the columns are gone") >= 2  # its log, and the exception


# --- models that are repacked


REPACK = """
from sagemaker.model import Model
from sagemaker.sklearn import SKLearnModel
from sagemaker.xgboost import XGBoostModel
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parameters import ParameterString
import io, tarfile
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w:gz") as tar:
    info = tarfile.TarInfo("model.bin")
    info.size = 3
    tar.addfile(info, io.BytesIO(b"abc"))
boto3.client("s3").put_object(Bucket=bucket, Key="repack/model.tar.gz", Body=packed.getvalue())
session = PipelineSession()
data = ParameterString(name="ModelData", default_value=f"s3://{bucket}/repack/model.tar.gz")
code = dict(entry_point="inference.py", source_dir="src", dependencies=["lib"])
common = dict(model_data=data, role=role, sagemaker_session=session, **code)
image = sagemaker.image_uris.retrieve("sklearn", "us-east-1", version="1.2-1")
models = {
    "sklearn": SKLearnModel(framework_version="1.2-1", enable_network_isolation=True, **common),
    "xgboost": XGBoostModel(framework_version="1.7-1", enable_network_isolation=True, **common),
    "plain": Model(image_uri=image, **common),
    "shared": SKLearnModel(framework_version="1.2-1", **common),  # its code lies beside the model, and is not repacked
}
registered = [ModelStep(name=name, step_args=model.register(
    content_types=["text/csv"], response_types=["text/csv"], inference_instances=["ml.m5.large"],
    transform_instances=["ml.m5.large"], model_package_group_name="repacked", approval_status="Approved",
)) for name, model in models.items()]
created = ModelStep(name="created", step_args=Model(image_uri=image, **common).create(instance_type="ml.m5.large"))
pipeline = Pipeline(name="Repack", parameters=[data], steps=[*registered, created], sagemaker_session=session)
pipeline.upsert(role_arn=role)
execution = pipeline.start()
status, steps = ended(execution), shown(execution)
sm = boto3.client("sagemaker")
told = {"status": status, "steps": {name: step["StepStatus"] for name, step in steps.items()}}
for name in models:
    arn = steps[name + "-RegisterModel"]["Metadata"]["RegisterModel"]["Arn"]
    told[name] = sm.describe_model_package(ModelPackageName=arn)["InferenceSpecification"]["Containers"][0]
name = steps["created-CreateModel"]["Metadata"]["Model"]["Arn"].split("/")[-1]
told["created"] = sm.describe_model(ModelName=name)["PrimaryContainer"]

from sagemaker.lineage.artifact import Artifact, ModelArtifact
from sagemaker.lineage.association import Association
from sagemaker.lineage.context import Context
from sagemaker.lineage.visualizer import LineageTableVisualizer
plain = sagemaker.Session()
package = steps["plain-RegisterModel"]
until(lambda: sm.list_artifacts(SourceUri=package["Metadata"]["RegisterModel"]["Arn"])["ArtifactSummaries"])
table = LineageTableVisualizer(plain).show(pipeline_execution_step=package)
columns = ["Direction", "Type", "Association Type", "Lineage Type"]
found = next(iter(Artifact.list(source_uri=told["plain"]["ModelDataUrl"], sagemaker_session=plain)))
model = ModelArtifact.load(found.artifact_arn, sagemaker_session=plain)
repack = steps["plain-RepackModel-0"]["Metadata"]["TrainingJob"]["Arn"]
mine = Context.create(
    context_name="mine", source_uri="s3://mine", context_type="Endpoint", properties={"a": "1"}, sagemaker_session=plain
)
Association.create(model.artifact_arn, mine.context_arn, association_type="ContributedTo", sagemaker_session=plain)
outgoing = [each.destination_type for each in Association.list(source_arn=model.artifact_arn, sagemaker_session=plain)]
mine.delete(disassociate=True)
told["lineage"] = {
    "table": sorted(table[columns].values.tolist()), "jobs": model.training_job_arns() == [repack],
    "execution": model.pipeline_execution_arn() == execution.arn, "datasets": len(model.dataset_artifacts()) > 0,
    "outgoing": sorted(outgoing), "contexts": [each.context_name for each in Context.list(sagemaker_session=plain)],
}
print(json.dumps(told))
"""


def test_models_are_repacked_with_their_code_by_jobs_of_the_pipeline(v2: Desk, boto: Boto):
    told = v2(
        START + REPACK,
        src___inference__py="def model_fn(folder):\n    return 1\n",
        src___requirements__txt="iniconfig\n",
        lib___helper__py="X = 1\n",
    )
    result = told.result
    assert result["status"] == "Succeeded", told
    for name in ("sklearn", "xgboost", "plain", "created"):
        assert result["steps"][f"{name}-RepackModel-0"] == "Succeeded"
        files = archive(boto, result[name]["ModelDataUrl"])
        assert files["model.bin"] == b"abc"
        assert {"code/inference.py", "code/requirements.txt", "code/lib/lib/helper.py"} <= set(files)
        assert result[name]["Environment"]["SAGEMAKER_PROGRAM"] == "inference.py"
    shared = result["shared"]
    assert list(archive(boto, shared["ModelDataUrl"])) == ["model.bin"]
    assert "inference.py" in archive(boto, shared["Environment"]["SAGEMAKER_SUBMIT_DIRECTORY"])
    lineage = result["lineage"]
    assert lineage.pop("table") == [
        ["Input", "Approval", "ContributedTo", "action"], ["Input", "Image", "ContributedTo", "artifact"],
        ["Input", "Model", "ContributedTo", "artifact"], ["Output", "ModelGroup", "AssociatedWith", "context"],
    ]  # fmt: skip
    (group,) = lineage.pop("contexts")
    assert group.startswith("repacked-")
    assert lineage == {"jobs": True, "execution": True, "datasets": True, "outgoing": ["Endpoint", "Model"]}


# --- the language of pipelines


LOGIC = """
from sagemaker.processing import ProcessingInput, ProcessingOutput, ScriptProcessor
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import ConditionEquals, ConditionGreaterThan, ConditionIn, ConditionNot, ConditionOr
from sagemaker.workflow.execution_variables import ExecutionVariables
from sagemaker.workflow.fail_step import FailStep
from sagemaker.workflow.functions import Join, JsonGet
from sagemaker.workflow.parameters import ParameterBoolean, ParameterInteger, ParameterString
from sagemaker.workflow.properties import PropertyFile
from sagemaker.workflow.steps import ProcessingStep
session = PipelineSession()
count = ParameterInteger(name="Count", default_value=2)
flag = ParameterBoolean(name="Flag", default_value=False)
colour = ParameterString(name="Colour", default_value="red", enum_values=["red", "green"])
report = PropertyFile(name="Report", output_name="out", path="report.json")
image = sagemaker.image_uris.retrieve("sklearn", "us-east-1", version="1.2-1")
processor = ScriptProcessor(
    image_uri=image, command=["python3"], role=role, instance_count=1, instance_type="ml.m5.large", sagemaker_session=session,
)
measure = ProcessingStep(
    name="Measure",
    step_args=processor.run(
        code="measure.py", arguments=["--count", count.to_string(), "--flag", Join(on="", values=[flag]), "--colour", colour],
        outputs=[ProcessingOutput(source="/opt/ml/processing/out", output_name="out", destination=Join(
            on="/", values=["s3:/", bucket, "logic", ExecutionVariables.PIPELINE_EXECUTION_ID]))],
    ),
    property_files=[report],
)
def got(path):
    return JsonGet(step_name="Measure", property_file=report, json_path=path)
stop = FailStep(name="TooMany", error_message=Join(on=" ", values=["count", got("rows[0].count"), "colour", colour, "flag", flag]))
inner = ConditionStep(name="Inner", conditions=[ConditionOr(conditions=[
    ConditionEquals(left=got("rows[0].colour"), right="blue"), ConditionGreaterThan(left=got("rows[0].count"), right=5),
])], if_steps=[stop], else_steps=[])
outer = ConditionStep(name="Outer", conditions=[
    ConditionIn(value=colour, in_values=["green", "red"]), ConditionNot(ConditionEquals(left=flag, right=True)),
], if_steps=[inner], else_steps=[])
pipeline = Pipeline(name="Logic", parameters=[count, flag, colour], steps=[measure, outer], sagemaker_session=session)
pipeline.upsert(role_arn=role)
executions = [pipeline.start(parameters=given) for given in ({}, {"Count": 6, "Colour": "green"}, {"Flag": True})]
told = []
for execution in executions:
    status, steps = ended(execution), shown(execution)
    told.append({
        "status": status, "outcomes": {n: s["Metadata"]["Condition"]["Outcome"] for n, s in steps.items() if "Condition" in s["Metadata"]},
        "reasons": {n: s["FailureReason"] for n, s in steps.items() if "FailureReason" in s},
        "parameters": {p["Name"]: p["Value"] for p in execution.list_parameters()["PipelineParameters"]},
    })
try:
    pipeline.start(parameters={"Colour": "blue"})
except Exception as error:
    told.append(str(error))
executions[0].wait(delay=1)
listed = [each["PipelineExecutionArn"] for each in pipeline.list_executions()["PipelineExecutionSummaries"]]
assert listed == [each.arn for each in reversed(executions)], listed
assert pipeline.describe()["PipelineName"] == "Logic"
pipeline.delete()
try:
    pipeline.describe()
except Exception as error:
    told.append(str(error))
print(json.dumps(told))
"""


def test_conditions_parameters_and_a_fail_step_do_what_the_sdk_says(v2: Desk):
    told = v2(
        START + LOGIC,
        measure__py="""
        import json, sys
        _, _, count, _, flag, _, colour = sys.argv
        print("flag is", flag)
        rows = [{"count": int(count), "colour": colour}]
        json.dump({"rows": rows}, open("/opt/ml/processing/out/report.json", "w"))
        """,
    ).result
    plain, many, flagged, refused, gone = told
    assert plain["status"] == "Succeeded"
    assert plain["outcomes"] == {"Outer": "True", "Inner": "False"}
    assert plain["parameters"] == {"Count": "2", "Flag": "false", "Colour": "red"}
    assert many["status"] == "Failed"
    assert many["reasons"] == {"TooMany": "count 6 colour green flag false"}
    assert flagged["status"] == "Succeeded"
    assert flagged["outcomes"] == {"Outer": "False"}
    assert "blue" in refused
    assert "ResourceNotFound" in gone


# --- two at once


TWICE = """
from sagemaker.processing import ScriptProcessor
from sagemaker.workflow.steps import ProcessingStep
session = PipelineSession()
image = sagemaker.image_uris.retrieve("sklearn", "us-east-1", version="1.2-1")
processor = ScriptProcessor(
    image_uri=image, command=["python3"], role=role, instance_count=1, instance_type="ml.m5.large", sagemaker_session=session,
)
pipeline = Pipeline(
    name="Twice", steps=[ProcessingStep(name="Say", step_args=processor.run(code="say.py"))], sagemaker_session=session,
)
open(sys.argv[1] + "/" + sys.argv[2], "w").close()
until(lambda: len(os.listdir(sys.argv[1])) == 2)  # both at one moment
for _ in range(5):
    pipeline.upsert(role_arn=role)
execution = pipeline.start()
print(json.dumps([execution.arn, ended(execution)]))
"""


def test_two_scripts_upsert_and_start_the_same_pipeline_at_once(v2: Desk, tmp_path: Any):
    begun = [v2.begin(START + TWICE, str(tmp_path), each, say__py="print('said')") for each in ("one", "two")]
    (first, one), (second, two) = (v2.ended(each).result for each in begun)
    assert (one, two) == ("Succeeded", "Succeeded")
    assert first != second


# --- stops


STOP = """
from sagemaker.estimator import Estimator
from sagemaker.processing import ProcessingInput, ScriptProcessor
from sagemaker.sklearn import SKLearn
from sagemaker.workflow.steps import ProcessingStep, TrainingStep
session = PipelineSession()
image = sagemaker.image_uris.retrieve("sklearn", "us-east-1", version="1.2-1")
common = dict(role=role, instance_count=1, instance_type="ml.m5.large", sagemaker_session=session)
kind = sys.argv[1]
if kind == "Processing":
    args = ScriptProcessor(image_uri=image, command=["python3"], **common).run(code="wait.py")
    step = ProcessingStep(name="Wait", step_args=args)
else:
    step = TrainingStep(name="Wait", step_args=SKLearn(entry_point="wait.py", framework_version="1.2-1", **common).fit())
after = ProcessingStep(
    name="After", depends_on=[step],
    step_args=ScriptProcessor(image_uri=image, command=["python3"], **common).run(code="wait.py"),
)
pipeline = Pipeline(name="Stop-" + kind, steps=[step, after], sagemaker_session=session)
pipeline.upsert(role_arn=role)
execution = pipeline.start()
logs = boto3.client("logs")

def waiting():
    try:
        found = logs.filter_log_events(logGroupName=f"/aws/sagemaker/{kind}Jobs", logStreamNamePrefix=job())
    except (logs.exceptions.ResourceNotFoundException, KeyError):
        return False
    return any("waiting" in event["message"] for event in found["events"])

def job():
    return shown(execution)["Wait"]["Metadata"][f"{kind}Job"]["Arn"].split("/")[-1]

until(waiting)
execution.stop()
status = ended(execution)
sm = boto3.client("sagemaker")
described = getattr(sm, f"describe_{kind.lower()}_job")(**{f"{kind}JobName": job()})
print(json.dumps({"status": status, "job": described[f"{kind}JobStatus"],
    "steps": {n: s["StepStatus"] for n, s in shown(execution).items()}}))
"""


@pytest.mark.parametrize("kind", ["Processing", "Training"])
def test_a_stop_in_the_middle_of_a_step_stops_its_job_and_begins_no_other(kind: str, v2: Desk):
    told = v2(START + STOP, kind, wait__py="import time; print('waiting', flush=True); time.sleep(600)")
    assert told.result == {"status": "Stopped", "job": "Stopped", "steps": {"Wait": "Stopped"}}
