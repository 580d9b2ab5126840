"""The engine's part of transform jobs: the sandbox of the model's containers, the driver's orders, and its end."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import Any

from penstock.kernel import staging
from penstock.kernel.buckets import parse_uri
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.runs.base import Environment, Input, Instance, Mount, Output, RunState
from penstock.services.sagemaker import contract, jobs, programs, results
from penstock.services.sagemaker.instances import clamp, machine_of
from penstock.services.sagemaker.transform import rules
from penstock.services.sagemaker.transform.state import GROUP, JOB
from penstock.store.records import Document

DRIVER = f"{contract.CONTAINERS}/penstock_transform"
SERVER = f"{contract.CONTAINERS}/penstock_serving"
ANSWERS = "answers"


def plan(call: Call, document: Document, image: Environment) -> programs.Program:
    """What a transform job wants run: the driver, with all containers of the model beside it.

    Raises: ServiceError for model data or inputs that are not there.
    """
    body = document.body
    hosts = rules.hosts_of(body)
    cpus = clamp(machine_of(hosts[0].instance_type), call.app.settings).cpus
    program = programs.Program(
        command=[image.python, DRIVER, rules.CONFIG],
        folders=[rules.MODEL, rules.DATA, rules.ANSWERS, posixpath.dirname(rules.FAILURE)],
        instances=[Instance(host.name) for host in hosts],
        outputs=[Output(ANSWERS, rules.ANSWERS, always=True, continuous=True)],
        message_file=rules.FAILURE,
        runtime_s=rules.RUNTIME_S,
        network=not body["_model"]["isolated"],
    )
    config = rules.job_config(body, cpus)
    config["unset"] = sorted(image.env)
    config["containers"] = _lay_containers(call, body, program, image)
    config["scripted"] = any("SAGEMAKER_PROGRAM" in each["env"] for each in config["containers"])
    for instance, objects in zip(program.instances, _lay_objects(call, document, program), strict=True):
        instance.inputs.append(contract.json_input(rules.CONFIG, {**config, "objects": objects}))
    return program


# --- containers


def _lay_containers(
    call: Call, body: dict[str, Any], program: programs.Program, image: Environment
) -> list[dict[str, Any]]:  # fmt: skip
    """Lays models and environments; gives what the driver is told of each container."""
    told: list[dict[str, Any]] = []
    known = {image.uri: image}
    for number, container in enumerate(body["_model"]["containers"]):
        uri = container["Image"]
        if uri not in known:
            known[uri] = _beside(call.app.images.look(uri), number, program, image)
        environment = known[uri]
        if environment.container:
            raise ServiceError("ClientError", f"{uri} runs as a container, and Penstock serves models from sandboxes only.")
        env = {**environment.env, **rules.container_environment(body, container, number)}
        config = {
            "name": container.get("ContainerHostname") or (f"container-{number + 1}" if number else "The container"),
            "framework": environment.framework,
            "python": environment.python,
            "server": SERVER,
            "entrypoint": [*environment.entrypoint, "serve"] if environment.entrypoint else [],
            "cwd": environment.cwd,
            "model_dir": rules.model_dir(number),
            "env": env,
        }
        told.append(
            {**config, **_lay_model(call, program, container, number), **_lay_source(call, program, env, number)}
        )
    return told


def _beside(environment: Environment, number: int, program: programs.Program, first: Environment) -> Environment:
    """A further environment in the same sandbox: in a folder of its own beside the first one's.

    Raises: ServiceError for an image that is more than an environment: a sandbox has one root.
    """
    *built, own = environment.layers
    if built:
        raise ServiceError(
            "ClientError",
            f"Of a model's containers only the first can be of an image that was built from a Dockerfile: {environment.uri}.",
        )
    home = posixpath.dirname(posixpath.dirname(environment.python))
    moved = f"{home}-{number + 1}"
    taken = {mount.target for mount in (*first.mounts, *program.mounts)}
    program.mounts.append(Mount(f"{own}{home}", moved, "overlay"))
    program.mounts += [mount for mount in environment.mounts if mount.target not in taken]
    env = {name: value.replace(home, moved) for name, value in environment.env.items()}
    return replace(environment, python=environment.python.replace(home, moved), env=env)


def _lay_model(call: Call, program: programs.Program, container: dict[str, Any], number: int) -> dict[str, str]:
    """The model's data: an archive for the model server to unpack, or files in the model's folder."""
    uri, archive = rules.model_source(container)
    folder = rules.model_dir(number)
    program.folders.append(folder)
    if not uri:
        return {}
    key = parse_uri(results.plain_uri(uri))[1]
    try:
        found = staging.find_objects(call, results.plain_uri(uri))
    except ServiceError as fault:
        raise ServiceError("ClientError", f"Could not find model data at {uri}. {_because(fault)}".strip()) from None
    if archive:
        found = [each for each in found if each.row.key == key]
        if not found:
            raise ServiceError("ClientError", f"Could not find model data at {uri}.")
        place = f"{rules.PLACE}/models/{number}"
        program.inputs += _inputs(staging.place(call, found, place))
        return {"archive": f"{place}/{found[0].name}"}
    program.inputs += _inputs(staging.place(call, found, folder))
    return {}


def _because(fault: ServiceError) -> str:
    return "" if fault.code == "ClientError" else fault.message


def _lay_source(call: Call, program: programs.Program, env: dict[str, str], number: int) -> dict[str, str]:
    """The script's archive, where SAGEMAKER_SUBMIT_DIRECTORY says that it is in S3."""
    source = env.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
    if not source.startswith(("s3://", "https://")):
        return {}
    uri = results.plain_uri(source)
    place = f"{rules.PLACE}/source/{number}"
    folder = place if uri.endswith((".tar.gz", ".tgz", ".tar")) else f"{place}/code"
    program.inputs += _inputs(staging.place(call, staging.find_objects(call, uri), folder))
    return {"source": place}


