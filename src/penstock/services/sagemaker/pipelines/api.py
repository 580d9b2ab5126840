"""The operations on pipelines and executions."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from penstock.kernel import ids
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError, invalid
from penstock.kernel.pages import cut
from penstock.services.sagemaker.people import author
from penstock.services.sagemaker.pipelines import cache
from penstock.services.sagemaker.pipelines.callbacks import CALLBACK
from penstock.services.sagemaker.pipelines.checks import PARAMETER_TYPES, Malformed
from penstock.services.sagemaker.pipelines.definition import MAX_BYTES, Definition, parse
from penstock.services.sagemaker.pipelines.events import move_execution, tell_execution
from penstock.services.sagemaker.pipelines.expressions import Unresolved, resolve, to_text
from penstock.services.sagemaker.pipelines.files import read_object
from penstock.services.sagemaker.pipelines.lambdas import INVOKED
from penstock.services.sagemaker.pipelines.scope import StartScope
from penstock.services.sagemaker.pipelines.selection import select
from penstock.services.sagemaker.pipelines.state import ENDED, EXECUTION, PIPELINE, STEP, VERSION
from penstock.services.sagemaker.roles import require_role
from penstock.store.records import Document, Query, Ref, TagsGone

MAX_ALIASES = 10


# --- pipelines
def create_pipeline(call: Call) -> dict[str, Any]:
    """Makes a pipeline, whose first version is the definition given."""
    text = _given_definition(call)
    if text is None:
        raise invalid("Either PipelineDefinition or PipelineDefinitionS3Location must be provided.")
    require_role(call, call.params["RoleArn"])
    pipeline = PIPELINE.create(call, status="Active")
    pipeline.body |= {"CreatedBy": author(call), "LastModifiedBy": author(call), "_id": ids.word(12), "_version": 0}
    _add_version(call, pipeline, text)
    _name_version(pipeline, 1, call.params.get("PipelineVersionAliases", []))
    return {"PipelineArn": pipeline.arn}


def update_pipeline(call: Call) -> dict[str, Any]:
    """Changes a pipeline; a definition given becomes a new version. Executions that run go on with theirs.

    Differs: aliases given without a definition name the latest version.
    """
    pipeline = PIPELINE.get(call)
    text = _given_definition(call)
    given = {
        name: call.params[name]
        for name in ("PipelineDisplayName", "PipelineDescription", "RoleArn", "ParallelismConfiguration")
        if name in call.params
    }
    if "RoleArn" in given:
        require_role(call, given["RoleArn"])
    PIPELINE.save(call, pipeline, LastModifiedBy=author(call), **given)
    if text is not None:
        _add_version(call, pipeline, text)
    _name_version(pipeline, pipeline.body["_version"], call.params.get("PipelineVersionAliases", []))
    return {"PipelineArn": pipeline.arn, "PipelineVersionId": pipeline.body["_version"]}


def describe_pipeline(call: Call) -> dict[str, Any]:
    """Describes a pipeline, with the definition of its latest version or of the version asked for."""
    pipeline = PIPELINE.get(call)
    version = _version(call, pipeline)
    last = _executions(call, pipeline, limit=1)
    shown = PIPELINE.describe(pipeline) | {"PipelineDefinition": version.body["PipelineDefinition"]}
    for member in ("PipelineVersionDisplayName", "PipelineVersionDescription"):
        if member in version.body:
            shown[member] = version.body[member]
    shown |= _shown_aliases(pipeline, version)
    return shown | ({"LastRunTime": last[0].created} if last else {})


def list_pipelines(call: Call) -> dict[str, Any]:
    """Lists pipelines, newest first."""
    if "PipelineNamePrefix" in call.params:
        call.params["NamePrefix"] = call.params["PipelineNamePrefix"]
    answer = PIPELINE.page(call, "PipelineSummaries")
    shown = answer["PipelineSummaries"]
    names = [pipeline["PipelineName"] for pipeline in shown]
    last = call.app.store.latest(EXECUTION.kind, call.account, call.region, names)
    for pipeline in shown:
        if pipeline["PipelineName"] in last:
            pipeline["LastExecutionTime"] = last[pipeline["PipelineName"]]
    return answer


@slow
def delete_pipeline(call: Call) -> dict[str, Any]:
    """Deletes a pipeline with its versions and executions, none of which may run."""
    pipeline = PIPELINE.get(call)
    executions = _executions(call, pipeline)
    if running := [execution.arn for execution in executions if execution.status not in ENDED]:
        raise ServiceError(
            "ConflictException", f"Pipeline '{pipeline.arn}' has running executions; stop them first: {running[0]}."
        )
    versions = Query(
        kind=VERSION.kind, account=call.account, region=call.region, parent=pipeline.body["_id"], limit=100_000
    )
    results = Query(
        kind=cache.KIND,
        account=call.account,
        region=call.region,
        name_prefix=f"{pipeline.body['_id']}/",
        order="name",
        limit=100_000,
    )
    for document in [*call.app.store.page(versions), *call.app.store.page(results)]:
        call.delete(document)
    for execution in executions:
        for kind in (STEP.kind, CALLBACK.kind, INVOKED.kind):
            parts = Query(kind=kind, account=call.account, region=call.region, parent=execution.name, limit=100_000)
            for document in call.app.store.page(parts):
                call.delete(document)
        call.delete(execution)
    call.delete(pipeline)
    call.row(TagsGone(arn=pipeline.arn))
    return {"PipelineArn": pipeline.arn}


# --- versions
@slow
def list_pipeline_versions(call: Call) -> dict[str, Any]:
    """Lists a pipeline's versions, newest first."""
    pipeline = PIPELINE.get(call)
    last = {execution.body["_version"]: execution.arn for execution in reversed(_executions(call, pipeline))}

    def show(version: Document) -> dict[str, Any]:
        shown = VERSION.describe(version) | {"PipelineArn": pipeline.arn} | _shown_aliases(pipeline, version)
        return shown | ({"LastExecutionPipelineExecutionArn": last[version.name]} if version.name in last else {})

    return VERSION.page(call, "PipelineVersionSummaries", order="rank", parent=pipeline.body["_id"], show=show)


