"""The container contract of jobs: pure functions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from penstock.kernel.errors import ServiceError
from penstock.runs.base import RunState
from penstock.services.sagemaker import contract, nouns, results, telling
from penstock.services.sagemaker.instances import GIB, Machine, clamp, machine_of
from penstock.services.sagemaker.processing import rules as processing
from penstock.services.sagemaker.training import expressions, metrics
from penstock.services.sagemaker.training import rules as training
from penstock.services.sagemaker.training.state import move_on
from penstock.settings import Settings
from penstock.store.records import Document, Ref

CONTRACT = {
    "TrainingJobName": "job",
    "TrainingJobArn": "arn:aws:sagemaker:eu-west-1:1:training-job/job",
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "HyperParameters": {
        "sagemaker_program": '"train.py"',
        "sagemaker_submit_directory": '"s3://b/k/sourcedir.tar.gz"',
        "sagemaker_container_log_level": "20",
        "sagemaker_job_name": '"job"',
        "sagemaker_mpi_enabled": "true",
        "max-depth": "5",
        "name": '"Ada"',
        "plain": "text",
        "flag": "true",
        "nested": '{"b": 1, "a": [2]}',
    },
    "InputDataConfig": [
        {
            "ChannelName": "train",
            "ContentType": "text/csv",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/train"}},
        }
    ],
    "OutputDataConfig": {"S3OutputPath": "s3://b/out/"},
    "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2},
}
HOSTS = training.hosts_of(CONTRACT)


@pytest.mark.parametrize(
    ("name", "cpus", "gib", "gpus"),
    [
        ("ml.t3.medium", 2, 4, 0),
        ("ml.m5.large", 2, 8, 0),
        ("ml.m5.xlarge", 4, 16, 0),
        ("ml.m5.24xlarge", 96, 384, 0),
        ("ml.c5.9xlarge", 36, 72, 0),
        ("ml.c4.8xlarge", 36, 60, 0),
        ("ml.r5.2xlarge", 8, 64, 0),
        ("ml.c6gn.4xlarge", 16, 32, 0),
        ("ml.m6gd.16xlarge", 64, 256, 0),
        ("ml.p3.2xlarge", 8, 61, 1),
        ("ml.g4dn.12xlarge", 48, 192, 4),
        ("ml.g5.48xlarge", 192, 768, 8),
        ("ml.g5.xlarge", 4, 16, 1),
        ("ml.trn1.2xlarge", 8, 32, 0),
        ("ml.unheard-of.xlarge", 4, 16, 0),
    ],
)
def test_an_instance_type_is_what_it_is_at_aws(name: str, cpus: int, gib: int, gpus: int):
    machine = machine_of(name)
    assert (machine.cpus, machine.memory_bytes, machine.gpus) == (cpus, gib * GIB, gpus)


def test_every_instance_type_of_the_model_is_known():
    from penstock.wire import models

    shapes = models.service("sagemaker")
    members = shapes.operations["CreateTrainingJob"].input.members["ResourceConfig"].members["InstanceType"].enum
    assert all(machine_of(name).cpus >= 1 for name in members)


def test_an_instance_is_never_larger_than_the_machine(tmp_path: Path):
    assert clamp(machine_of("ml.m5.24xlarge"), Settings(data=tmp_path, cpus=2, memory_bytes=3 * GIB)) == Machine(
        2, 3 * GIB
    )
    assert clamp(machine_of("ml.m5.large"), Settings(data=tmp_path, cpus=64, memory_bytes=300 * GIB)) == Machine(
        2, 8 * GIB
    )
    assert clamp(machine_of("ml.m5.large"), Settings(data=tmp_path, cpus=0.5)).cpus == 1


def test_hosts_are_numbered_over_all_instance_groups():
    groups = [
        {"InstanceGroupName": "a", "InstanceType": "ml.m5.large", "InstanceCount": 1},
        {"InstanceGroupName": "b", "InstanceType": "ml.c5.large", "InstanceCount": 2},
    ]
    hosts = contract.hosts_of({"InstanceGroups": groups})
    assert [(host.name, host.group) for host in hosts] == [("algo-1", "a"), ("algo-2", "b"), ("algo-3", "b")]
    config = contract.resource_config(hosts, hosts[2])
    assert (config["current_host"], config["current_group_name"]) == ("algo-3", "b")
    assert config["instance_groups"][1]["hosts"] == ["algo-2", "algo-3"]


def test_resourceconfig_names_hosts_groups_and_interface():
    assert contract.resource_config(HOSTS, HOSTS[0]) == {
        "current_host": "algo-1",
        "current_instance_type": "ml.m5.xlarge",
        "current_group_name": "homogeneousCluster",
        "hosts": ["algo-1", "algo-2"],
        "instance_groups": [
            {
                "instance_group_name": "homogeneousCluster",
                "instance_type": "ml.m5.xlarge",
                "hosts": ["algo-1", "algo-2"],
            }
        ],
        "network_interface_name": "eth0",
    }


# --- script mode


def test_hyperparameters_are_json_where_they_can_be():
    script, own = training.split(training.decode(CONTRACT["HyperParameters"]))
    assert script == {"max-depth": 5, "name": "Ada", "plain": "text", "flag": True, "nested": {"b": 1, "a": [2]}}
    assert training.program_of(CONTRACT, own) == ("train.py", "s3://b/k/sourcedir.tar.gz")


def test_a_hyperparameter_of_thousands_of_brackets_is_text():
    deep = "[" * 2400
    assert training.decode({"deep": deep}) == {"deep": deep}


def test_a_hyperparameter_nested_deeper_than_could_be_written_is_text():
    deep, flat = "[" * 990 + "]" * 990, "[" * 50 + "]" * 50
    decoded = training.decode({"deep": deep, "flat": flat, "text": json.dumps(deep)})
    assert (decoded["deep"], decoded["text"]) == (deep, deep)
    assert training.as_text(decoded["flat"]) == flat
    assert training.arguments({"deep": decoded["deep"]}) == ["--deep", deep]


def test_arguments_are_the_hyperparameters_by_name():
    words = training.arguments({"b": 1, "flag": True, "alpha": None, "d": {"y": 2, "x": 1}})
    assert words == ["--alpha", "", "-b", "1", "-d", "x=1,y=2", "--flag", "True"]


def test_the_toolkits_environment_is_all_there():
    env = training.toolkit_environment(CONTRACT, HOSTS, HOSTS[1], 2)
    assert env["SM_MODEL_DIR"] == "/opt/ml/model"
    assert env["SM_CHANNEL_TRAIN"] == "/opt/ml/input/data/train"
    assert json.loads(env["SM_CHANNELS"]) == ["train"]
    assert (env["SM_HP_MAX-DEPTH"], env["SM_HP_NAME"], env["SM_HP_FLAG"]) == ("5", "Ada", "true")
    assert json.loads(env["SM_HPS"])["nested"] == {"a": [2], "b": 1}
    assert json.loads(env["SM_USER_ARGS"])[:2] == ["--flag", "True"]
    assert (env["SM_CURRENT_HOST"], env["SM_HOSTS"], env["CURRENT_HOST"]) == ("algo-2", '["algo-1","algo-2"]', "algo-2")
    assert (env["SM_NUM_CPUS"], env["SM_NUM_GPUS"], env["SM_LOG_LEVEL"]) == ("2", "0", "20")
    assert (env["SM_MODULE_NAME"], env["SM_USER_ENTRY_POINT"]) == ("train", "train.py")
    assert env["SM_MODULE_DIR"] == "s3://b/k/sourcedir.tar.gz"
    assert json.loads(env["SM_FRAMEWORK_PARAMS"]) == {"sagemaker_mpi_enabled": True}
    assert json.loads(env["SM_DISTRIBUTION_INSTANCE_GROUPS"]) == ["homogeneousCluster"]
    assert json.loads(env["SM_INPUT_DATA_CONFIG"])["train"]["ContentType"] == "text/csv"
    assert env["SM_OUTPUT_DATA_DIR"] == "/opt/ml/output/data"
    assert env["SM_FRAMEWORK_MODULE"] == ""
    whole = json.loads(env["SM_TRAINING_ENV"])
    assert whole["channel_input_dirs"] == {"train": "/opt/ml/input/data/train"}
    assert (whole["job_name"], whole["is_master"], whole["master_hostname"]) == ("job", False, "algo-1")


def test_inputdataconfig_tells_mode_and_distribution():
    body = {**CONTRACT, "InputDataConfig": [{**CONTRACT["InputDataConfig"][0], "InputMode": "FastFile"}]}
    assert training.input_data_config(body) == {
        "train": {
            "TrainingInputMode": "FastFile",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
            "ContentType": "text/csv",
        }
    }


def test_the_environment_holds_credentials_addresses_and_the_users_own_last():
    env = contract.run_environment(
        region="eu-west-1", key={"AccessKeyId": "A", "SecretAccessKey": "S", "SessionToken": "T"},
        hosts=["algo-1", "algo-2"],
        certificates=True, image={"PATH": "/env/bin", "LANG": "de"}, packages={"PIP_INDEX_URL": "https://index"},
        own={"TRAINING_JOB_NAME": "job"}, given={"LANG": "fr", "MINE": "1"}, cpus=3,
    )  # fmt: skip
    assert (env["AWS_REGION"], env["AWS_DEFAULT_REGION"]) == ("eu-west-1", "eu-west-1")
    assert (env["AWS_ACCESS_KEY_ID"], env["AWS_SESSION_TOKEN"]) == ("A", "T")
    assert env["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4600"
    assert env["HTTPS_PROXY"] == "http://127.0.0.1:4601"
    assert env["NO_PROXY"] == "127.0.0.1,localhost,algo-1,algo-2"
    assert env["PIP_CERT"] == env["AWS_CA_BUNDLE"] == "/etc/ssl/certs/penstock.pem"
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"  # unless the user says otherwise: this machine is not the job's alone
    assert (env["LANG"], env["MINE"], env["OMP_NUM_THREADS"], env["PIP_INDEX_URL"]) == ("fr", "1", "3", "https://index")


def test_an_isolated_job_has_neither_credentials_nor_proxies():
    env = contract.run_environment(
        region="r", key=None, hosts=["algo-1"], certificates=False, image={}, packages={}, own={}, given={}, cpus=1
    )
    assert not [name for name in env if "PROXY" in name.upper() or "KEY" in name or name == "AWS_ENDPOINT_URL"]


def test_nothing_of_the_servers_environment_reaches_a_job(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CANARY_SECRET", "x")
    env = contract.run_environment(
        region="r", key=None, hosts=[], certificates=False, image={}, packages={}, own={}, given={}, cpus=1
    )
    assert "CANARY_SECRET" not in env


# --- names


def test_a_runs_name_leads_to_its_job_and_is_never_used_again():
    document = Document(kind="sagemaker.training-job", account="123", region="us-east-1", name="a-job", created=1.5)
    name = nouns.run_name(document)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,200}", name)
    assert nouns.run_ref(name) == Ref("sagemaker.training-job", "123", "us-east-1", "a-job")
    document.created = 2.5
    assert nouns.run_name(document) != name


@pytest.mark.parametrize("name", ["", "x", "endpoint.1.2.3.4", "training-job.1.2.3"])
def test_a_run_of_something_else_leads_to_no_job(name: str):
    assert nouns.run_ref(name) is None


def test_artifacts_go_below_the_output_path_and_the_jobs_name():
    assert training.model_uri(CONTRACT) == "s3://b/out/job/output/model.tar.gz"
    plain = {**CONTRACT, "OutputDataConfig": {"S3OutputPath": "s3://b/out", "CompressionType": "NONE"}}
    assert training.model_uri(plain) == "s3://b/out/job/output/model/"


@pytest.mark.parametrize(
    ("uri", "plain"),
    [
        ("s3://b/k", "s3://b/k"),
        ("https://b.s3.amazonaws.com/k/x", "s3://b/k/x"),
        ("https://b.s3-us-west-2.amazonaws.com/k", "s3://b/k"),
        ("https://b.s3.eu-west-1.amazonaws.com/k", "s3://b/k"),
        ("https://s3.eu-west-1.amazonaws.com/b/k", "s3://b/k"),
    ],
)
def test_an_https_address_of_an_object_is_an_s3_uri(uri: str, plain: str):
    assert results.plain_uri(uri) == plain


# --- how it ends


@pytest.mark.parametrize(
    ("reason", "code", "status", "secondary"),
    [
        ("", 0, "Completed", "Completed"),
        ("exit", 0, "Completed", "Completed"),
        ("exit", 1, "Failed", "Failed"),
        ("timeout", 143, "Stopped", "MaxRuntimeExceeded"),
        ("stopped", 0, "Stopped", "Stopped"),
        ("memory", 137, "Failed", "Failed"),
        ("", None, "Failed", "Failed"),
    ],
)
def test_a_runs_end_is_a_jobs_status(reason: str, code: int | None, status: str, secondary: str):
    assert contract.ending_of(RunState("ended", exit_code=code, reason=reason)) == (status, secondary)


def test_a_scripts_failure_says_code_traceback_and_command():
    tail = [
        "loading",
        "Traceback (most recent call last):",
        '  File "train.py", line 3, in <module>',
        "ValueError: no data",
    ]
    reason = training.failure_reason(CONTRACT, RunState("ended", exit_code=1, reason="exit", tail=tail))
    assert reason.startswith(
        'AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage "Traceback (most recent'
    )
    assert 'ValueError: no data"\nCommand "python train.py --flag True' in reason
    assert reason.endswith(", exit code: 1")
    assert "loading" not in reason


def test_what_the_entry_point_printed_is_no_part_of_the_reason():
    tail = ["Invoking script with the following command:", "", "python train.py -a 1", "", "", "usage: train.py"]
    reason = training.failure_reason(CONTRACT, RunState("ended", exit_code=2, reason="exit", tail=tail))
    assert 'ErrorMessage "usage: train.py"' in reason


def test_what_the_program_left_in_its_failure_file_is_the_reason():
    state = RunState("ended", exit_code=3, reason="exit", message="the data is bad", tail=["x"])
    assert training.failure_reason(CONTRACT, state) == "AlgorithmError: the data is bad, exit code: 3"


@pytest.mark.parametrize("length", [10, 5000])
def test_a_reason_is_never_longer_than_1024_characters_and_keeps_its_end(length: int):
    state = RunState("ended", exit_code=1, reason="exit", tail=["x" * length, "the last line"])
    for reason in (training.failure_reason(CONTRACT, state), processing.failure_reason(state)):
        assert len(reason) <= 1024
        assert "the last line" in reason
    state.message = "y" * 2000
    assert len(training.failure_reason(CONTRACT, state)) == 1024


def test_a_processing_jobs_failure_says_what_aws_says_and_the_last_lines():
    state = RunState("ended", exit_code=2, reason="exit", tail=["one", "two"])
    assert processing.failure_reason(state) == (
        "AlgorithmError: See job logs for more information, exit code: 2\none\ntwo"
    )


def test_a_job_out_of_memory_is_told_to_take_a_larger_instance():
    assert "more memory" in processing.failure_reason(RunState("ended", exit_code=137, reason="memory"))


def test_a_program_that_cannot_be_started_is_the_users_and_a_sandbox_that_cannot_be_made_is_ours():
    missing = RunState(
        "ended", exit_code=125, reason="sandbox", message="bwrap: execvp train: No such file or directory"
    )
    assert processing.failure_reason(missing) == (
        "ClientError: CannotStartContainerError: execvp train: No such file or directory"
    )
    broken = RunState("ended", exit_code=125, reason="sandbox", message="no namespaces")
    assert processing.failure_reason(broken).startswith("InternalServerError: ")


# --- secondary statuses


def test_a_transition_ends_where_the_next_begins():
    body: dict = {}
    move_on(body, "Starting", 1.0)
    move_on(body, "Starting", 2.0, "Insufficient capacity, waiting")
    move_on(body, "Downloading", 3.0)
    move_on(body, "Completed", 4.0)
    assert body["SecondaryStatus"] == "Completed"
    shown = [(t["Status"], t["StartTime"], t.get("EndTime")) for t in body["SecondaryStatusTransitions"]]
    assert shown == [("Starting", 1.0, 3.0), ("Downloading", 3.0, 4.0), ("Completed", 4.0, 4.0)]
    assert body["SecondaryStatusTransitions"][0]["StatusMessage"] == "Insufficient capacity, waiting"


# --- metrics


def log_file(tmp_path: Path, *lines: str) -> str:
    file = tmp_path / "log"
    file.write_text("".join(f"{1000 * n} {line}\n" for n, line in enumerate(lines, 1)))
    return str(file)


@pytest.mark.parametrize("find", [metrics.scrape, expressions.scrape_apart])
def test_metrics_are_the_numbers_that_expressions_find(tmp_path: Path, find):
    file = log_file(
        tmp_path, "[0]#011validation-rmse:3.5", "other", "[1]#011validation-rmse:2.5e-1", "validation-rmse:nan"
    )
    found = find(
        [file], [{"Name": "validation:rmse", "Regex": r"validation-rmse:(\S+)"}, {"Name": "none", "Regex": "x=(.*)"}]
    )
    assert found == {"validation:rmse": [(1.0, 3.5, 0.0), (3.0, 0.25, 1.0)]}


def test_an_expression_that_is_none_or_never_ends_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(expressions, "TIME_S", 0.5)
    file = log_file(tmp_path, "a" * 60 + "!")
    assert expressions.scrape_apart([file], [{"Name": "bad", "Regex": "("}]) == {}
    assert expressions.scrape_apart([file], [{"Name": "slow", "Regex": "((a+)+)$"}]) == {}


@pytest.mark.parametrize(
    ("expression", "quick"),
    [
        (r"score: ([0-9.]+)", True),
        (r"validation:auc=(\S+);", True),
        (r"(?:loss|error)=(.*?);", True),
        ("(", True),  # finds nothing
        (r".*\[[0-9]+\].*#011validation-auc:([0-9.]+).*", False),
        (r"((a+)+)$", False),
        (r"(?:a|aa)+$", False),
        (r"(a*)\1$", False),
        ("a?" * 30 + "a" * 30, False),
        ("(?:a|a)" * 30 + "b", False),
        (r"(?=(a+)+$)", False),
        (r"(a{1,5}){1,5}$", False),
    ],
)
def test_expressions_that_may_take_long_are_searched_for_apart(tmp_path: Path, expression: str, quick: bool):
    file = log_file(tmp_path, "a" * 60)
    assert expressions.quick([file], [{"Name": "x", "Regex": expression}]) is quick


def test_one_long_line_is_searched_apart_by_what_short_ones_are_not(tmp_path: Path):
    definitions = [{"Name": "x", "Regex": r"score: (.*) of (.*);"}]
    assert expressions.quick([log_file(tmp_path, *["a" * 40] * 3)], definitions)
    assert not expressions.quick([log_file(tmp_path, "a" * 1000)], definitions)


# --- what is shown


def test_defaults_are_filled_in_as_aws_does():
    body = training.complete({**CONTRACT})
    assert body["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    assert body["InputDataConfig"][0]["CompressionType"] == "None"
    assert body["EnableNetworkIsolation"] is False
    given = {
        "ProcessingInputs": [{"InputName": "i", "S3Input": {"S3Uri": "s3://b/k", "LocalPath": "/opt/ml/processing/i"}}],
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "o", "S3Output": {"S3Uri": "s3://b/o"}}]},
    }  # fmt: skip
    body = processing.complete(given)
    assert body["ProcessingInputs"][0]["AppManaged"] is False
    assert body["ProcessingInputs"][0]["S3Input"]["S3DataDistributionType"] == "FullyReplicated"
    assert "S3CompressionType" not in body["ProcessingInputs"][0]["S3Input"]
    assert "AppManaged" not in given["ProcessingInputs"][0]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"AlgorithmSpecification": {}}, "either a training image or an algorithm name"),
        ({"AlgorithmSpecification": {"AlgorithmName": "mine"}}, "algorithm resources are not served"),
        ({"ResourceConfig": {}}, "ResourceConfig"),
        ({"InputDataConfig": CONTRACT["InputDataConfig"] * 2}, "must be unique"),
        ({"ServerlessJobConfig": {"JobType": "x"}}, "Serverless"),
    ],
)
def test_a_training_job_that_cannot_run_is_refused(given: dict, sentence: str):
    with pytest.raises(ServiceError, match=sentence):
        training.complete({**CONTRACT, **given})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ProcessingInputs": [{"InputName": "i"}, {"InputName": "i"}]}, "InputName must be unique"),
    ],
)
def test_a_processing_job_that_cannot_run_is_refused(given: dict, sentence: str):
    with pytest.raises(ServiceError, match=sentence):
        processing.complete(given)


def test_an_events_moments_are_milliseconds_in_text():
    document = Document(kind="sagemaker.training-job", account="1", region="r", name="n", body={
        "CreationTime": 1.5, "_run": "x", "TrainingTimeInSeconds": 3,
        "SecondaryStatusTransitions": [{"StartTime": 2.0}],
        "FinalMetricDataList": [{"Value": 0.5, "Timestamp": 4.0}],
    })  # fmt: skip
    assert telling.event_detail(document) == {
        "CreationTime": "1500", "SecondaryStatusTransitions": [{"StartTime": "2000"}], "TrainingTimeInSeconds": 3,
        "FinalMetricDataList": [{"Value": 0.5, "Timestamp": "4000"}], "Tags": {},
    }  # fmt: skip