# --- objects


def _lay_objects(call: Call, document: Document, program: programs.Program) -> list[list[dict[str, str]]]:
    """Lays what has no answer yet; gives each instance's share of it, as the driver is told."""
    source = document.body["TransformInput"]["DataSource"]["S3DataSource"]
    uri = results.plain_uri(source["S3Uri"])
    found = staging.find_objects(call, uri, source["S3DataType"])
    manifest = source["S3DataType"] == "ManifestFile"
    prefix = parse_uri(uri)[1]
    answers = [each.name + rules.OUT if manifest else rules.answer_name(each.row.key, prefix) for each in found]
    files = staging.file_names(answers, [each.row.key for each in found])
    document.body["_keys"] = {file: answer for file, answer in zip(files, answers, strict=True) if file != answer}
    done = {name.partition("/")[2] for name in document.body.get("_published", ())}
    file_of = {each.row.key: file for each, file in zip(found, files, strict=True)}
    left = [each for each in found if file_of[each.row.key] not in done]
    shares = []
    for number, instance in enumerate(program.instances):
        share = staging.shard(left, number, len(program.instances))
        instance.inputs += _inputs(staging.place(call, share, rules.DATA))
        shares.append([_told(each, file_of[each.row.key]) for each in share])
    return shares


def _told(found: staging.Found, file: str) -> dict[str, str]:
    return {
        "uri": f"s3://{found.row.bucket}/{found.row.key}",
        "path": f"{rules.DATA}/{found.name}",
        "target": f"{rules.ANSWERS}/{file}",
    }


def _inputs(staged: list[staging.Staged]) -> list[Input]:
    return [Input(target=each.target, blob=each.blob, data=each.data) for each in staged]


def targets(document: Document) -> dict[str, str]:
    """Where the answers go."""
    return {ANSWERS: document.body["TransformOutput"]["S3OutputPath"].rstrip("/") + "/"}


# --- turns of its life


def end(call: Call, document: Document, state: RunState, fault: str | None) -> None:
    """Moves the job to its last status."""
    body = document.body
    status = "Failed" if fault else contract.ending_of(state)[0]
    if state.started:
        body.setdefault("TransformStartTime", state.started)
    body["TransformEndTime"] = state.ended or call.now
    if status == "Failed":
        told = fault or rules.failure_reason(state, document.name, GROUP)
        body["FailureReason"] = contract.clip(told, contract.REASON_CHARS)
    JOB.move(call, document, status)


def _images(document: Document) -> list[str]:
    return [container["Image"] for container in document.body["_model"]["containers"]]


KIND = programs.Kind(
    resource=JOB,
    group=GROUP,
    image=lambda document: _images(document)[0],
    hosts=lambda document: rules.hosts_of(document.body),
    plan=plan,
    targets=targets,
    wait=programs.unseen,
    run=programs.starts("TransformStartTime"),
    end=end,
    others=lambda document: _images(document)[1:],
    keys=lambda document: document.body.get("_keys", {}),
    resumed=True,
)


def step(call: Call, document: Document) -> float | None:
    """One look at a transform job."""
    return jobs.look_at(call, KIND, document)


def give_up(call: Call, document: Document) -> float | None:
    """Ends a transform job that cannot be looked at."""
    return jobs.give_up(call, KIND, document)


STEPS = {JOB.kind: step}
GIVE_UP = {JOB.kind: give_up}