def update_pipeline_version(call: Call) -> dict[str, Any]:
    """Gives a version a display name and a description, and aliases; an alias that another version has comes over."""
    pipeline = PIPELINE.get(call, call.params["PipelineArn"])
    version = _version(call, pipeline)
    given = ("PipelineVersionDisplayName", "PipelineVersionDescription")
    VERSION.save(call, version, **{name: call.params[name] for name in given if name in call.params})
    changes = call.params.get("PipelineVersionAliasOperations", {})
    known = _shown_aliases(pipeline, version).get("PipelineVersionAliases", [])
    for alias in changes.get("Remove", []):
        if alias not in known:
            raise invalid(f"Version {version.body['PipelineVersionId']} of '{pipeline.arn}' does not have the alias '{alias}'.")
        del pipeline.body["_aliases"][alias]
    _name_version(pipeline, version.body["PipelineVersionId"], changes.get("Add", []))
    if changes:
        call.put(pipeline)
    return {"PipelineArn": pipeline.arn, "PipelineVersionId": call.params["PipelineVersionId"]}


# --- executions
def start_pipeline_execution(call: Call) -> dict[str, Any]:
    """Starts an execution of the pipeline's latest version, or of the version asked for by its id or alias.

    Differs: MLflow's settings are kept and shown; nothing is told to MLflow.
    """
    pipeline = PIPELINE.get(call)
    version = _version(call, pipeline)
    definition = parse(version.body["PipelineDefinition"])
    values = _parameter_values(call, definition)
    name = ids.word(12)
    body = _execution_body(call, pipeline, version) | {"_parameters": values, "_cache": cache.mode_of(call, pipeline)}
    arn = EXECUTION.arn_of(call, name, pipeline=pipeline.name)
    execution = EXECUTION.create(call, name, body=body, status="Executing", parent=pipeline.name, arn=arn)
    _resolve_config(call, execution, "PipelineExperimentConfig", definition.experiment)
    _resolve_config(call, execution, "MLflowConfig", definition.mlflow)
    if experiment := call.params.get("MlflowExperimentName"):
        execution.body["MLflowConfig"] = {**execution.body.get("MLflowConfig", {}), "MlflowExperimentName": experiment}
    if config := call.params.get("SelectiveExecutionConfig"):
        select(call, execution, definition, config)
    call.change.reads.append(pipeline)  # it must still be there when this is written
    tell_execution(call, execution)
    call.wake(execution.ref)
    return {"PipelineExecutionArn": execution.arn}


