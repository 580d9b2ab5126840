"""Executions that show it when a result is lost, torn, or published twice: chains, a fan-out, a join, a model, a gate, a registration."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.crash.families import PLAIN, Clan

BUCKET, GROUP, PIPELINE = "chaos", "chaos-models", "chaos"
ASIDE = "chaos-aside"
"""A bucket whose objects nobody counts."""
FANS = ("fan1", "fan2", "fan3")
PARENTS: dict[str, tuple[str, ...]] = {
    "first": (), **dict.fromkeys(FANS, ("first",)), "join": FANS, "lone": (), "after": ("lone",),
}  # fmt: skip
HOSTS = {"after": 2}
"""Steps whose jobs have several instances; both write the same result, which counts once."""
STEPS = {*PARENTS, "train", "gate", "register"}
LINES = 6000
"""Of the larger results: too many for a row, so that blobs are made."""
JOB_EVENTS = {"SageMaker Processing Job State Change", "SageMaker Training Job State Change"}

PROGRAM = """
import os, sys, time
run, name, pause, *parents = sys.argv[1:]
def text(of):
    return f"{run}/{of}\\n" * (6000 if of in ("first", "fan2", "join") else 1)
for parent in parents:
    found = open(f"/opt/ml/processing/{parent}/{parent}.txt").read()
    if found != text(parent):
        sys.exit(f"{parent} is not whole: {len(found)}")
print(name, "begins", flush=True)
os.makedirs("/opt/ml/processing/out", exist_ok=True)
if os.listdir("/opt/ml/processing/out"):
    sys.exit("this root is not clean")
with open(f"/opt/ml/processing/out/{name}.txt", "w") as file:
    whole = text(name)
    file.write(whole[:7])
    file.flush()
    time.sleep(float(pause))
    file.write(whole[7:])
if name == "join":
    with open("/opt/ml/processing/out/evaluation.json", "w") as file:
        file.write('{"quality": {"value": 0.9}}')
print(name, "ends", flush=True)
"""
TRAIN = """
import argparse, os, time
parser = argparse.ArgumentParser()
parser.add_argument("--run")
parser.add_argument("--pause", type=float)
given = parser.parse_args()
data = open("/opt/ml/input/data/train/join.txt").read()
assert data == f"{given.run}/join\\n" * 6000, "the channel is not whole"
time.sleep(given.pause)
print("loss=0.25", flush=True)
with open(os.path.join(os.environ["SM_MODEL_DIR"], "model.txt"), "w") as file:
    file.write(given.run)
"""


def get(path: str) -> dict[str, str]:
    return {"Get": path}


def uri(*parts: Any) -> dict[str, Any]:
    return {"Std:Join": {"On": "/", "Values": [f"s3://{BUCKET}", *parts]}}


def source(name: str, place: Any) -> dict[str, Any]:
    folder = f"/opt/ml/processing/{name}"
    return {
        "InputName": name,
        "S3Input": {"S3Uri": place, "LocalPath": folder, "S3DataType": "S3Prefix", "S3InputMode": "File"},
    }


def processing(name: str, role: str) -> dict[str, Any]:
    """A step that checks its parents' results and writes its own."""
    run = get("Parameters.Run")
    outputs = {p: get(f"Steps.{p}.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri") for p in PARENTS[name]}
    inputs = [source("code", f"s3://{BUCKET}/code/program.py"), *(source(*each) for each in outputs.items())]
    place = {"S3Uri": uri("runs", run, name), "LocalPath": "/opt/ml/processing/out", "S3UploadMode": "EndOfJob"}
    step = {
        "Name": name,
        "Type": "Processing",
        "Arguments": {
            "RoleArn": role,
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceCount": HOSTS.get(name, 1),
                    "InstanceType": "ml.t3.medium",
                    "VolumeSizeInGB": 1,
                }
            },
            "AppSpecification": {
                "ImageUri": PLAIN,
                "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/program.py"],
                "ContainerArguments": [run, name, get("Parameters.Pause"), *PARENTS[name]],
            },
            "Environment": {"CHAOS_WORD": get("Parameters.Word")},
            "ProcessingInputs": inputs,
            "ProcessingOutputConfig": {"Outputs": [{"OutputName": "out", "S3Output": place}]},
        },
    }
    if name == "join":
        step["PropertyFiles"] = [{"PropertyFileName": "Report", "OutputName": "out", "FilePath": "evaluation.json"}]
    return step


