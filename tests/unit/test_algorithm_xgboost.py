"""The built-in algorithm runs as a program of its own, on the XGBoost of this environment."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.runs.images.metrics import XGBOOST_METRICS

CONTAINERS = Path(__file__).resolve().parents[2] / "src" / "penstock" / "containers"
pytest.importorskip("xgboost")
pytest.importorskip("pandas")


class Job:
    """An /opt/ml of its own."""

    def __init__(self, base: Path):
        self.base = base
        self.config = base / "input" / "config"
        self.config.mkdir(parents=True)
        self.channels: dict[str, Any] = {}
        self.log = ""

    def channel(self, name: str, text: str | bytes, content_type: str | None = "text/csv", file: str = "data") -> None:
        folder = self.base / "input" / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(text.encode() if isinstance(text, str) else text)
        self.channels[name] = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}
        if content_type:
            self.channels[name]["ContentType"] = content_type

    def run(self, host: str = "algo-1", hosts: list[str] | None = None, **parameters: str) -> int:
        (self.config / "hyperparameters.json").write_text(json.dumps(parameters))
        (self.config / "inputdataconfig.json").write_text(json.dumps(self.channels))
        (self.config / "resourceconfig.json").write_text(json.dumps({"current_host": host, "hosts": hosts or [host]}))
        done = subprocess.run(self.command(), env=self.env(), capture_output=True, text=True, timeout=100)
        self.log = done.stdout + done.stderr
        return done.returncode

    def command(self) -> list[str]:
        return [sys.executable, str(CONTAINERS / "algorithm_xgboost")]

    def env(self) -> dict[str, str]:
        return {
            "PATH": os.defpath,
            "SAGEMAKER_BASE_DIR": str(self.base),
            "OMP_NUM_THREADS": "1",
            "HOME": "/nonexistent",
        }

    @property
    def failure(self) -> str:
        return (self.base / "output" / "failure").read_text()

    @property
    def model(self) -> Path:
        return self.base / "model" / "xgboost-model"

    def rounds(self) -> int:
        import xgboost

        return int(xgboost.Booster(model_file=bytearray(self.model.read_bytes())).num_boosted_rounds())

    def scores(self, name: str) -> list[float]:
        """What the built-in metric's own expression finds in the log, line by line."""
        regex = next(m["Regex"] for m in XGBOOST_METRICS if m["Name"] == name)
        return [float(m[1]) for line in self.log.splitlines() if (m := re.search(regex, line))]


def make_rows(count: int, seed: int = 1, classes: int = 2) -> list[list[float]]:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        x = [round(rng.random(), 4) for _ in range(4)]
        rows.append([float(int((x[0] + x[1]) * classes / 2.0001)), *x])
    return rows


def to_csv(rows: list[list[float]]) -> str:
    return "".join(",".join(f"{v:g}" for v in row) + "\n" for row in rows)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_csv_channels_train_a_model_and_print_lines_the_metrics_find(job: Job) -> None:
    job.channel("train", to_csv(make_rows(200)))
    job.channel("validation", to_csv(make_rows(60, 2)))
    assert job.run(num_round="4", objective="binary:logistic", eval_metric="logloss,error") == 0
    assert len(job.scores("validation:error")) == 4
    losses = job.scores("train:logloss")
    assert losses == sorted(losses, reverse=True)
    assert job.rounds() == 4


def test_libsvm_is_the_default_content_type(job: Job) -> None:
    rows = make_rows(100)
    text = "".join(f"{row[0]:g} " + " ".join(f"{i}:{v}" for i, v in enumerate(row[1:])) + "\n" for row in rows)
    job.channel("train", text, content_type=None)
    assert job.run(num_round="2") == 0
    assert len(job.scores("train:rmse")) == 2


def test_parquet_is_read(job: Job) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(make_rows(100), columns=list("yabcd"))
    job.channel("train", frame.to_parquet(), "application/x-parquet")
    assert job.run(num_round="2") == 0, job.log


def test_files_in_folders_are_read_together(job: Job) -> None:
    job.channel("train", to_csv(make_rows(50)), file="one.csv")
    (job.base / "input/data/train/day=2").mkdir()
    (job.base / "input/data/train/day=2/two.csv").write_text(to_csv(make_rows(30, 2)))
    (job.base / "input/data/train/_SUCCESS").write_text("")
    assert job.run(num_round="1") == 0
    assert "80 rows and 4 columns" in job.log


