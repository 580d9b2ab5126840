"""The engine's part of training jobs: to what a program finds, and from its end to artifacts and metrics."""

from __future__ import annotations

import math
from typing import Any

from penstock.kernel.call import Call
from penstock.runs.base import Environment, ImageError, Input, Instance, Output, RunState
from penstock.services.sagemaker import contract, jobs, nouns, programs, results
from penstock.services.sagemaker.instances import clamp, machine_of
from penstock.services.sagemaker.training import expressions, metrics, rules, spot
from penstock.services.sagemaker.training.state import GROUP, JOB, WAITING, move_on
from penstock.store.records import Document, Points

ENTRY = f"{contract.CONTAINERS}/training/entry.py"


def plan(call: Call, document: Document, image: Environment) -> programs.Program:
    """What a training job wants run.

    Raises: ServiceError for data that is not there, and for what cannot be run.
    """
    body = document.body
    hosts = rules.hosts_of(body)
    cpus = clamp(machine_of(hosts[0].instance_type), call.app.settings).cpus
    program = programs.Program(
        command=_command(body, image),
        env=rules.job_environment(body, document.region),
        given=dict(body.get("Environment", {})),
        folders=[
            rules.CODE,
            f"{rules.OPT}/model",
            rules.OUTPUT_DATA,
            f"{rules.OPT}/output/metrics/sagemaker",
            rules.DATA,
        ],
        instances=[Instance(host.name, env=rules.toolkit_environment(body, hosts, host, cpus)) for host in hosts],
        message_file=rules.FAILURE,
        volume_gib=int(body["ResourceConfig"].get("VolumeSizeInGB", 30)),
        runtime_s=max(1, int(min(rules.runtime_left_s(body), rules.wait_until(body) - call.now))),
        network=not body.get("EnableNetworkIsolation"),
    )
    if not image.container:  # the toolkit that is in a real image does it
        program.env |= {"PYTHONPATH": ":".join(filter(None, (rules.CODE, image.env.get("PYTHONPATH"))))}
    _configure(body, program, hosts)
    for channel in body.get("InputDataConfig", []):
        _lay_channel(call, body, program, hosts, channel)
    _lay_code(call, body, program, hosts)
    _lay_outputs(call, body, program, hosts)
    return program


def _command(body: dict[str, Any], image: Environment) -> list[str]:
    algorithm = body["AlgorithmSpecification"]
    given = [*algorithm.get("ContainerEntrypoint", []), *algorithm.get("ContainerArguments", [])]
    if algorithm.get("ContainerEntrypoint"):
        return given
    if image.entrypoint or image.container:
        return [*image.entrypoint, *(given or ["train"])]
    script, own = rules.split(rules.decode(body.get("HyperParameters", {})))
    program, source = rules.program_of(body, own)
    if program:
        return [image.python, ENTRY, source, program, *rules.arguments(script)]
    if image.framework == "xgboost":
        return [image.python, f"{contract.CONTAINERS}/algorithm_xgboost"]
    return given or ["train"]


def _configure(body: dict[str, Any], program: programs.Program, hosts: list[contract.Host]) -> None:
    """The files in /opt/ml/input/config."""
    program.inputs += [
        contract.json_input(f"{rules.CONFIG}/hyperparameters.json", body.get("HyperParameters", {})),
        contract.json_input(f"{rules.CONFIG}/inputdataconfig.json", rules.input_data_config(body)),
    ]
    if checkpoints := body.get("CheckpointConfig"):
        config = {"LocalPath": checkpoints.get("LocalPath", rules.CHECKPOINTS), "S3Uri": checkpoints["S3Uri"]}
        program.inputs.append(contract.json_input(f"{rules.CONFIG}/checkpointconfig.json", config))
    for instance, host in zip(program.instances, hosts, strict=True):
        config = contract.resource_config(hosts, host)
        instance.inputs.append(contract.json_input(f"{rules.CONFIG}/resourceconfig.json", config))


def _lay_channel(
    call: Call, body: dict[str, Any], program: programs.Program, hosts: list[contract.Host], channel: dict[str, Any]
) -> None:
    name = channel["ChannelName"]
    target = f"{rules.DATA}/{name}"
    program.folders.append(target)
    source = channel.get("DataSource", {}).get("S3DataSource")
    if source:
        distribution = source.get("S3DataDistributionType", "FullyReplicated")
        _add(program, *results.lay(call, hosts, source["S3Uri"], source["S3DataType"], distribution, target))


def _add(program: programs.Program, every: list[Input], each: list[list[Input]]) -> None:
    program.inputs += every
    for instance, inputs in zip(program.instances, each, strict=True):
        instance.inputs += inputs


def _lay_code(call: Call, body: dict[str, Any], program: programs.Program, hosts: list[contract.Host]) -> None:
    """The script's archive, for the entry point to unpack; a folder in S3 becomes the code folder itself."""
    name, source = rules.program_of(body, rules.decode(body.get("HyperParameters", {})))
    if not name or not source.startswith(("s3://", "https://")):
        return
    uri = results.plain_uri(source)
    archive = uri.endswith((".tar.gz", ".tgz", ".tar"))
    folder = rules.SOURCE if archive else rules.CODE
    _add(program, *results.lay(call, hosts, uri, "S3Prefix", "FullyReplicated", folder))


