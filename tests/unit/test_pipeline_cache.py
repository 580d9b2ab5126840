"""Step caching: AWS's keys, the guard, keys by content, and what `penstock explain` tells of them."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from penstock.kernel.call import Call
from penstock.kernel.clock import Clock
from penstock.services.sagemaker.pipelines import cachekeys
from penstock.services.sagemaker.pipelines.explain import explain
from penstock.services.sagemaker.transform.state import JOB as TRANSFORM
from penstock.services.sagemaker.tuning.state import JOB as TUNING
from penstock.settings import CACHES
from penstock.store.records import Change, ObjectPut, ObjectRow, Query
from tests.unit.test_pipeline_engine import ROLE, TOKEN, Works, gate, pipeline, processing, works

__all__ = ["works"]
BUCKET = "penstock-tests"
ON = {"Enabled": True, "ExpireAfter": "PT1H"}
HASH = "0123456789abcdef" * 4


class Later(Clock):
    """The machine's clock, some seconds ahead."""

    ahead_s = 0.0

    def __init__(self, real: Clock):
        self.real = real

    def now(self) -> float:
        return self.real.now() + self.ahead_s


@pytest.fixture
def later(works: Works) -> Later:
    works.app.clock = Later(works.app.clock)
    return works.app.clock


def put(works: Works, key: str, data: bytes, etag: str | None = None) -> str:
    row = ObjectRow(
        bucket=BUCKET, key=key, inline=data, size_bytes=len(data), etag=etag or repr(hash(data)), modified=1.0
    )
    works.app.store.commit(Change(rows=[ObjectPut(row=row)]))
    return f"s3://{BUCKET}/{key}"


def cached(
    name: str, *needs: str, inputs: dict[str, Any] | None = None, cache: Any = ON, **arguments: Any
) -> dict[str, Any]:
    given = [
        {
            "InputName": each,
            "S3Input": {"S3Uri": uri, "LocalPath": f"/opt/ml/processing/{each}", "S3DataType": "S3Prefix"},
        }
        for each, uri in (inputs or {}).items()
    ]
    return processing(name, *needs, **({"ProcessingInputs": given} if given else {}), **arguments) | {
        "CacheConfig": cache
    }


def training(name: str, **arguments: Any) -> dict[str, Any]:
    return {"Name": name, "Type": "Training", "CacheConfig": ON, "Arguments": {
        "AlgorithmSpecification": {"TrainingImage": "python:3", "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/models"}, "RoleArn": ROLE,
        "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60}, **arguments,
    }}  # fmt: skip


def channel(uri: str, name: str = "train") -> dict[str, Any]:
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}


def run(works: Works, *steps: Any, name: str = "Flowers", **members: Any) -> str:
    """Upserts the pipeline, runs an execution to its end (its jobs end well), and gives its ARN."""
    text = json.dumps(pipeline(*steps, **members))
    if works.app.store.by_arn(f"arn:aws:sagemaker:us-east-1:123456789012:pipeline/{name}") is None:
        works.create(text, name)
    else:
        works("UpdatePipeline", PipelineName=name, PipelineDefinition=text)
    arn = works.start(name)
    finish(works, arn)
    return arn


def finish(works: Works, arn: str) -> None:
    works.look(arn)
    while running := [name for name, status in works.statuses(arn).items() if status == "Executing"]:
        works.end(arn, running[0])


def hits(works: Works, arn: str) -> dict[str, str | None]:
    """By step, the execution that its result is from; None where it ran."""
    return {
        name: step.get("CacheHitResult", {}).get("SourcePipelineExecutionArn")
        for name, step in works.steps(arn).items()
    }


def why(works: Works, arn: str, step: str) -> dict[str, Any]:
    return explain(works.app.store, works.document(arn), step)[0]


def use(works: Works, mode: str) -> None:
    works.app.settings = dataclasses.replace(works.app.settings, cache=mode)