def test_empty_fields_are_missing_values(job: Job) -> None:
    job.channel("train", "1,,2\n0,1,\n1,3,4\n0,,\n" * 10)
    assert job.run(num_round="1") == 0
    assert "40 rows and 2 columns" in job.log


def test_weights_are_the_second_column_on_request(job: Job) -> None:
    job.channel("train", to_csv([[row[0], 1.0, *row[1:]] for row in make_rows(50)]))
    assert job.run(num_round="1", csv_weights="1") == 0
    assert "50 rows and 4 columns" in job.log


def test_early_stopping_keeps_the_best_model(job: Job) -> None:
    job.channel("train", to_csv(make_rows(100)))
    rng = random.Random(5)
    job.channel("validation", to_csv([[float(rng.random() > 0.5), *row[1:]] for row in make_rows(50, 3)]))
    parameters = {"num_round": "200", "objective": "binary:logistic", "eval_metric": "logloss"}
    assert job.run(**parameters, early_stopping_rounds="3", eta="0.9") == 0
    assert len(job.scores("validation:logloss")) < 50


def test_the_container_s_own_metrics_are_computed(job: Job) -> None:
    pytest.importorskip("sklearn")
    job.channel("train", to_csv(make_rows(200)))
    job.channel("validation", to_csv(make_rows(60, 2)))
    assert job.run(num_round="8", objective="binary:logistic", eval_metric="error,accuracy,f1", max_depth="3") == 0
    # both round to five places
    assert job.scores("validation:accuracy")[-1] == pytest.approx(1 - job.scores("validation:error")[-1], abs=2e-5)


def test_multi_class_accuracy_agrees_with_xgboost(job: Job) -> None:
    pytest.importorskip("sklearn")
    job.channel("train", to_csv(make_rows(200, classes=3)))
    parameters = {"num_round": "3", "objective": "multi:softmax", "num_class": "3"}
    assert job.run(**parameters, eval_metric="merror,accuracy") == 0, job.log
    assert job.scores("train:accuracy")[-1] == pytest.approx(1 - job.scores("train:merror")[-1], abs=2e-5)


def test_the_tuner_s_metric_is_evaluated(job: Job) -> None:
    job.channel("train", to_csv(make_rows(100)))
    job.channel("validation", to_csv(make_rows(50, 2)))
    assert job.run(num_round="1", objective="binary:logistic", _tuning_objective_metric="validation:auc") == 0
    assert len(job.scores("validation:auc")) == 1


def test_training_goes_on_from_the_newest_checkpoint(job: Job) -> None:
    job.channel("train", to_csv(make_rows(100)))
    (job.base / "checkpoints").mkdir()
    assert job.run(num_round="3") == 0
    assert sorted(p.name for p in (job.base / "checkpoints").iterdir())[-1] == "xgboost-checkpoint.2"
    assert job.run(num_round="5") == 0
    assert "Resuming from iteration 3" in job.log
    assert [line for line in job.log.splitlines() if line.startswith("[3]#011train-rmse:")]
    assert job.rounds() == 5


def test_at_most_five_checkpoints_stay(job: Job) -> None:
    job.channel("train", to_csv(make_rows(50)))
    (job.base / "checkpoints").mkdir()
    assert job.run(num_round="8") == 0
    assert len(list((job.base / "checkpoints").iterdir())) == 5


def test_cross_validation_gives_a_model_a_fold_and_predictions(job: Job) -> None:
    pytest.importorskip("sklearn")
    job.channel("train", to_csv(make_rows(90)))
    assert job.run(num_round="2", objective="binary:logistic", _kfold="3") == 0, job.log
    assert sorted(p.name for p in (job.base / "model").iterdir()) == [f"xgboost-model-{i}" for i in range(3)]
    predictions = (job.base / "output/data/predictions.csv").read_text().splitlines()
    assert len(predictions) == 90
    assert len(predictions[0].split(",")) == 3