def describe_pipeline_execution(call: Call) -> dict[str, Any]:
    """Describes an execution."""
    return EXECUTION.describe(EXECUTION.get(call))


def update_pipeline_execution(call: Call) -> dict[str, Any]:
    """Changes an execution's display name, description, or how many steps run at a time."""
    execution = EXECUTION.get(call)
    given = ("PipelineExecutionDisplayName", "PipelineExecutionDescription", "ParallelismConfiguration")
    changed = {name: call.params[name] for name in given if name in call.params}
    EXECUTION.save(call, execution, LastModifiedBy=author(call), **changed)
    if execution.status not in ENDED:
        call.wake(execution.ref)
    return {"PipelineExecutionArn": execution.arn}


def stop_pipeline_execution(call: Call) -> dict[str, Any]:
    """Has an execution stop its running steps and begin no others."""
    execution = EXECUTION.get(call)
    if execution.status in ENDED:
        raise invalid(
            f"Pipeline execution '{execution.arn}' has the status {execution.status}; "
            "only an execution that is Executing can be stopped."
        )
    if execution.status == "Executing":
        move_execution(call, execution, "Stopping", LastModifiedBy=author(call))
        call.wake(execution.ref)
    return {"PipelineExecutionArn": execution.arn}


def retry_pipeline_execution(call: Call) -> dict[str, Any]:
    """Has a failed or stopped execution go on: its failed and stopped steps run again, with what succeeded kept."""
    execution = EXECUTION.get(call)
    if execution.status not in ("Failed", "Stopped"):
        raise invalid(
            f"Pipeline execution '{execution.arn}' has the status {execution.status}; "
            "only an execution that is Failed or Stopped can be retried."
        )
    for name, entry in list(execution.body["_steps"].items()):
        if entry["status"] != "Succeeded":
            del execution.body["_steps"][name]
            step = call.find(Ref(STEP.kind, call.account, execution.region, f"{execution.name}/{name}"))
            if step:
                call.delete(step)
    execution.body["_attempt"] = execution.body.get("_attempt", 0) + 1
    if "ParallelismConfiguration" in call.params:
        execution.body["ParallelismConfiguration"] = call.params["ParallelismConfiguration"]
    move_execution(call, execution, "Executing", FailureReason=None, LastModifiedBy=author(call))
    call.wake(execution.ref)
    return {"PipelineExecutionArn": execution.arn}


def list_pipeline_executions(call: Call) -> dict[str, Any]:
    """Lists a pipeline's executions, newest first."""
    pipeline = PIPELINE.get(call)

    def show(execution: Document) -> dict[str, Any]:
        shown = EXECUTION.describe(execution) | {"StartTime": execution.created}
        if "FailureReason" in shown:
            shown["PipelineExecutionFailureReason"] = shown["FailureReason"]
        return shown

    alias = call.params.get("PipelineVersionAlias")
    keep = (lambda one: alias in one.body.get("PipelineVersionAliases", [])) if alias is not None else None
    return EXECUTION.page(call, "PipelineExecutionSummaries", parent=pipeline.name, show=show, keep=keep)


def list_pipeline_execution_steps(call: Call) -> dict[str, Any]:
    """Lists the steps of an execution that were begun, the last begun first.

    Differs: 100 steps a page where MaxResults is not given, so that `execution.list_steps()` shows them all.
    """
    execution = EXECUTION.get(call)
    call.params.setdefault("MaxResults", 100)
    return STEP.page(call, "PipelineExecutionSteps", order="rank", parent=execution.name)


def list_pipeline_parameters_for_execution(call: Call) -> dict[str, Any]:
    """Lists the values of an execution's parameters, defaults included."""
    values = EXECUTION.get(call).body["_parameters"]
    parameters = [{"Name": name, "Value": to_text(value)} for name, value in values.items()]
    return cut(call, "PipelineParameters", parameters, key=itemgetter("Name"))


