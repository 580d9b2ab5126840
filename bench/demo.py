"""The demo pipeline, from its CreationTime to its last step's EndTime, beside the same programs run by hand in the same environments."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import penstock
from bench.steps import BUBBLEWRAP, ENDED
from bench.world import Family, Row, median_of

EXAMPLE = Path(__file__).parent.parent / "examples" / "quality-gate"
CONTAINERS = Path(penstock.__file__).parent / "containers"
SKLEARN, XGBOOST = "sagemaker-scikit-learn:1.2-1-cpu-py3", "sagemaker-xgboost:1.7-1"
HYPERPARAMETERS = {
    "objective": "binary:logistic",
    "eval_metric": "auc",
    "num_round": "100",
    "max_depth": "4",
    "eta": "0.1",
    "subsample": "0.8",
    "seed": "42",
}


def measure(family: Family) -> list[Row]:
    subprocess.run(
        [sys.executable, "-m", "penstock", "image", "pull", SKLEARN, XGBOOST],
        env=family.environment(),
        check=True,
        capture_output=True,
    )
    command = [sys.executable, "-m", "penstock", "exec", "--", sys.executable, str(EXAMPLE / "boto3_pipeline.py")]
    subprocess.run(
        command, env=family.environment(), check=True, capture_output=True
    )  # defines it, and warms both sides' files
    by_hand(family)
    client = family.client("sagemaker")
    ours = median_of(3, lambda: run(client))
    limit = median_of(3, lambda: by_hand(family))
    return [
        Row("the demo pipeline, 5 steps", "s", ours, limit, "the same programs by hand, one after another", "<= 1.25 x")
    ]


def run(client: Any) -> float:
    arn = client.start_pipeline_execution(PipelineName="MLOpsPipeline-boto3")["PipelineExecutionArn"]
    while (execution := client.describe_pipeline_execution(PipelineExecutionArn=arn))[
        "PipelineExecutionStatus"
    ] not in ENDED:
        time.sleep(0.1)
    assert execution["PipelineExecutionStatus"] == "Succeeded", execution.get("FailureReason")
    steps = client.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    return float((max(step["EndTime"] for step in steps) - execution["CreationTime"]).total_seconds())


def by_hand(family: Family) -> float:
    """Seconds that preprocess.py, the built-in XGBoost and evaluate.py take in the images' environments, in bubblewrap."""
    sklearn, xgboost = family.environment_of(SKLEARN), family.environment_of(XGBOOST)
    with tempfile.TemporaryDirectory(dir=family.data) as folder:
        ml = Path(folder)
        processing = ml / "processing"
        (processing / "input" / "code").mkdir(parents=True)
        shutil.copy(EXAMPLE / "data" / "bank-additional.csv", processing / "input")
        for script in ("preprocess.py", "evaluate.py"):
            shutil.copy(EXAMPLE / script, processing / "input" / "code")
        began = time.perf_counter()
        program(sklearn, ml, "/opt/ml/processing/input/code/preprocess.py", "--test-size", "0.2")
        prepare_training(ml)
        program(xgboost, ml, "/opt/penstock/containers/algorithm_xgboost")
        (processing / "model").mkdir()
        with tarfile.open(processing / "model" / "model.tar.gz", "w:gz") as archive:
            archive.add(ml / "model" / "xgboost-model", "xgboost-model")
        program(xgboost, ml, "/opt/ml/processing/input/code/evaluate.py")
        taken = time.perf_counter() - began
        assert "accuracy" in json.loads((processing / "evaluation" / "evaluation.json").read_text())["metrics"]
        return taken


def prepare_training(ml: Path) -> None:
    config = ml / "input" / "config"
    config.mkdir(parents=True)
    (ml / "model").mkdir()
    (ml / "output").mkdir()
    (config / "hyperparameters.json").write_text(json.dumps(HYPERPARAMETERS))
    channel = {"ContentType": "text/csv", "TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}
    (config / "inputdataconfig.json").write_text(json.dumps({"train": channel, "validation": channel}))
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))
    for name in ("train", "validation"):
        shutil.copytree(ml / "processing" / name, ml / "input" / "data" / name)


def program(environment: Path, ml: Path, *arguments: str) -> None:
    """Runs python of an environment in bubblewrap, with /opt/ml writable."""
    prefix = str((environment / "bin" / "python").resolve().parent.parent)
    command = [
        *BUBBLEWRAP, "--tmpfs", "/tmp", "--ro-bind", prefix, prefix, "--ro-bind", str(environment), "/opt/penstock/env",
        "--ro-bind", str(CONTAINERS), "/opt/penstock/containers", "--bind", str(ml), "/opt/ml",
        "/opt/penstock/env/bin/python", *arguments,
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": "/usr/bin"})