def test_two_instances_train_one_model(tmp_path: Path) -> None:
    hosts = ["127.0.0.1", "127.0.0.2"]
    jobs = [Job(tmp_path / host) for host in hosts]
    for number, (job, host) in enumerate(zip(jobs, hosts, strict=True)):
        job.channel("train", to_csv(make_rows(100, number)))
        (job.config / "hyperparameters.json").write_text(json.dumps({"num_round": "2", "eval_metric": "rmse"}))
        (job.config / "inputdataconfig.json").write_text(json.dumps(job.channels))
        (job.config / "resourceconfig.json").write_text(json.dumps({"current_host": host, "hosts": hosts}))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = [subprocess.Popen(j.command(), env=j.env(), **pipes) for j in jobs]  # type: ignore[call-overload]
    for job, process in zip(jobs, running, strict=True):
        job.log = process.communicate(timeout=100)[0]
    assert [process.returncode for process in running] == [0, 0], jobs[0].log + jobs[1].log
    assert [job.model.exists() for job in jobs].count(True) == 1
    assert len((jobs[0].log + jobs[1].log).split("train-rmse:")) == 3


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({}, "Missing required hyperparameter: num_round"),
        ({"num_round": "1", "trees": "5"}, "Extraneous hyperparameter found: trees"),
        ({"num_round": "many"}, "Hyperparameter num_round: could not parse value (caused by ValueError)"),
        ({"num_round": "0"}, "Hyperparameter num_round: 0 is not in [1, +inf)"),
        ({"num_round": "1", "subsample": "0"}, "Hyperparameter subsample: 0.0 is not in (0, 1]"),
        ({"num_round": "1", "objective": "multi:softmax"}, "Require input for parameter 'num_class'"),
        (
            {"num_round": "1", "eval_metric": "rmse,speed"},
            "Hyperparameter eval_metric: value ['rmse', 'speed'] not in range",
        ),
        ({"num_round": "1", "objective": "reg:linear", "eval_metric": "auc"}, "Metric 'auc' can only be applied"),
        ({"num_round": "1", "monotone_constraints": "(1,0)"}, "monotone_constraints can be used only when"),
        ({"num_round": "1", "updater": "grow_colmaker,grow_histmaker"}, "Only one tree grow plugin"),
        ({"num_round": "1", "single_precision_histogram": "true"}, "Extraneous hyperparameter found"),
    ],
)
def test_a_bad_hyperparameter_is_named(parameters: dict[str, str], sentence: str) -> None:
    code = (
        "import json,sys; from algorithm_xgboost.hyperparameters import validate_hyperparameters as v\n"
        "try: v(json.loads(sys.argv[1]), (3, 0))\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    env = {"PYTHONPATH": f"{CONTAINERS}:{CONTAINERS / 'shims'}"}
    words = [sys.executable, "-S", "-B", "-c", code, json.dumps(parameters)]
    said = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    assert said.startswith("UserError ")
    assert sentence in said


def test_a_failure_s_sentence_is_left_for_failure_reason(job: Job) -> None:
    job.channel("train", to_csv(make_rows(10)))
    assert job.run(num_round="0") == 1
    assert job.failure == "framework error: \nUserError: Hyperparameter num_round: 0 is not in [1, +inf)"
    assert "Traceback" in job.log


@pytest.mark.parametrize(
    ("text", "content_type", "sentence"),
    [
        ("", "text/csv", "No data in training channel path"),
        ("age,height\n1,2\n", "text/csv", "Failed to load csv data"),
        ("1,2,3\n", "text/libsvm", "is not in LIBSVM format"),
        ("1,2\n", "image/png", "image/png is not an accepted ContentType: csv, libsvm"),
        ("1,2\n", "text/csv; label_size=2", "label_size must be equal to 1"),
        ("x", "application/x-recordio-protobuf", "Failed to load recordio-protobuf data"),
    ],
)
def test_bad_data_is_explained(job: Job, text: str, content_type: str, sentence: str) -> None:
    job.channel("train", text, content_type)
    assert job.run(num_round="1") == 1
    assert sentence in job.failure


def test_a_missing_train_channel_is_named(job: Job) -> None:
    assert job.run(num_round="1") == 1
    assert "Missing required channel: train" in job.failure


def test_an_empty_validation_channel_is_an_error(job: Job) -> None:
    job.channel("train", to_csv(make_rows(10)))
    job.channel("validation", "")
    assert job.run(num_round="1") == 1
    assert "No data in validation channel path" in job.failure