def describe_pipeline_definition_for_execution(call: Call) -> dict[str, Any]:
    """Gives the definition that an execution runs."""
    execution = EXECUTION.get(call)
    version = call.find(_version_ref(execution, execution.body["_version"]))
    if version is None:
        raise VERSION.error(VERSION.missing, call, execution.body["_version"])
    return {"PipelineDefinition": version.body["PipelineDefinition"], "CreationTime": version.created}


# --- callbacks
def send_pipeline_execution_step_success(call: Call) -> dict[str, Any]:
    """Ends the Callback step of a token as succeeded, with its outputs of the types that it declares.

    Raises: ServiceError ResourceNotFound for a token of no step; ConflictException for one that was used, or whose execution has
        ended; ValidationException for an output that is not of its type.
    Outputs that the step does not declare are taken, as texts; a declared one that does not come fails the step that refers to it.
    Differs: AWS's sentences for tokens that were used are not known, nor when it finds that an output is not of its type.
    Source: docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html (what is nested is one text, and fails where it is
        referred to).
    """
    callback, execution = _waiting(call)
    given = {each["Name"]: each["Value"] for each in call.params.get("OutputParameters") or []}
    if len(given) < len(call.params.get("OutputParameters") or []):
        raise invalid("The names of OutputParameters must be unique.")
    CALLBACK.move(call, callback, "Completed", _outputs={name: _typed(callback, name, text) for name, text in given.items()})
    call.wake(execution.ref)
    return {"PipelineExecutionArn": execution.arn}


def send_pipeline_execution_step_failure(call: Call) -> dict[str, Any]:
    """Ends the Callback step of a token as failed, for the reason given.

    Raises: as SendPipelineExecutionStepSuccess.
    """
    callback, execution = _waiting(call)
    CALLBACK.move(call, callback, "Failed", FailureReason=call.params.get("FailureReason"))
    call.wake(execution.ref)
    return {"PipelineExecutionArn": execution.arn}


def _waiting(call: Call) -> tuple[Document, Document]:
    """The callback of a token that was not used yet, and its execution, which has not ended."""
    callback = CALLBACK.get(call)
    execution = call.find(Ref(EXECUTION.kind, *callback.body["_execution"]))
    if execution is None:
        raise CALLBACK.error(CALLBACK.missing, call, callback.name)
    if callback.status != "Executing":
        raise ServiceError("ConflictException", f"The callback token '{callback.name}' was used already.")
    if execution.status in ENDED:
        raise ServiceError(
            "ConflictException", f"Pipeline execution '{execution.arn}' has ended, with the status {execution.status}."
        )
    return callback, execution


def _typed(callback: Document, name: str, text: str) -> Any:
    kind = callback.body["_types"].get(name, "String")
    value = PARAMETER_TYPES[kind].read(text)
    if value is None:
        raise invalid(f"The output parameter '{name}' of step '{callback.body['_step']}' is declared as {kind}; '{text}' is none.")
    return value


# --- parts
def _given_definition(call: Call) -> str | None:
    """The definition that the call gives, checked; None when it gives none."""
    text, place = call.params.get("PipelineDefinition"), call.params.get("PipelineDefinitionS3Location")
    if text is not None and place is not None:
        raise invalid("Only one of PipelineDefinition and PipelineDefinitionS3Location can be provided.")
    if place is not None:
        text = _fetch_definition(call, place)
    if text is not None:
        try:
            parse(text)
        except Malformed as fault:
            raise invalid(f"Unable to parse pipeline definition. {fault}") from None
    return text


def _fetch_definition(call: Call, place: dict[str, str]) -> str:
    uri = f"s3://{place['Bucket']}/{place['ObjectKey']}"
    try:
        return read_object(call, place["Bucket"], place["ObjectKey"], MAX_BYTES, place.get("VersionId")).decode()
    except (ServiceError, Unresolved) as fault:
        told = fault.message if isinstance(fault, ServiceError) else str(fault)
        raise invalid(f"Unable to read the pipeline definition at {uri}: {told}") from None
    except UnicodeDecodeError:
        raise invalid(f"Unable to parse pipeline definition. {uri} is not UTF-8 text.") from None