def definition(role: str) -> dict[str, Any]:
    image = {"Image": PLAIN, "ModelDataUrl": get("Steps.train.ModelArtifacts.S3ModelArtifacts")}
    train = {
        "Name": "train",
        "Type": "Training",
        "Arguments": {
            "RoleArn": role,
            "AlgorithmSpecification": {"TrainingImage": PLAIN, "TrainingInputMode": "File"},
            "HyperParameters": {
                "sagemaker_program": '"train.py"', "sagemaker_submit_directory": f'"s3://{BUCKET}/code/sourcedir.tar.gz"',
                "run": get("Parameters.Run"), "pause": get("Parameters.Pause"),
            },
            "Environment": {"CHAOS_WORD": get("Parameters.Word")},
            "InputDataConfig": [
                {
                    "ChannelName": "train",
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": get("Steps.join.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri"),
                        }
                    },
                }
            ],
            "OutputDataConfig": {"S3OutputPath": uri("models", get("Parameters.Run"))},
            "ResourceConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        },
    }  # fmt: skip
    register = {
        "Name": "register",
        "Type": "RegisterModel",
        "Arguments": {
            "ModelPackageGroupName": GROUP,
            "ModelPackageDescription": get("Parameters.Run"),
            "InferenceSpecification": {
                "Containers": [image], "SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["text/csv"],
            },
        },
    }  # fmt: skip
    report = {"PropertyFile": get("Steps.join.PropertyFiles.Report"), "Path": "quality.value"}
    condition = {"Type": "GreaterThan", "LeftValue": {"Std:JsonGet": report}, "RightValue": 0.5}
    gate = {
        "Name": "gate",
        "Type": "Condition",
        "DependsOn": ["train", "after"],
        "Arguments": {"Conditions": [condition], "IfSteps": [register], "ElseSteps": []},
    }
    parameters = [
        {"Name": "Run", "Type": "String"},
        {"Name": "Pause", "Type": "String", "DefaultValue": "0"},
        {"Name": "Word", "Type": "String", "DefaultValue": "none"},
    ]
    return {
        "Version": "2020-12-01",
        "Parameters": parameters,
        "Steps": [*(processing(name, role) for name in PARENTS), train, gate],
    }


def pack(**files: str) -> bytes:
    """A sourcedir.tar.gz; a double underscore stands for a dot."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def prepare(clan: Clan) -> None:
    """The bucket (every write of a key is a version of its own), the code, the pipeline."""
    s3, sm = clan.client("s3"), clan.client("sagemaker")
    s3.create_bucket(Bucket=ASIDE)
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=BUCKET, Key="code/sourcedir.tar.gz", Body=pack(train__py=TRAIN))
    s3.put_object(Bucket=BUCKET, Key="code/program.py", Body=PROGRAM)
    role = clan.keys["role_arn"]
    sm.create_pipeline(PipelineName=PIPELINE, PipelineDefinition=json.dumps(definition(role)), RoleArn=role)


def start(clan: Clan, run: str, word: str, pause: float = 0.0) -> str:
    """Starts an execution; the token makes it one, however often it is sent."""
    given = {"Run": run, "Pause": f"{pause:.3f}", "Word": word}
    answer = clan.client("sagemaker").start_pipeline_execution(
        PipelineName=PIPELINE,
        PipelineParameters=[{"Name": name, "Value": value} for name, value in given.items()],
        ClientRequestToken=f"{word}-{run}-".ljust(40, "x"),
    )
    return str(answer["PipelineExecutionArn"])


# --- what must be true afterwards


def faults(clan: Clan, executions: dict[str, str], word: str) -> list[str]:
    """All that is not as it must be, a sentence each. Takes: the executions' ARNs by run."""
    return [
        *_of_executions(clan, executions),
        *_of_objects(clan, executions),
        *_of_packages(clan, executions),
        *events_out_of_order(clan),
        *_of_leftovers(clan, word),
    ]


def _of_executions(clan: Clan, executions: dict[str, str]) -> list[str]:
    sm, found = clan.client("sagemaker"), []
    for run, arn in executions.items():
        status = sm.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"]
        steps = sm.list_pipeline_execution_steps(PipelineExecutionArn=arn, MaxResults=100)["PipelineExecutionSteps"]
        if status != "Succeeded":
            found.append(f"{run} is {status}")
        found += [
            f"{run}/{s['StepName']} is {s['StepStatus']}: {s.get('FailureReason')}"
            for s in steps
            if s["StepStatus"] != "Succeeded"
        ]
        if sorted(s["StepName"] for s in steps) != sorted(STEPS):
            found.append(f"{run} has the steps {sorted(s['StepName'] for s in steps)}")
    return found


