"""A million rows x 8 from CSV to CSV by a scikit-learn model, beside pandas alone on one core with the same model and environment."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.world import Family, Row

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
BUCKET = "bench-transform"
ROWS, COLUMNS, TIMES = 1_000_000, 8, 3
MODEL = """
import numpy as np
from sklearn.linear_model import LinearRegression


def model_fn(model_dir):
    rows = np.random.default_rng(0).normal(size=(1000, 8))
    return LinearRegression().fit(rows, rows.sum(axis=1))
"""
PANDAS = """
import sys
import pandas as pd
from inference import model_fn

frame = pd.read_csv(sys.argv[1], header=None)
pd.DataFrame(model_fn("").predict(frame.values)).to_csv(sys.argv[2], header=False, index=False)
"""


def measure(family: Family) -> list[Row]:
    python = family.environment_of(IMAGE) / "bin" / "python"
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        rows = np.random.default_rng(1).normal(size=(ROWS, COLUMNS))
        (folder / "rows.csv").write_text("\n".join(",".join(map(repr, row)) for row in rows.tolist()) + "\n")
        (folder / "inference.py").write_text(MODEL)
        (folder / "alone.py").write_text(PANDAS)
        jobs = Jobs(family)
        jobs.prepare(folder / "rows.csv")
        rounds = [(pandas_alone(python, folder), jobs.run("one/", 1), jobs.run("two/", 2)) for _ in range(TIMES)]
        alone, one, wide = (min(column) for column in zip(*rounds, strict=True))
    return [
        Row("a million rows x 8, CSV to CSV, one instance", "s", one, alone, "pandas alone on one core", "<= 1.3 x"),
        Row("two such files on two instances", "s", wide, one, "one of them on one instance", "<= 1.3 x"),
    ]


def pandas_alone(python: Path, folder: Path) -> float:
    """Seconds of a process that reads, predicts and writes with pandas, on one core."""
    command = [
        "taskset",
        "-c",
        "0",
        str(python),
        str(folder / "alone.py"),
        str(folder / "rows.csv"),
        str(folder / "out.csv"),
    ]
    began = time.perf_counter()
    subprocess.run(
        command, check=True, env={"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}
    )
    return time.perf_counter() - began


class Jobs:
    """A model, its data, and transform jobs of them."""

    def __init__(self, family: Family):
        self.sagemaker, self.s3, self.role = family.client("sagemaker"), family.client("s3"), family.keys["role_arn"]
        self.count = 0

    def prepare(self, rows: Path) -> None:
        self.s3.create_bucket(Bucket=BUCKET)
        for key in ("one/a.csv", "two/a.csv", "two/b.csv"):
            self.s3.upload_file(str(rows), BUCKET, key)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            info = tarfile.TarInfo("code/inference.py")
            info.size = len(MODEL)
            tar.addfile(info, io.BytesIO(MODEL.encode()))
        self.s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=packed.getvalue())
        env = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}
        container = {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz", "Environment": env}
        self.sagemaker.create_model(ModelName="bench", ExecutionRoleArn=self.role, PrimaryContainer=container)

    def run(self, prefix: str, instances: int) -> float:
        """Seconds from the job's creation to its end."""
        self.count += 1
        name = f"bench-{self.count}"
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{prefix}"}}
        self.sagemaker.create_transform_job(
            TransformJobName=name, ModelName="bench",
            TransformInput={"DataSource": source, "ContentType": "text/csv", "SplitType": "Line"},
            TransformOutput={"S3OutputPath": f"s3://{BUCKET}/out/{name}", "Accept": "text/csv", "AssembleWith": "Line"},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": instances},
        )  # fmt: skip
        job: dict[str, Any] = {"TransformJobStatus": "InProgress"}
        while job["TransformJobStatus"] == "InProgress":
            time.sleep(0.05)
            job = self.sagemaker.describe_transform_job(TransformJobName=name)
        assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
        return float((job["TransformEndTime"] - job["CreationTime"]).total_seconds())