def _add_version(call: Call, pipeline: Document, text: str) -> None:
    number = pipeline.body["_version"] = pipeline.body["_version"] + 1
    call.put(
        Document(
            kind=VERSION.kind,
            account=pipeline.account,
            region=pipeline.region,
            name=f"{pipeline.body['_id']}.{number}",
            parent=pipeline.body["_id"],
            rank=number,
            created=call.now,
            body={"PipelineVersionId": number, "CreationTime": call.now, "PipelineDefinition": text},
        )
    )


def _version(call: Call, pipeline: Document) -> Document:
    """The version asked for by PipelineVersionId or PipelineVersionAlias, or the latest."""
    number = call.params.get("PipelineVersionId", pipeline.body["_version"])
    alias = call.params.get("PipelineVersionAlias")
    if alias is not None:
        if "PipelineVersionId" in call.params:
            raise invalid("Only one of PipelineVersionId and PipelineVersionAlias can be provided.")
        if alias not in pipeline.body.get("_aliases", {}):
            raise ServiceError("ResourceNotFound", f"No version of pipeline '{pipeline.arn}' has the alias '{alias}'.")
        number = pipeline.body["_aliases"][alias]
    version = call.find(_version_ref(pipeline, f"{pipeline.body['_id']}.{number}"))
    if version is None:
        raise ServiceError("ResourceNotFound", f"Version {number} of pipeline '{pipeline.arn}' does not exist.")
    return version


def _name_version(pipeline: Document, number: int, aliases: list[str]) -> None:
    """Has aliases name a version; each names one."""
    if aliases:
        pipeline.body["_aliases"] = pipeline.body.get("_aliases", {}) | dict.fromkeys(aliases, number)
        if len([alias for alias, named in pipeline.body["_aliases"].items() if named == number]) > MAX_ALIASES:
            raise invalid(f"A pipeline version can have at most {MAX_ALIASES} aliases.")


def _shown_aliases(pipeline: Document, version: Document) -> dict[str, list[str]]:
    number = version.body["PipelineVersionId"]
    found = [alias for alias, named in pipeline.body.get("_aliases", {}).items() if named == number]
    return {"PipelineVersionAliases": found} if found else {}


def _version_ref(near: Document, name: str) -> Ref:
    return Ref(VERSION.kind, near.account, near.region, name)


def _executions(call: Call, pipeline: Document, limit: int = 100_000) -> list[Document]:
    """The pipeline's executions, newest first."""
    query = Query(
        kind=EXECUTION.kind,
        account=call.account,
        region=call.region,
        parent=pipeline.name,
        descending=True,
        limit=limit,
    )
    return call.app.store.page(query)


def _parameter_values(call: Call, definition: Definition) -> dict[str, Any]:
    given: dict[str, str] = {}
    for parameter in call.params.get("PipelineParameters", []):
        if parameter["Name"] in given:
            raise invalid(f"Duplicate parameter name '{parameter['Name']}'.")
        given[parameter["Name"]] = parameter["Value"]
    try:
        return definition.values(given)
    except Malformed as fault:
        raise invalid(str(fault)) from None


def _execution_body(call: Call, pipeline: Document, version: Document) -> dict[str, Any]:
    body = {
        "PipelineArn": pipeline.arn,
        "PipelineExecutionDisplayName": f"execution-{int(call.now * 1000)}",
        "PipelineVersionId": version.body["PipelineVersionId"],
        "CreatedBy": author(call),
        "LastModifiedBy": author(call),
        "RoleArn": call.params.get("RoleArn", pipeline.body.get("RoleArn")),
        "_pipeline": pipeline.name,
        "_version": version.name,
        "_steps": {},
        "_begun": 0,
        **_shown_aliases(pipeline, version),
    }
    if "ParallelismConfiguration" in pipeline.body:
        body["ParallelismConfiguration"] = pipeline.body["ParallelismConfiguration"]
    given = ("PipelineExecutionDisplayName", "PipelineExecutionDescription", "ParallelismConfiguration")
    return body | {name: call.params[name] for name in given if name in call.params}


def _resolve_config(call: Call, execution: Document, member: str, given: dict[str, Any] | None) -> None:
    if given is None:
        return
    try:
        config = resolve(given, StartScope(call, execution))
    except Unresolved as why:
        raise invalid(f"{member}: {why}") from None
    execution.body[member] = {name: to_text(value) for name, value in config.items()}
