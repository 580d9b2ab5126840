"""What training, processing and transform jobs share: the checks at creation, and the way from a job to its run and back.

begin        at creation: the run's credentials, the first event, the first look
look_at      one look of the engine: starts the run, follows it, publishes what it left, cleans up
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.kernel import auth, staging
from penstock.kernel.app import App
from penstock.kernel.buckets import open_bucket, parse_uri
from penstock.kernel.call import Call, Caller
from penstock.kernel.errors import ServiceError, invalid
from penstock.kernel.resource import Resource
from penstock.runs.base import (
    ENDED,
    LOST,
    RUNNING,
    STARTING,
    WAITING,
    Environment,
    Executor,
    ImageError,
    Images,
    Input,
    Instance,
    Mount,
    Output,
    Result,
    RunSpec,
    RunState,
)
from penstock.services.sagemaker import contract, faults, quotas
from penstock.services.sagemaker.instances import clamp, machine_of
from penstock.store.records import Change, Document, ObjectQuery, Query, Ref, Wake

IMAGE_LOOK_S = 0.25
"""How soon to look again for an image that is being built."""
HEARTBEAT_S = 20.0
"""How often a running job is looked at when nothing is heard of it."""
CONTINUOUS_S = 5.0
PUBLISHED_AT_ONCE = 2000
ATTEMPTS = 2
KEY_LIFE_S = 30 * 86400.0
"""Beyond its longest runtime: a job may wait for its turn. The key goes when the job ends."""
DEFAULT_RUNTIME_S = 86400
FINAL = frozenset({"Completed", "Failed", "Stopped"})
MAKERS = {"_execution": "sagemaker.pipeline-execution", "_tuning": "sagemaker.tuning-job"}
"""The member of a job that says who made it (account, region, name), and what kind that is."""
NOUNS = {
    "sagemaker.training-job": "training job",
    "sagemaker.processing-job": "processing job",
    "sagemaker.transform-job": "transform job",
}


@dataclass(slots=True)
class Program:
    """What a job wants run, in the terms of the container contract."""

    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    """The contract's variables."""
    given: dict[str, str] = field(default_factory=dict)
    """The user's."""
    inputs: list[Input] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    """Beside those of the job's own image."""
    folders: list[str] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    message_file: str = ""
    volume_gib: int = 30
    runtime_s: int = DEFAULT_RUNTIME_S
    network: bool = True


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job: where its parts are, and what to do at each turn of its life.

    All but `plan` only change the document.
    """

    resource: Resource
    group: str
    """The log group."""
    image: Callable[[Document], str]
    hosts: Callable[[Document], list[contract.Host]]
    plan: Callable[[Call, Document, Environment], Program]
    """Raises: ServiceError, where the job cannot be run as it is."""
    targets: Callable[[Document], Mapping[str, str]]
    """The S3 URI of each output, by name."""
    wait: Callable[[Call, Document], bool]
    """Shows that the job waits for capacity; whether that is news."""
    run: Callable[[Call, Document, float], bool]
    """Shows that the program runs, since a moment; whether that is news."""
    end: Callable[[Call, Document, RunState, str | None], None]
    """Moves the document to its last status. Takes the end, and a reason where it is not the program's."""
    others: Callable[[Document], Sequence[str]] = lambda document: ()
    """Further images, which must be ready before `plan` is asked."""
    restored: frozenset[str] = frozenset()
    """Outputs that begin with what lies at their targets: what is there already is not put there again."""
    keys: Callable[[Document], Mapping[str, str]] = lambda document: {}
    """The keys, below their output's URI, of results whose file cannot be named like them, by the file's name."""
    resumed: bool = False
    """Whether answers go up while it runs, and a lost run is planned anew: `plan` leaves out what is `_published`."""


# --- names


def run_name(document: Document) -> str:
    """The name of a job's run: unique for ever, since a job's name may be used again after its deletion."""
    kind = document.kind.partition(".")[2]
    return f"{kind}.{document.account}.{document.region}.{document.name}.{int(document.created * 1000)}"


def run_ref(name: str) -> Ref | None:
    """The job whose run this is; None for a run of something else."""
    parts = name.split(".")
    if len(parts) != 5 or f"sagemaker.{parts[0]}" not in NOUNS:
        return None
    return Ref(f"sagemaker.{parts[0]}", parts[1], parts[2], parts[3])