# --- hits
def test_a_step_with_the_same_key_is_not_run_again_and_shows_whose_result_it_has(works: Works) -> None:
    step = cached("A", inputs={"in": put(works, "in/a.csv", b"1")})
    first = run(works, step)
    second = works.start()
    works.look(second)
    assert works.describe(second)["PipelineExecutionStatus"] == "Succeeded"
    shown = works.steps(second)["A"]
    assert shown["CacheHitResult"] == {"SourcePipelineExecutionArn": first}
    assert shown["Metadata"] == works.steps(first)["A"]["Metadata"]
    assert hits(works, first) == {"A": None}
    third = run(works, step)
    assert hits(works, third) == {"A": first}, "the source is the execution that ran the step"
    assert why(works, third, "A")["outcome"] == "hit"


def test_a_hit_is_in_the_event_of_the_step(works: Works) -> None:
    step = cached("A")
    first = run(works, step)
    second = run(works, step)
    told = [
        e.detail
        for e in works.events()
        if e.detail.get("stepName") == "A" and e.detail["pipelineExecutionArn"] == second
    ]
    assert [each["currentStepStatus"] for each in told] == ["Succeeded"]
    assert told[0]["cacheHitResult"] == {"sourcePipelineExecutionArn": first}


def test_what_comes_after_a_hit_uses_the_properties_and_files_of_its_source(works: Works) -> None:
    where = {"Std:Join": {"On": "/", "Values": [f"s3://{BUCKET}/out", {"Get": "Execution.PipelineExecutionId"}]}}
    output = {"OutputName": "o", "S3Output": {"S3Uri": where, "LocalPath": "/o", "S3UploadMode": "EndOfJob"}}
    evaluate = cached("E", ProcessingOutputConfig={"Outputs": [output]})
    evaluate["PropertyFiles"] = [{"PropertyFileName": "F", "OutputName": "o", "FilePath": "e.json"}]
    accuracy = {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.E.PropertyFiles.F"}, "Path": "auc"}}
    after = cached("After", inputs={"in": {"Get": "Steps.E.ProcessingOutputConfig.Outputs['o'].S3Output.S3Uri"}})
    text = json.dumps(pipeline(evaluate, after, gate("Gate", accuracy, 0.9)))
    works.create(text)
    first = works.start()
    works.put_file(f"out/{first.rpartition('/')[2]}/e.json", {"auc": 0.9})
    finish(works, first)
    second = works.start()
    works.look(second)
    assert hits(works, second) == {"E": first, "After": first, "Gate": None}
    assert works.steps(second)["Gate"]["Metadata"]["Condition"]["Outcome"] == "True"


def test_a_whole_cached_chain_ends_without_a_job_and_in_milliseconds_a_step(works: Works) -> None:
    chain = [cached(f"S{n}", *([f"S{n - 1}"] if n else [])) for n in range(40)]
    run(works, *chain)
    before = works.app.store.count(Query(kind="sagemaker.processing-job"))
    second = works.start()
    looks = 0
    while works.describe(second)["PipelineExecutionStatus"] == "Executing":
        works.world.step(works.document(second))
        looks += 1
    assert works.describe(second)["PipelineExecutionStatus"] == "Succeeded"
    assert None not in hits(works, second).values()
    assert looks < 5
    assert works.app.store.count(Query(kind="sagemaker.processing-job")) == before


# --- AWS's keys
ARGUMENTS: list[tuple[str, dict[str, Any], bool]] = [
    ("an image", {"AppSpecification": {"ImageUri": "python:3.12"}}, False),
    ("an argument", {"AppSpecification": {"ImageUri": "python:3", "ContainerArguments": ["-v"]}}, False),
    ("an environment", {"Environment": {"A": "1"}}, False),
    ("an empty environment", {"Environment": {}}, True),
    ("an instance", {"ProcessingResources": {
        "ClusterConfig": {"InstanceType": "ml.c5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 9}}}, True),
    ("a time limit", {"StoppingCondition": {"MaxRuntimeInSeconds": 7}}, True),
    ("a network", {"NetworkConfig": {"EnableNetworkIsolation": True}}, True),
    ("an output", {"ProcessingOutputConfig": {"Outputs": [{"OutputName": "o", "S3Output": {
        "S3Uri": f"s3://{BUCKET}/elsewhere", "LocalPath": "/o", "S3UploadMode": "EndOfJob"}}]}}, True),
]  # fmt: skip


@pytest.mark.parametrize(("what", "arguments", "still"), ARGUMENTS, ids=[each[0] for each in ARGUMENTS])
def test_a_processing_step_runs_again_for_the_attributes_that_count_at_aws(
    works: Works, what: str, arguments: dict[str, Any], still: bool
) -> None:
    first = run(works, cached("A"))
    second = run(works, cached("A", **arguments))
    assert (hits(works, second)["A"] == first) is still


@pytest.mark.parametrize(("arguments", "still"), [
    ({"HyperParameters": {"eta": "0.2"}}, False),
    ({"CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/checkpoints"}}, False),
    ({"DebugHookConfig": {"S3OutputPath": f"s3://{BUCKET}/debug"}}, False),
    ({"InputDataConfig": [channel(f"s3://{BUCKET}/in")]}, False),
    ({"ProfilerConfig": {"DisableProfiler": True}}, True),
    ({"EnableManagedSpotTraining": False}, True),
    ({"OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/others"}}, True),
])  # fmt: skip
def test_a_training_step_runs_again_for_the_attributes_that_count_at_aws(
    works: Works, arguments: dict[str, Any], still: bool
) -> None:
    put(works, "in/a.csv", b"1")
    first = run(works, training("T"))
    assert (hits(works, run(works, training("T", **arguments)))["T"] == first) is still


def test_the_key_of_a_tuning_step_leaves_out_resources_of_its_one_definition_only() -> None:
    arguments = {
        "HyperParameterTuningJobConfig": {"Strategy": "Random"},
        "TrainingJobDefinition": {"StaticHyperParameters": {"a": "1"}, "ResourceConfig": {"InstanceCount": 2}},
        "TrainingJobDefinitions": [{"DefinitionName": "x", "ResourceConfig": {"InstanceCount": 3}}],
        "Tags": [{"Key": "k", "Value": "v"}],
    }
    picked = cachekeys.pick("Tuning", arguments)
    assert picked["TrainingJobDefinition"] == {"StaticHyperParameters": {"a": "1"}}
    assert picked["TrainingJobDefinitions"] == arguments["TrainingJobDefinitions"]
    assert "Tags" not in picked


def test_a_tuning_step_is_cached(works: Works) -> None:
    for verb, made in (("Create", works._create(TUNING)), ("Describe", works._describe(TUNING))):
        works.app._functions["sagemaker", f"{verb}HyperParameterTuningJob"] = made

    def tuning(count: int, instances: int) -> dict[str, Any]:
        limits = {"MaxNumberOfTrainingJobs": count, "MaxParallelTrainingJobs": 1}
        whole = training("T", HyperParameters={})["Arguments"]
        definition = {n: v for n, v in whole.items() if n != "HyperParameters"} | {"StaticHyperParameters": {"a": "1"}}
        definition["ResourceConfig"] = {"InstanceCount": instances, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
        config = {"Strategy": "Random", "ResourceLimits": limits}
        arguments = {"HyperParameterTuningJobConfig": config, "TrainingJobDefinition": definition}
        return {"Name": "Tune", "Type": "Tuning", "CacheConfig": ON, "Arguments": arguments}

    works.create(pipeline(tuning(3, 1)))
    first = works.start()
    works.look(first)
    job = works.job(first, "Tune")
    job.status = job.body["HyperParameterTuningJobStatus"] = "Completed"
    works.app.store.commit(Change(puts=[job]))
    works.look(first)
    for step, status, source in ((tuning(3, 2), "Succeeded", first), (tuning(4, 1), "Executing", None)):
        works("UpdatePipeline", PipelineName="Flowers", PipelineDefinition=json.dumps(pipeline(step)))
        arn = works.start()
        works.look(arn)
        assert (works.statuses(arn), hits(works, arn)) == ({"Tune": status}, {"Tune": source})


def test_names_and_pipelines_keep_results_apart(works: Works) -> None:
    run(works, cached("A"))
    assert hits(works, run(works, cached("B"))) == {"B": None}
    assert hits(works, run(works, cached("A"), name="Other")) == {"A": None}


def test_a_pipeline_made_anew_has_no_results(works: Works) -> None:
    run(works, cached("A"))
    works("DeletePipeline", PipelineName="Flowers", ClientRequestToken=TOKEN)
    assert works.app.store.count(Query(kind="sagemaker.pipeline-cache")) == 0
    works.create(pipeline(cached("A")), ClientRequestToken="another" * 6)
    arn = works.start()
    works.look(arn)
    assert works.statuses(arn) == {"A": "Executing"}


def test_only_successes_are_found_and_only_with_caching_on(works: Works) -> None:
    works.create(pipeline(cached("A")))
    failed = works.start()
    works.look(failed)
    works.end(failed, "A", "Failed", FailureReason="x")
    assert hits(works, run(works, cached("A", cache={"Enabled": False}))) == {"A": None}
    third = run(works, cached("A"))
    assert hits(works, third) == {"A": None}
    assert why(works, third, "A")["outcome"] == "first"
    assert hits(works, run(works, cached("A", cache={"Enabled": False, "ExpireAfter": "PT1H"}))) == {"A": None}


def test_two_that_run_at_once_both_run_and_the_later_success_is_found(works: Works) -> None:
    works.create(pipeline(cached("A")))
    first, second = works.start(), works.start()
    works.look(first)
    works.look(second)
    assert works.statuses(second) == {"A": "Executing"}
    works.end(second, "A")
    works.end(first, "A")
    assert hits(works, run(works, cached("A"))) == {"A": first}


# --- age
@pytest.mark.parametrize(("text", "seconds"), [
    ("PT1H", 3600), ("P30D", 2_592_000), ("30d", 2_592_000), ("5y", 5 * 365 * 86400), ("T16m", 960), ("30dT5h", 2_610_000),
    ("P1M", 2_592_000), ("PT1M", 60), ("P2W", 1_209_600), ("PT90S", 90), ("P1DT12H", 129_600), (None, None),
])  # fmt: skip
def test_durations_are_read_as_aws_writes_them(text: str | None, seconds: float | None) -> None:
    assert cachekeys.seconds_of(text) == seconds


def test_a_result_that_is_too_old_is_not_found_and_a_new_one_is(works: Works, later: Later) -> None:
    first = run(works, cached("A"))
    later.ahead_s = 3590
    assert hits(works, run(works, cached("A"))) == {"A": first}
    later.ahead_s = 3700
    second = run(works, cached("A"))
    assert hits(works, second) == {"A": None}
    assert why(works, second, "A")["why"] == f"the result of {first} is older than PT1H"
    assert hits(works, run(works, cached("A"))) == {"A": second}


# --- the guard
def test_a_hit_is_refused_when_the_bytes_at_an_input_changed_though_aws_would_have_it(works: Works) -> None:
    step = cached("A", inputs={"in": put(works, "in/a.csv", b"1")})
    first = run(works, step)
    put(works, "in/a.csv", b"2")
    second = run(works, step)
    told = why(works, second, "A")
    assert (hits(works, second)["A"], told["outcome"]) == (None, "refused")
    assert told["differences"][0]["attribute"] == "ProcessingInputs['in'].S3Input.S3Uri"
    assert "by AWS's key this is a hit" in told["why"]
    use(works, "aws")
    put(works, "in/a.csv", b"3")
    assert hits(works, run(works, step)) == {"A": second}
    assert first != second


def test_an_object_more_or_less_below_an_input_is_a_change(works: Works) -> None:
    step = cached("A", inputs={"in": put(works, "in/a.csv", b"1").rpartition("/")[0]})
    run(works, step)
    put(works, "in/b.csv", b"2")
    assert hits(works, run(works, step)) == {"A": None}


def test_code_that_the_sdk_uploads_again_under_its_hash_is_the_same_code(works: Works) -> None:
    uri = put(works, f"Flowers/code/{HASH}/sourcedir.tar.gz", b"packed at noon")
    first = run(works, cached("A", inputs={"code": uri}))
    put(works, f"Flowers/code/{HASH}/sourcedir.tar.gz", b"packed at one")
    assert hits(works, run(works, cached("A", inputs={"code": uri}))) == {"A": first}


@pytest.mark.parametrize(("path", "code"), [
    ("ProcessingInputs['code'].S3Input.S3Uri", True),
    ("InputDataConfig['sourcedir'].DataSource.S3DataSource.S3Uri", True),
    ("TrainingJobDefinition.StaticHyperParameters.sagemaker_submit_directory", True),
    ("ProcessingInputs['in'].S3Input.S3Uri", False),
    ("InputDataConfig['train'].DataSource.S3DataSource.S3Uri", False),
    ("ProcessingInputs['code'].DatasetDefinition.AthenaDatasetDefinition.S3Uri", False),
])  # fmt: skip
def test_only_code_is_taken_by_a_hash_in_its_path(path: str, code: bool) -> None:
    uri = f"s3://{BUCKET}/{HASH}/x"
    found = cachekeys.Source(path, uri).named_by_hash
    assert found is code


def test_data_below_a_hash_is_looked_at(works: Works) -> None:
    step = cached("A", inputs={"in": put(works, f"data/{HASH}/a.csv", b"1")})
    run(works, step)
    put(works, f"data/{HASH}/a.csv", b"2")
    assert hits(works, run(works, step)) == {"A": None}


def test_a_result_whose_inputs_changed_while_it_ran_is_not_kept(works: Works) -> None:
    step = cached("A", inputs={"in": put(works, "in/a.csv", b"1")})
    works.create(pipeline(step))
    first = works.start()
    works.look(first)
    put(works, "in/a.csv", b"2")
    finish(works, first)
    assert "changed while the step ran" in why(works, first, "A")["unkept"]
    put(works, "in/a.csv", b"1")
    assert hits(works, run(works, step)) == {"A": None}


def test_a_result_whose_job_was_deleted_is_not_used(works: Works) -> None:
    first = run(works, cached("A"))
    works.app.store.commit(Change(deletes=[works.job(first, "A")]))
    second = run(works, cached("A"))
    assert (hits(works, second)["A"], why(works, second, "A")["outcome"]) == (None, "gone")


# --- by content
def packed(at: int, text: str = "print(1)") -> bytes:
    """An archive of one file, as the SDK packs it: with the file's time, and the moment of packing."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        info = tarfile.TarInfo("train.py")
        info.size, info.mtime = len(text), at
        tar.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(plain.getvalue(), mtime=at + 5)


def claims(size: int, sparse: bool = False, count: int = 1) -> bytes:
    """An archive whose members claim so many bytes, and hold none."""
    plain = io.BytesIO()
    for number in range(count):
        info = tarfile.TarInfo(f"m{number}")
        info.size = size
        if sparse:  # an old GNU header: no pieces, and the size when the holes are filled
            info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
            head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
            head[483:495] = b"%011o\0" % size
            head[148:156] = b"        "
            head[148:156] = b"%06o\0 " % sum(head)
            plain.write(head)
        else:
            plain.write(info.tobuf(tarfile.GNU_FORMAT))
    return gzip.compress(plain.getvalue() + bytes(1024), mtime=0)


@pytest.mark.parametrize("archive", [
    claims(64 << 20, sparse=True),
    claims(1, sparse=True),
    claims(9 << 20),
    claims(0, count=cachekeys.MEMBERS + 1),
    packed(1) + packed(2),
    packed(1)[:-9],
    gzip.compress(bytes(9 << 20)),
], ids=["large and sparse", "sparse", "large", "many", "two", "cut off", "bomb"])  # fmt: skip
def test_an_archive_that_is_not_as_the_sdk_packs_it_counts_by_its_own_bytes(archive: bytes) -> None:
    assert len(archive) < cachekeys.ARCHIVE_BYTES
    assert cachekeys.archive_digest(archive) is None


def test_an_archive_is_read_where_the_engine_may_take_its_time(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    use(works, "content")
    asked = []
    monkeypatch.setattr(Call, "take_time", lambda call: asked.append(call))
    works.create(pipeline(cached("A", inputs={"code": put(works, "c/sourcedir.tar.gz", packed(1))})))
    works.look(works.start())
    assert asked


def stamped(at: int) -> str:
    return f"2026-11-21-09-30-{at:02}-123"


def training_2940(works: Works, at: int) -> dict[str, Any]:
    return training("S", HyperParameters={"sagemaker_job_name": f'"sklearn-{stamped(at)}"', "eta": "1"})


def training_3555(works: Works, at: int) -> dict[str, Any]:
    uri = put(works, f"sklearn-{stamped(at)}/source/sourcedir.tar.gz", packed(at))
    return training(
        "S", HyperParameters={"sagemaker_submit_directory": json.dumps(uri), "sagemaker_program": '"train.py"'}
    )


def processing_2736(works: Works, at: int) -> dict[str, Any]:
    return cached("S", inputs={"code": put(works, f"script-{stamped(at)}/input/code/x.py", b"print(1)")})


def processing_4246(works: Works, at: int) -> dict[str, Any]:
    """The hash that the SDK puts into the path is also one of the folder that the code lay in."""
    where = f"{at:02x}" * 32
    return cached("S", inputs={"code": put(works, f"Flowers/code/{where}/sourcedir.tar.gz", packed(at))})


def environment_stamped(works: Works, at: int) -> dict[str, Any]:
    return cached("S", Environment={"JOB": f"monitor-{stamped(at)}"})


TRAPS: list[Callable[[Works, int], dict[str, Any]]] = [
    processing_2736, training_2940, training_3555, processing_4246, environment_stamped,
]  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_what_the_sdk_makes_anew_at_each_upsert_is_a_miss_at_aws_and_a_hit_by_content(
    works: Works, trap: Callable[[Works, int], dict[str, Any]]
) -> None:
    """Cases: aws/sagemaker-python-sdk issues 2736, 2940, 3555 and 4246."""
    run(works, trap(works, 1))
    second = run(works, trap(works, 2))
    assert hits(works, second) == {"S": None}
    assert why(works, second, "S")["outcome"] == "changed"
    use(works, "content")
    third = run(works, trap(works, 3))
    assert hits(works, third) == {"S": None}, "keys by content and keys of AWS never meet"
    assert hits(works, run(works, trap(works, 4))) == {"S": third}


def test_by_content_other_bytes_are_another_key_wherever_they_lie(works: Works) -> None:
    use(works, "content")
    first = run(works, cached("A", inputs={"in": put(works, "one/a.csv", b"1")}))
    moved = run(works, cached("A", inputs={"in": put(works, "two/a.csv", b"1")}))
    changed = run(works, cached("A", inputs={"in": put(works, "two/a.csv", b"2")}))
    assert hits(works, moved) == {"A": first}
    assert hits(works, changed) == {"A": None}
    told = why(works, changed, "A")
    assert [each["attribute"] for each in told["differences"]] == ["ProcessingInputs['in'].S3Input.S3Uri"]


def test_by_content_another_script_in_an_archive_is_another_key(works: Works) -> None:
    use(works, "content")
    run(works, cached("A", inputs={"code": put(works, "c/sourcedir.tar.gz", packed(1))}))
    assert hits(
        works, run(works, cached("A", inputs={"code": put(works, "c/sourcedir.tar.gz", packed(1, "print(2)"))}))
    ) == {"A": None}


def test_by_content_a_step_is_found_again_after_one_that_ran_again_with_the_same_result(works: Works) -> None:
    use(works, "content")
    where = {"Std:Join": {"On": "/", "Values": [f"s3://{BUCKET}/out", {"Get": "Execution.PipelineExecutionId"}]}}
    output = {"OutputName": "o", "S3Output": {"S3Uri": where, "LocalPath": "/o", "S3UploadMode": "EndOfJob"}}

    def both(verbose: str) -> list[Any]:
        first = cached("A", ProcessingOutputConfig={"Outputs": [output]}, Environment={"VERBOSE": verbose})
        uri = {"Get": "Steps.A.ProcessingOutputConfig.Outputs['o'].S3Output.S3Uri"}
        return [first, cached("B", inputs={"in": uri})]

    def go(verbose: str) -> str:
        text = json.dumps(pipeline(*both(verbose)))
        if verbose == "0":
            works.create(text)
        else:
            works("UpdatePipeline", PipelineName="Flowers", PipelineDefinition=text)
        arn = works.start()
        works.look(arn)
        put(works, f"out/{arn.rpartition('/')[2]}/a.csv", b"the same", etag="same")
        finish(works, arn)
        return arn

    first, second = go("0"), go("1")
    assert hits(works, second) == {"A": None, "B": first}


def test_a_transform_is_keyed_by_content_by_what_its_model_is_made_of_not_by_its_name(works: Works) -> None:
    """The case of aws/sagemaker-python-sdk issue 3392: each execution makes a model of a new name."""
    for verb, made in (("Create", works._create(TRANSFORM)), ("Describe", works._describe(TRANSFORM))):
        works.app._functions["sagemaker", f"{verb}TransformJob"] = made
    url, data = put(works, "m/model.tar.gz", b"weights"), put(works, "in/a.csv", b"1")
    container = {"Image": "python:3", "ModelDataUrl": url}
    model = {"Name": "Make", "Type": "Model", "Arguments": {"ExecutionRoleArn": ROLE, "PrimaryContainer": container}}
    apply = {"Name": "Apply", "Type": "Transform", "CacheConfig": ON, "Arguments": {
        "ModelName": {"Get": "Steps.Make.ModelName"},
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": data}}},
        "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/applied"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }}  # fmt: skip
    works.create(pipeline(model, apply))

    def go() -> str:
        arn = works.start()
        works.look(arn)
        if works.statuses(arn)["Apply"] == "Executing":
            job = works.job(arn, "Apply")
            job.status = job.body["TransformJobStatus"] = "Completed"
            works.app.store.commit(Change(puts=[job]))
            works.look(arn)
        assert works.describe(arn)["PipelineExecutionStatus"] == "Succeeded"
        return arn

    go()
    second = go()
    assert hits(works, second)["Apply"] is None
    assert [each["attribute"] for each in why(works, second, "Apply")["differences"]] == ["ModelName"]
    use(works, "content")
    first = go()
    assert hits(works, go()) == {"Make": None, "Apply": first}
    put(works, "m/model.tar.gz", b"other weights")
    assert hits(works, go())["Apply"] is None


def test_a_tag_of_the_pipeline_chooses_its_cache_and_a_wrong_one_is_refused(works: Works) -> None:
    works.create(pipeline(cached("A")), Tags=[{"Key": "penstock:cache", "Value": "content"}])
    arn = works.start()
    finish(works, arn)
    assert why(works, arn, "A")["mode"] == "content"
    arn_of = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/Flowers"
    works("AddTags", ResourceArn=arn_of, Tags=[{"Key": "penstock:cache", "Value": "always"}])
    with pytest.raises(Exception, match="is 'always'; it must be aws, aws\\+guard, content"):
        works.start()


def test_the_settings_know_the_ways_of_caching() -> None:
    assert CACHES == cachekeys.MODES


# --- explained
def test_a_miss_tells_each_attribute_that_changed_with_both_values(works: Works) -> None:
    first = run(works, training("T", HyperParameters={"eta": "0.1", "rounds": "5"}))
    second = run(works, training("T", HyperParameters={"eta": "0.2", "depth": "3"}))
    told = why(works, second, "T")
    assert told["why"] == f"HyperParameters.eta, HyperParameters.rounds, HyperParameters.depth changed since {first}"
    assert told["differences"] == [
        {"attribute": "HyperParameters.eta", "before": "0.1", "now": "0.2"},
        {"attribute": "HyperParameters.rounds", "before": "5", "now": None},
        {"attribute": "HyperParameters.depth", "before": None, "now": "3"},
    ]


def test_the_nearest_earlier_result_is_compared(works: Works) -> None:
    first = run(works, training("T", HyperParameters={"eta": "1"}))
    run(works, training("T", HyperParameters={"eta": "7", "depth": "7"}))
    told = why(works, run(works, training("T", HyperParameters={"eta": "2"})), "T")
    assert (told["source"], [each["attribute"] for each in told["differences"]]) == (first, ["HyperParameters.eta"])


def test_every_step_has_a_word_and_a_sentence(works: Works) -> None:
    works.create(pipeline(cached("A"), processing("B"), gate("G", 1, 2, [cached("Never")])))
    arn = works.start()
    works.look(arn)
    told = {each["step"]: each["outcome"] for each in explain(works.app.store, works.document(arn))}
    assert told == {"A": "first", "B": "off", "G": "none", "Never": "waiting"}
    with pytest.raises(LookupError):
        explain(works.app.store, works.document(arn), "Nobody")


def test_a_step_that_did_not_run_is_told_so(works: Works) -> None:
    arn = run(works, cached("A"), gate("G", 1, 2, [processing("Never")]))
    told = {each["step"]: each["outcome"] for each in explain(works.app.store, works.document(arn))}
    assert told == {"A": "first", "G": "none", "Never": "did not run"}
