"""The engine's part of processing jobs: from a job to what its program finds, and from its end to its outputs."""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.runs.base import Environment, Instance, Output, RunState
from penstock.services.sagemaker import contract, jobs, programs, results
from penstock.services.sagemaker.processing import rules
from penstock.services.sagemaker.processing.state import GROUP, JOB
from penstock.store.records import Document


def plan(call: Call, document: Document, image: Environment) -> programs.Program:
    """What a processing job wants run.

    Raises: ServiceError for data that is not there, and for what cannot be run.
    """
    body = document.body
    hosts = rules.hosts_of(body)
    application = body["AppSpecification"]
    entrypoint, arguments = application.get("ContainerEntrypoint"), application.get("ContainerArguments")
    own = [] if entrypoint else image.command  # as with Docker: another entry point takes the image's words away, too
    command = [*(entrypoint or image.entrypoint), *(arguments or own)]
    if not command:
        raise ServiceError(
            "ClientError", "The image has no program of its own: AppSpecification needs a ContainerEntrypoint."
        )
    program = programs.Program(
        command=command,
        env=rules.job_environment(body),
        given=dict(body.get("Environment", {})),
        inputs=[contract.json_input(f"{rules.CONFIG}/processingjobconfig.json", rules.job_config(body))],
        folders=["/opt/ml/processing", "/opt/ml/output"],
        instances=[
            Instance(
                host.name,
                inputs=[
                    contract.json_input(f"{rules.CONFIG}/resourceconfig.json", contract.resource_config(hosts, host))
                ],
            )
            for host in hosts
        ],
        outputs=[Output(rules.EXIT_MESSAGE, rules.MESSAGE, always=True)],
        volume_gib=int(body["ProcessingResources"]["ClusterConfig"].get("VolumeSizeInGB", 30)),
        runtime_s=int(body["StoppingCondition"]["MaxRuntimeInSeconds"]),
        network=not body.get("NetworkConfig", {}).get("EnableNetworkIsolation"),
    )
    _lay_inputs(call, document, program, hosts)
    for output in rules.outputs_of(body):
        place = output["S3Output"]
        local = place.get("LocalPath", f"/opt/ml/processing/output/{output['OutputName']}").rstrip("/")
        live = place.get("S3UploadMode") == "Continuous"
        program.folders.append(local)
        program.outputs.append(Output(output["OutputName"], local, always=live, continuous=live))
    return program


def _lay_inputs(call: Call, document: Document, program: programs.Program, hosts: list[contract.Host]) -> None:
    for entry in rules.inputs_of(document.body):
        source = entry["S3Input"]
        target = source.get("LocalPath", f"/opt/ml/processing/input/{entry['InputName']}").rstrip("/")
        program.folders.append(target)
        every, each = results.lay(
            call, hosts, source["S3Uri"], source.get("S3DataType", "S3Prefix"), source["S3DataDistributionType"], target
        )
        program.inputs += every
        for instance, inputs in zip(program.instances, each, strict=True):
            instance.inputs += inputs


def targets(document: Document) -> dict[str, str]:
    """Where each output goes: below its URI, as a folder."""
    outputs = rules.outputs_of(document.body)
    return {output["OutputName"]: output["S3Output"]["S3Uri"].rstrip("/") + "/" for output in outputs}


# --- turns of its life


def end(call: Call, document: Document, state: RunState, fault: str | None) -> None:
    """Moves the job to its last status."""
    body = document.body
    status = "Failed" if fault else contract.ending_of(state)[0]
    if state.started:
        body["ProcessingStartTime"] = state.started
    body["ProcessingEndTime"] = state.ended or call.now
    for result in state.results:
        if result.output == rules.EXIT_MESSAGE and result.inline:
            body["ExitMessage"] = result.inline.decode("utf-8", "replace")[: contract.REASON_CHARS]
    if status == "Failed":
        body["FailureReason"] = contract.clip(fault or rules.failure_reason(state), contract.REASON_CHARS)
    JOB.move(call, document, status)


KIND = programs.Kind(
    resource=JOB,
    group=GROUP,
    image=lambda document: str(document.body["AppSpecification"]["ImageUri"]),
    hosts=lambda document: rules.hosts_of(document.body),
    plan=plan,
    targets=targets,
    wait=programs.unseen,
    run=programs.starts("ProcessingStartTime"),
    end=end,
)


def step(call: Call, document: Document) -> float | None:
    """One look at a processing job."""
    return jobs.look_at(call, KIND, document)


def give_up(call: Call, document: Document) -> float | None:
    """Ends a processing job that cannot be looked at."""
    return jobs.give_up(call, KIND, document)


STEPS = {JOB.kind: step}
GIVE_UP = {JOB.kind: give_up}