def recover(app: App) -> int:
    """At the engine's start: has every job that has not ended looked at now, since what waited for capacity is forgotten.

    Gives how many there are. Also gives back the folders of ended runs whose jobs have ended too, or were deleted.
    """
    wakes: list[Wake] = []
    for kind in NOUNS:
        for status in ("InProgress", "Stopping"):
            for document in app.store.page(Query(kind=kind, status=status, limit=100_000)):
                ref = document.ref
                wakes.append(
                    Wake(kind=ref.kind, account=ref.account, region=ref.region, name=ref.name, due=app.clock.now())
                )
    if wakes:
        app.store.commit(Change(wakes=wakes))
    runs: Executor = app.runs
    for name in runs.names():
        ref_of_run = run_ref(name)
        job = app.store.get(ref_of_run) if ref_of_run else None
        state = runs.look(name)
        over = ref_of_run is not None and (job is None or job.body["_run"] != name or job.status in FINAL)
        if over and state and state.phase in (ENDED, LOST):
            runs.forget(name)
    return len(wakes)


def stream_name(document: Document, host: str) -> str:
    return f"{document.name}/{host}-{int(document.created)}"


# --- at creation


def begin(call: Call, document: Document) -> None:
    """Gives a new job its run's credentials, tells of it, and has the engine look.

    Raises: ServiceError for a text that no program can be given, and beyond a quota.
    """
    body = document.body
    quotas.check(call, document, NOUNS[document.kind])
    contract.refuse_nul(call.params)
    body["_run"] = run_name(document)
    give_key(call, document)
    call.put(document)
    _tell(call, document)
    call.wake(document.ref)


def check_image(call: Call, uri: str) -> None:
    """Refuses an image that nothing stands for, where this process knows the images; elsewhere the job will fail.

    Raises: ServiceError.
    """
    images: Images | None = call.app.images
    if images is None:
        return
    if images.asks(uri):
        call.take_time()
    try:
        images.check(uri)
    except ImageError as fault:
        remedy = str(fault).removeprefix(f"No environment is known for the image {uri}.").strip()  # not said twice
        raise invalid(f"Requested image {uri} not found. {remedy}") from None


def check_source(call: Call, uri: str, role: str) -> None:
    """Raises: ServiceError where no object lies under an input's prefix."""
    bucket, prefix = parse_uri(uri)
    try:
        open_bucket(call, bucket)
        there = bool(call.app.store.objects(ObjectQuery(bucket=bucket, prefix=prefix, limit=1)).rows)
    except ServiceError:
        there = False
    if not there:
        raise invalid(
            f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
            f"exists in the selected region ({call.region}), that objects exist under that S3 prefix, and that the "
            f'role "{role}" has "s3:ListBucket" permissions on bucket "{bucket}".'
        )


def stop(call: Call, resource: Resource, document: Document) -> None:
    """Has a job stopped; one that stops already is left alone.

    Raises: ServiceError for one that has ended.
    """
    if document.status in FINAL:
        raise invalid(f"The request was rejected because the {NOUNS[document.kind]} is in status {document.status}.")
    if document.status == "InProgress":
        resource.move(call, document, "Stopping")
        _tell(call, document)
        call.wake(document.ref)


def delete(call: Call, resource: Resource, document: Document) -> None:
    """Deletes an ended job.

    Raises: ServiceError (ResourceInUse) for one that has not ended.
    """
    if document.status not in FINAL:
        raise ServiceError("ResourceInUse", f"Cannot delete {document.arn}: it is in status {document.status}.")
    resource.delete(call, document.name)


# --- the engine's looks


def look_at(call: Call, kind: Kind, document: Document) -> float | None:
    """One look at a job; gives the seconds until the next."""
    runs: Executor = call.app.runs
    name = document.body["_run"]
    state = runs.look(name)
    if document.status in FINAL:
        if state and state.phase in (STARTING, RUNNING):  # it was given up
            runs.stop(name)
            return HEARTBEAT_S
        runs.forget(name)
        return None
    stopping = document.status == "Stopping"
    if state is None:
        if stopping:
            return conclude(call, kind, document, RunState(ENDED, reason="stopped", ended=call.now))
        started = _start(call, kind, document)
        if not isinstance(started, RunState):
            return started
        state = started
    if state.phase == ENDED:
        return conclude(call, kind, document, state)
    if state.phase == LOST:
        return _recover(call, kind, document, state)
    if stopping:
        runs.stop(name)
        return HEARTBEAT_S
    if state.phase == WAITING:
        show(call, kind, document, kind.wait(call, document))
        return HEARTBEAT_S
    return _follow(call, kind, document, state)