def expected(run: str) -> dict[str, bytes]:
    """The objects of a run, but for its model."""
    made = {}
    for name in PARENTS:
        text = f"{run}/{name}\n" * (LINES if name in ("first", "fan2", "join") else 1)
        made[f"runs/{run}/{name}/{name}.txt"] = text.encode()
    return {**made, f"runs/{run}/join/evaluation.json": b'{"quality": {"value": 0.9}}'}


def _of_objects(clan: Clan, executions: dict[str, str]) -> list[str]:
    s3, found = clan.client("s3"), []
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET)
    versions = Counter(version["Key"] for page in pages for version in page.get("Versions", []))
    for run in executions:
        wanted = expected(run)
        models = [key for key in versions if key.startswith(f"models/{run}/")]
        there = {key for key in versions if key.startswith(f"runs/{run}/")}
        if there != set(wanted) or len(models) != 1:
            found.append(f"{run}: missing {set(wanted) - there}, too many {there - set(wanted)}, models {models}")
        for key in wanted.keys() & there:
            if s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() != wanted[key]:
                found.append(f"{key} is not whole")
        for key in models:
            with tarfile.open(fileobj=io.BytesIO(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())) as tar:
                member = tar.extractfile("model.txt")
                if member is None or member.read() != run.encode():
                    found.append(f"{key} is not {run}'s model")
    return found + [f"{key} was written {count} times" for key, count in versions.items() if count != 1]


def _of_packages(clan: Clan, executions: dict[str, str]) -> list[str]:
    sm = clan.client("sagemaker")
    pages = sm.get_paginator("list_model_packages").paginate(ModelPackageGroupName=GROUP)
    try:
        packages = [package for page in pages for package in page["ModelPackageSummaryList"]]
    except sm.exceptions.ClientError as fault:
        return [str(fault)]
    runs = Counter(package.get("ModelPackageDescription") for package in packages)
    found = [f"{run} has {runs[run]} model packages" for run in executions if runs[run] != 1]
    versions = sorted(package["ModelPackageVersion"] for package in packages)
    if versions != list(range(1, len(versions) + 1)):
        found.append(f"the versions of packages are {versions}")
    return found


def events_out_of_order(clan: Clan) -> list[str]:
    """Every status is told once, the last one of each job is final."""
    told: dict[str, list[Any]] = {}
    for event in clan.events():
        detail = event.detail
        if event.detail_type in JOB_EVENTS:
            last = detail.get("SecondaryStatusTransitions", [{}])[-1].get(
                "StatusMessage"
            )  # waiting for capacity is news
            status = (
                detail.get("ProcessingJobStatus") or detail.get("TrainingJobStatus"),
                detail.get("SecondaryStatus"),
                last,
            )
            told.setdefault(event.resources[0], []).append(status)
        elif "stepName" in detail:
            name = f"{detail['pipelineExecutionArn']}/{detail['stepName']}"
            told.setdefault(name, []).append(detail["currentStepStatus"])
        elif "currentPipelineExecutionStatus" in detail:
            told.setdefault(detail["pipelineExecutionArn"], []).append(detail["currentPipelineExecutionStatus"])
    found = [f"{name} was told {line}" for name, line in told.items() if len(line) != len(set(line))]
    final = {"Completed", "Failed", "Stopped", "Succeeded"}
    for name, line in told.items():
        ends = [status for status in line if (status[0] if isinstance(status, tuple) else status) in final]
        if len(ends) != 1 or ends[0] != line[-1]:
            found.append(f"{name} was told {line}")
    return found


def _of_leftovers(clan: Clan, word: str) -> list[str]:
    found = [f"a run's folder is left: {name}" for name in clan.run_folders()]
    found += [f"an access key is left: {run}" for run in clan.job_keys()]
    found += [f"a mount is left: {line}" for line in clan.mounts()]
    found += [f"a process is left: {stray}" for stray in clan.strays(word)]
    return found


def failures(log: str) -> Sequence[str]:
    """Lines of the server's log that tell of a bug."""
    signs = ("Traceback", "failed (try", "fell", "could not", "InternalFailure", "Exception", "ERROR")
    return [line for line in log.splitlines() if any(sign in line for sign in signs)]