def _lay_outputs(call: Call, body: dict[str, Any], program: programs.Program, hosts: list[contract.Host]) -> None:
    """What is taken out, also after a failure or a stop: model, other artifacts, checkpoints."""
    kind = "files" if body["OutputDataConfig"].get("CompressionType") == "NONE" else "tar.gz"
    program.outputs += [
        Output("model", f"{rules.OPT}/model", kind, always=True),
        Output("output", rules.OUTPUT_DATA, kind, always=True),
    ]
    if checkpoints := body.get("CheckpointConfig"):
        local, place = checkpoints.get("LocalPath", rules.CHECKPOINTS).rstrip("/"), checkpoints["S3Uri"].rstrip("/") + "/"
        program.folders.append(local)
        _add(program, *results.lay(call, hosts, place, "S3Prefix", "FullyReplicated", local, missing=True))
        program.outputs.append(Output("checkpoints", local, "files", always=True, continuous=True))


def targets(document: Document) -> dict[str, str]:
    """Where each output goes."""
    body = document.body
    plain = body["OutputDataConfig"].get("CompressionType") == "NONE"
    found = {
        "model": rules.model_uri(body),
        "output": f"{rules.artifacts_uri(body)}/output" + ("/" if plain else ".tar.gz"),
    }
    if checkpoints := body.get("CheckpointConfig"):
        found["checkpoints"] = checkpoints["S3Uri"]
    return found


# --- turns of its life


def wait(call: Call, document: Document) -> bool:
    if document.body["SecondaryStatusTransitions"][-1].get("StatusMessage") == WAITING:
        return False
    move_on(document.body, "Starting", call.now, WAITING)
    return True


def run(call: Call, document: Document, started: float) -> bool:
    body = document.body
    if "TrainingStartTime" in body and body["SecondaryStatus"] not in ("Starting", "Interrupted"):
        return False
    body.setdefault("TrainingStartTime", started)
    stopping = body["SecondaryStatusTransitions"].pop() if body["SecondaryStatus"] == "Stopping" else None
    move_on(body, "Downloading", started)
    move_on(body, "Training", started)
    if stopping is not None:  # it was stopped before anybody saw that it ran
        move_on(body, "Stopping", max(started, stopping["StartTime"]))
    return True


def end(call: Call, document: Document, state: RunState, fault: str | None) -> None:
    """Moves the job to its last status, with its artifacts, times and metrics."""
    body = document.body
    status, secondary = ("Failed", "Failed") if fault else contract.ending_of(state)
    if secondary == "MaxRuntimeExceeded":
        secondary = rules.exceeded(body, state.started)
    ended = state.ended or call.now
    if state.started:
        run(call, document, state.started)
        move_on(body, "Uploading", ended)
        if "_spent" not in body:
            body["TrainingStartTime"] = state.started
    if state.started or "_spent" in body:
        ran_s = body.get("_spent", 0.0) + (ended - state.started if state.started else 0.0)
        share = call.app.settings.spot_share if body.get("EnableManagedSpotTraining") else 1.0
        body["TrainingTimeInSeconds"] = max(1, math.ceil(ran_s))
        body["BillableTimeInSeconds"] = max(1, math.ceil(ran_s * share))
        measure(call, document)
    body["TrainingEndTime"] = ended
    if status == "Completed" or any(result.output == "model" for result in state.results):
        body["ModelArtifacts"] = {"S3ModelArtifacts": rules.model_uri(body)}
    if status == "Failed":
        body["FailureReason"] = contract.clip(fault or rules.failure_reason(body, state), contract.REASON_CHARS)
    move_on(body, secondary, max(ended, call.now))
    JOB.move(call, document, status)


def measure(call: Call, document: Document) -> None:
    """Shows the last value of each of the job's metrics, and keeps all of them as series."""
    series = read_metrics(call, document)
    if series:
        document.body["FinalMetricDataList"] = [
            {"MetricName": name, "Value": points[-1][1], "Timestamp": points[-1][0]} for name, points in series.items()
        ]
    for name, points in series.items():
        call.row(Points(series=f"{document.arn}/{name}", points=points))


def read_metrics(call: Call, document: Document) -> metrics.Series:
    """The job's metrics as its log tells them so far."""
    body = document.body
    algorithm = body["AlgorithmSpecification"]
    definitions, trusted = algorithm.get("MetricDefinitions", []), False
    if not definitions and not rules.program_of(body, rules.decode(body.get("HyperParameters", {})))[0]:
        definitions, trusted = _builtin(call, algorithm["TrainingImage"]), True
    if not definitions:
        return {}
    logs = call.app.logs
    files = [
        str(logs.file(document.account, document.region, GROUP, nouns.stream_name(document, host.name)))
        for host in rules.hosts_of(body)
    ]
    quick = metrics.size_bytes(files) <= metrics.QUICK_BYTES if trusted else expressions.quick(files, definitions)
    if not quick:
        call.take_time()
    return metrics.scrape(files, definitions) if trusted or quick else expressions.scrape_apart(files, definitions)


def _builtin(call: Call, uri: str) -> list[dict[str, str]]:
    try:
        image = call.app.images.look(uri)
    except ImageError:
        return []
    return list(image.metrics) if image else []


KIND = programs.Kind(
    resource=JOB,
    group=GROUP,
    image=lambda document: str(document.body["AlgorithmSpecification"]["TrainingImage"]),
    hosts=lambda document: rules.hosts_of(document.body),
    plan=plan,
    targets=targets,
    wait=wait,
    run=run,
    end=end,
    restored=frozenset({spot.CHECKPOINTS}),
)


def step(call: Call, document: Document) -> float | None:
    """One look at a training job."""
    if not document.body.get("EnableManagedSpotTraining"):
        return jobs.look_at(call, KIND, document)
    pause_s = spot.look(call, KIND, document)
    return pause_s if pause_s is not None else spot.sooner(call, document, jobs.look_at(call, KIND, document))


def give_up(call: Call, document: Document) -> float | None:
    """Ends a training job that cannot be looked at."""
    return jobs.give_up(call, KIND, document)


STEPS = {JOB.kind: step}
GIVE_UP = {JOB.kind: give_up}