def give_up(call: Call, kind: Kind, document: Document) -> float | None:
    """Ends a job whose looks raise whatever is done; what runs of it is stopped by the next look."""
    if document.status in FINAL:
        return None
    conclude(call, kind, document, RunState(ENDED, ended=call.now), contract.INTERNAL_REASON)
    return 0.0


def _start(call: Call, kind: Kind, document: Document) -> RunState | float | None:
    """Starts the job's run: its state, or the seconds until the next try."""
    if struck := faults.failure_of(call, document):
        return conclude(call, kind, document, RunState(ENDED, ended=call.now), struck)
    try:
        spec, note = _specify(call, kind, document)
    except _NotYet as wait:
        return wait.seconds
    except (ImageError, ServiceError) as fault:
        return conclude(call, kind, document, RunState(ENDED, ended=call.now), _sentence(fault))
    for instance in spec.instances:
        if note and not os.path.getsize(instance.log):
            call.app.logs.append(instance.log, call.now, note)
    runs: Executor = call.app.runs
    return runs.start(spec)


class _NotYet(Exception):
    """Something that the run needs is on its way: look again in so many seconds."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        super().__init__()


def _specify(call: Call, kind: Kind, document: Document) -> tuple[RunSpec, str]:
    """The job's run, and what its image became.

    Raises: _NotYet; ImageError; ServiceError, where the job cannot be run as it is.
    """
    images: Images = call.app.images
    environment, *others = [images.look(uri) for uri in (kind.image(document), *kind.others(document))]
    if environment is None or None in others:
        raise _NotYet(IMAGE_LOOK_S)
    key = call.find(auth.key_ref(document.body["_key"]))
    if key is None:  # it must be there before the program asks for anything
        give_key(call, document)
        call.put(document)
        raise _NotYet(0.0)
    program = kind.plan(call, document, environment)
    return _assemble(call, kind, document, program, environment, key), environment.note


def _follow(call: Call, kind: Kind, document: Document, state: RunState) -> float:
    """Shows that the program runs, and publishes what it has written so far."""
    news = kind.run(call, document, state.started or call.now)
    if state.results:
        try:
            with call.attempt():
                news |= publish(call, kind, document, state)
        except ServiceError as error:  # its place is gone: the next look stops the run
            conclude(call, kind, document, RunState(ENDED, started=state.started, ended=call.now), unpublished(error))
            return 0.0
    show(call, kind, document, news)
    return CONTINUOUS_S if _is_live(document) else HEARTBEAT_S


def _is_live(document: Document) -> bool:
    """Whether the job puts files into S3 while it runs."""
    body = document.body
    entries = (body.get("ProcessingOutputConfig") or {}).get("Outputs") or []
    modes = {entry.get("S3Output", {}).get("S3UploadMode") for entry in entries}
    return bool(body.get("CheckpointConfig")) or "Continuous" in modes or "TransformOutput" in body


def _recover(call: Call, kind: Kind, document: Document, state: RunState) -> float | None:
    """A run whose supervisor is gone may be tried again, once: from the beginning, or from what is published."""
    if document.status == "Stopping":
        return conclude(call, kind, document, RunState(ENDED, reason="stopped", ended=call.now, results=state.results))
    if state.attempt >= ATTEMPTS:
        return conclude(call, kind, document, state, contract.INTERNAL_REASON)
    try:
        with call.attempt():
            fresh = publish(call, kind, document, state)
    except ServiceError as error:
        return conclude(call, kind, document, RunState(ENDED, ended=call.now), unpublished(error))
    if fresh:  # the next attempt leaves it out, or begins with it: it must be there before
        kind.resource.save(call, document)
        return 0.0
    for host in kind.hosts(document):
        file = call.app.logs.path(document.account, document.region, kind.group, stream_name(document, host.name))
        call.app.logs.append(file, call.now, f"penstock: the run was lost; attempt {state.attempt + 1} begins.")
    runs: Executor = call.app.runs
    spec = None
    if kind.resumed or document.body.get("CheckpointConfig"):  # what went up before the loss is what the next attempt goes on from
        try:
            spec, _ = _specify(call, kind, document)
        except _NotYet as wait:
            return wait.seconds
        except (ImageError, ServiceError) as fault:
            return conclude(call, kind, document, state, _sentence(fault))
    runs.retry(document.body["_run"], spec)
    return HEARTBEAT_S


def conclude(call: Call, kind: Kind, document: Document, state: RunState, fault: str | None = None) -> float | None:
    """Publishes what the run left and ends the job, in one change; before it many results, some at a time."""
    begun = document.body.get("_taken", 0)
    many = len(state.results) - begun > PUBLISHED_AT_ONCE
    if many and not fault and _publish_some(call, kind, document, state, begun):
        return 0.0
    if rest := state.results[begun:]:
        try:
            with call.attempt():
                publish(call, kind, document, replace(state, results=rest))
        except ServiceError as error:
            fault = fault or unpublished(error)
    kind.end(call, document, state, fault)
    for member in ("_published", "_taken", "_keys"):
        document.body.pop(member, None)
    run, runs = document.body["_run"], call.app.runs
    for key in auth.keys_of_run(call.app.store, run):
        call.delete(key)
    kind.resource.save(call, document)
    _tell(call, document)
    call.afterwards.append(lambda: _give_back(runs, run))
    return None


def _give_back(runs: Executor, name: str) -> None:
    """Gives a run's folder back; one that was given up while it runs waits for the next look."""
    with contextlib.suppress(ValueError):
        runs.forget(name)


