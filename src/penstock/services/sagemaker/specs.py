"""From a job to its run: its image's environment, its program, its credentials."""

from __future__ import annotations

from penstock.kernel import auth
from penstock.kernel.call import Call, Caller
from penstock.kernel.errors import ServiceError
from penstock.runs.base import Environment, ImageError, Images, Mount, RunSpec
from penstock.services.sagemaker import contract
from penstock.services.sagemaker.instances import clamp, machine_of
from penstock.services.sagemaker.nouns import MAKERS, stream_name
from penstock.services.sagemaker.programs import DEFAULT_RUNTIME_S, Kind, Program
from penstock.store.records import Document

IMAGE_LOOK_S = 0.25
"""How soon to look again for an image that is being built."""
KEY_LIFE_S = 30 * 86400.0
"""Beyond its longest runtime: a job may wait for its turn. The key goes when the job ends."""

WARM_FRAMEWORKS = ("sklearn", "xgboost")
WARM = ("numpy", "pandas", "sklearn.model_selection", "sklearn.metrics", "xgboost")
"""What a Python that waits for the next job of these images has imported, as far as its image has it."""


class NotYet(Exception):
    """Something that the run needs is on its way: look again in so many seconds."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        super().__init__()


def specify(call: Call, kind: Kind, document: Document) -> tuple[RunSpec, str]:
    """The job's run, and what its image became.

    Raises: NotYet; ImageError; ServiceError, where the job cannot be run as it is.
    """
    images: Images = call.app.images
    environment, *others = [images.look(uri) for uri in (kind.image(document), *kind.others(document))]
    if environment is None or None in others:
        raise NotYet(IMAGE_LOOK_S)
    key = call.find(auth.key_ref(document.body["_key"]))
    if key is None:  # it must be there before the program asks for anything
        give_key(call, document)
        call.put(document)
        raise NotYet(0.0)
    program = kind.plan(call, document, environment)
    return _assemble(call, kind, document, program, environment, key), environment.note


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
        warm=[image.python, *WARM] if image.framework in WARM_FRAMEWORKS and app.settings.spares else [],
    )  # fmt: skip


def sentence(fault: ServiceError | ImageError) -> str:
    return f"ClientError: {fault if isinstance(fault, ImageError) else words_of(fault)}"


def words_of(fault: ServiceError) -> str:
    """What S3 said, with the bucket that it means."""
    known = {"NoSuchBucket": "The specified bucket does not exist", "AccessDenied": "Access Denied"}
    detail = fault.members.get("BucketName", "")
    return f"{fault.message}: {detail}" if fault.code in known and detail else fault.message