def _publish_some(call: Call, kind: Kind, document: Document, state: RunState, begun: int) -> bool:
    """Publishes the next of many results: a change of a hundred thousand rows would have everybody wait. Not where it cannot."""
    until = begun + PUBLISHED_AT_ONCE
    try:
        with call.attempt():
            publish(call, kind, document, replace(state, results=state.results[begun:until]))
    except ServiceError:
        return False
    document.body["_taken"] = until
    kind.resource.save(call, document)
    return True


def show(call: Call, kind: Kind, document: Document, news: bool) -> None:
    """Saves what changed on the way; only secondary statuses, which training jobs have, are events."""
    if news:
        kind.resource.save(call, document)
        if "SecondaryStatus" in document.body:
            _emit(call, document)


def _tell(call: Call, document: Document) -> None:
    """Tells of a change of status: an event, and a look of whoever made the job."""
    _emit(call, document)
    wake_maker(call, document)


def wake_maker(call: Call, document: Document) -> None:
    """Has the execution whose step this is, or the tuning job whose trial it is, looked at."""
    for member, kind in MAKERS.items():
        if maker := document.body.get(member):
            call.wake(Ref(kind, *maker))


def _emit(call: Call, document: Document) -> None:
    kind = f"SageMaker {NOUNS[document.kind].title()} State Change"
    call.emit("aws.sagemaker", kind, event_detail(document), [document.arn])


def event_detail(document: Document) -> dict[str, Any]:
    """An event's detail: the Describe answer, its moments as milliseconds in text."""
    shown = {name: value for name, value in document.body.items() if name[0] != "_"}
    detail: dict[str, Any] = _with_text_moments(shown)
    return {**detail, "Tags": {}}


def _with_text_moments(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _with_text_moments(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_text_moments(inner, name) for inner in value]
    if isinstance(value, float) and name.endswith(("Time", "Timestamp")):
        return str(int(value * 1000))
    return value


# --- bytes


def publish(call: Call, kind: Kind, document: Document, state: RunState) -> bool:
    """Puts results that were not published yet into their places; whether there were any."""
    targets, keys = kind.targets(document), kind.keys(document)
    known: dict[str, str] = document.body.get("_published", {})
    fresh = [result for result in state.results if known.get(f"{result.output}/{result.key}") != result.sha256]
    fresh = [each for each in fresh if each.output not in kind.restored or not _lies_there(call, targets[each.output], each)]
    for output in dict.fromkeys(result.output for result in fresh):
        if output in targets:
            named = [replace(each, key=keys.get(each.key, each.key)) for each in fresh if each.output == output]
            staging.publish(call, targets[output], named)
    if state.phase != ENDED and fresh:
        document.body["_published"] = known | {f"{result.output}/{result.key}": result.sha256 for result in fresh}
    return bool(fresh)


def _lies_there(call: Call, uri: str, result: Result) -> bool:
    """Whether a result's bytes are what its place has."""
    bucket, prefix = parse_uri(uri)
    row = call.app.store.object(bucket, f"{prefix.rstrip('/')}/{result.key}".removeprefix("/"))
    return row is not None and (row.etag, row.size_bytes) == (result.md5, result.size_bytes)


def unpublished(error: ServiceError) -> str:
    return f"ClientError: Artifact upload failed: {error.message}"


def lay(
    call: Call,
    hosts: Sequence[contract.Host],
    uri: str,
    data_type: str,
    distribution: str,
    target: str,
    missing: bool = False,
) -> tuple[list[Input], list[list[Input]]]:
    """The files of one data source: those of every host, and those of each one (when sharded).

    Takes: `missing`, whether there may be nothing.
    Raises: ServiceError.
    """
    try:
        found = staging.find_objects(call, plain_uri(uri), data_type)
    except ServiceError:
        if missing:
            return [], [[] for _ in hosts]
        raise
    if distribution != "ShardedByS3Key" or len(hosts) == 1:
        return _inputs(staging.place(call, found, target)), [[] for _ in hosts]
    shares = [staging.shard(found, index, len(hosts)) for index in range(len(hosts))]
    return [], [_inputs(staging.place(call, each, target)) for each in shares]


def plain_uri(uri: str) -> str:
    """An S3 URI, also of an https address of an object."""
    if not uri.startswith("https://"):
        return uri
    host, _, path = uri.removeprefix("https://").partition("/")
    bucket, dot, rest = host.partition(".s3")
    return f"s3://{bucket}/{path}" if dot and rest[:1] in (".", "-") else f"s3://{path}"


def _inputs(staged: Sequence[staging.Staged]) -> list[Input]:
    return [Input(target=each.target, blob=each.blob, data=each.data) for each in staged]


# --- the run


def give_key(call: Call, document: Document) -> None:
    """Makes the credentials that the job's program has: its role's, and of no use to anybody but its run."""
    body = document.body
    role = body.get("RoleArn") or body.get("_role", "")
    caller = Caller(
        account=document.account,
        arn=f"arn:aws:sts::{document.account}:assumed-role/{role.rsplit('/', 1)[-1] or 'SageMaker'}/SageMaker",
        run=body["_run"],
    )
    limit = float(body.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DEFAULT_RUNTIME_S))
    key = auth.make_key(caller, call.now, call.now + limit + KEY_LIFE_S)
    call.put(key)
    body["_key"] = key.name


def _assemble(
    call: Call, kind: Kind, document: Document, program: Program, image: Environment, key: Document
) -> RunSpec:  # fmt: skip
    """The run of a program, as its supervisor needs it."""
    app = call.app
    hosts = kind.hosts(document)
    machine = clamp(machine_of(hosts[0].instance_type), app.settings)
    images: Images = app.images
    packages, folders = images.packages() if program.network else ({}, [])
    bundle = app.settings.data / "ca" / "bundle.pem"
    certificates = program.network and bundle.exists()
    env = contract.run_environment(
        region=document.region, key={"AccessKeyId": key.name, **key.body} if program.network else None,
        hosts=[host.name for host in hosts], certificates=certificates, image=image.env, packages=packages,
        own=program.env, given=program.given, cpus=machine.cpus,
    )  # fmt: skip
    for instance, host in zip(program.instances, hosts, strict=True):
        instance.log = app.logs.path(document.account, document.region, kind.group, stream_name(document, host.name))
    maker = next((document.body[member] for member in MAKERS if member in document.body), None)
    return RunSpec(
        name=document.body["_run"], command=program.command, env=env, cwd=image.cwd,
        mounts=[*image.mounts, *program.mounts, *(Mount(folder, folder) for folder in folders)], inputs=program.inputs,
        folders=program.folders, outputs=program.outputs, instances=program.instances,
        blobs=str(app.settings.data / "blobs"), cpus=machine.share, memory_bytes=machine.memory_bytes,
        disk_bytes=max(1, program.volume_gib) << 30, timeout_s=program.runtime_s, grace_s=app.settings.grace_s,
        network=program.network, party="/".join(maker) if maker else document.arn, message_file=program.message_file,
        labels={"kind": document.kind, "account": document.account, "region": document.region, "name": document.name},
        layers=[*image.layers, *app.layers], own_local=image.own_local, container=image.container,
    )  # fmt: skip


def _sentence(fault: ServiceError | ImageError) -> str:
    if isinstance(fault, ImageError):
        return f"ClientError: {fault}"
    known = {"NoSuchBucket": "The specified bucket does not exist", "AccessDenied": "Access Denied"}
    detail = fault.members.get("BucketName", "")
    text = f"{fault.message}: {detail}" if fault.code in known and detail else fault.message
    return f"ClientError: {text}"
