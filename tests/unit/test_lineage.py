"""Lineage: entities, associations and queries, and what is entered for the jobs of a pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from penstock.services.sagemaker import costs
from penstock.services.sagemaker.experiments.state import COMPONENT
from penstock.services.sagemaker.lineage import entities
from penstock.services.sagemaker.lineage.state import FORGOTTEN
from penstock.services.sagemaker.pipelines import bills
from penstock.services.sagemaker.pipelines.state import ENDED, EXECUTION
from penstock.store.records import Change, Document, Points, Query
from tests.conftest import World
from tests.refusals import refusal
from tests.unit.test_jobs_engine import Jobs, made, result
from tests.unit.test_jobs_engine import channel as laid
from tests.unit.test_pipeline_cache import BUCKET, channel, put, training
from tests.unit.test_pipeline_engine import Works, count_reads, pipeline, processing, works

__all__ = ["made", "works"]
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(world: World) -> Ask:
    return lambda operation, **params: world("sagemaker", operation, **params)


def make(ask: Ask, name: str, kind: str = "DataSet") -> str:
    return str(ask("CreateArtifact", ArtifactName=name, Source={"SourceUri": f"s3://b/{name}"}, ArtifactType=kind)["ArtifactArn"])


def chain(ask: Ask, *arns: str) -> None:
    for source, destination in itertools.pairwise(arns):
        ask("AddAssociation", SourceArn=source, DestinationArn=destination, AssociationType="ContributedTo")


def names(answer: dict[str, Any]) -> set[str]:
    return {vertex["Arn"] for vertex in answer["Vertices"]}


# --- entities


@pytest.mark.parametrize("noun", ["Action", "Context"])
def test_what_is_named_is_made_changed_listed_and_deleted(ask: Ask, noun: str) -> None:
    source = {"SourceUri": "s3://b/x", "SourceType": "S3"}
    given = {f"{noun}Name": "one", f"{noun}Type": "Made", "Source": source, "Properties": {"a": "1", "b": "2"}}
    arn = ask(f"Create{noun}", **given)[f"{noun}Arn"]
    assert arn.endswith(f"{noun.lower()}/one")
    code, told = refusal(lambda: ask(f"Create{noun}", **given))
    assert (code, "already exists" in told) == ("ValidationException", True)
    ask(f"Update{noun}", **{f"{noun}Name": "one", "Description": "d", "Properties": {"a": "3"}, "PropertiesToRemove": ["b"]})
    shown = ask(f"Describe{noun}", **{f"{noun}Name": "one"})
    assert (shown["Description"], shown["Properties"], shown["Source"]) == ("d", {"a": "3"}, source)
    assert [each[f"{noun}Arn"] for each in ask(f"List{noun}s", SourceUri="s3://b/x")[f"{noun}Summaries"]] == [arn]
    assert ask(f"List{noun}s", **{f"{noun}Type": "Other"})[f"{noun}Summaries"] == []
    assert ask(f"Delete{noun}", **{f"{noun}Name": "one"}) == {f"{noun}Arn": arn}
    assert refusal(lambda: ask(f"Describe{noun}", **{f"{noun}Name": "one"})) == (
        "ResourceNotFound", f"{noun} '{arn}' does not exist.",
    )  # fmt: skip


def test_there_is_one_artifact_for_a_source(ask: Ask) -> None:
    first, again, other = make(ask, "a"), make(ask, "a"), make(ask, "b")
    assert (first == again, first == other) == (True, False)
    assert [each["ArtifactArn"] for each in ask("ListArtifacts", SourceUri="s3://b/a")["ArtifactSummaries"]] == [first]
    assert ask("DeleteArtifact", Source={"SourceUri": "s3://b/a"}) == {"ArtifactArn": first}
    assert refusal(lambda: ask("DescribeArtifact", ArtifactArn=first))[0] == "ResourceNotFound"
    assert refusal(lambda: ask("DeleteArtifact"))[0] == "ValidationException"


def test_associations_are_listed_by_either_end_and_go_with_what_they_associate(ask: Ask) -> None:
    a, b, c = make(ask, "a"), make(ask, "b", "Model"), make(ask, "c")
    chain(ask, a, b, c)
    (one,) = ask("ListAssociations", SourceArn=a)["AssociationSummaries"]
    assert (one["DestinationArn"], one["SourceType"], one["DestinationType"], one["AssociationType"], one["SourceName"]) == (
        b, "DataSet", "Model", "ContributedTo", "a",
    )  # fmt: skip
    assert [each["SourceArn"] for each in ask("ListAssociations", DestinationArn=c)["AssociationSummaries"]] == [b]
    assert ask("ListAssociations", DestinationType="Image")["AssociationSummaries"] == []
    assert ask("DeleteAssociation", SourceArn=a, DestinationArn=b) == {"SourceArn": a, "DestinationArn": b}
    assert refusal(lambda: ask("DeleteAssociation", SourceArn=a, DestinationArn=b))[0] == "ResourceNotFound"
    ask("DeleteArtifact", ArtifactArn=b)
    assert ask("ListAssociations")["AssociationSummaries"] == []


def test_no_association_of_many_is_left_out(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entities, "PAGE", 2)
    hub = make(ask, "hub")
    others = [make(ask, f"n{number}") for number in range(5)]
    for other in others:
        chain(ask, hub, other)
    assert names(ask("QueryLineage", StartArns=[hub], Direction="Descendants")) == set(others)
    for order in ({}, {"SortBy": "DestinationArn"}, {"DestinationType": "DataSet"}):
        listed, token = [], {}
        while True:
            page = ask("ListAssociations", SourceArn=hub, MaxResults=3, **order, **token)
            listed += [each["DestinationArn"] for each in page["AssociationSummaries"]]
            if "NextToken" not in page:
                break
            token = {"NextToken": page["NextToken"]}
        assert sorted(listed) == sorted(others)
    assert listed == others[::-1], "the newest first"


def test_the_associations_of_a_deleted_entity_go_slice_by_slice_and_those_of_its_successor_stay(
    world: World, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entities, "SLICE", 2)
    hub, others = make(ask, "hub"), [make(ask, f"n{number}") for number in range(5)]
    for other in others:
        chain(ask, hub, other)
    ask("DeleteArtifact", ArtifactArn=hub)
    (left,) = world.app.store.page(Query(kind=FORGOTTEN))
    assert make(ask, "hub") == hub
    for other in others:  # some are there still, of the one that was deleted
        chain(ask, hub, other)
    while world.step(left) is not None:
        pass
    assert len(ask("ListAssociations", SourceArn=hub)["AssociationSummaries"]) == 5
    assert world.app.store.page(Query(kind=FORGOTTEN)) == []
    ask("DeleteArtifact", ArtifactArn=hub)
    (left,) = world.app.store.page(Query(kind=FORGOTTEN))
    while world.step(left) is not None:
        pass
    assert ask("ListAssociations")["AssociationSummaries"] == []


def test_what_is_not_there_cannot_be_associated(ask: Ask) -> None:
    a = make(ask, "a")
    absent = a[:-4] + "0000"
    assert refusal(lambda: chain(ask, a, absent)) == ("ResourceNotFound", f"The lineage entity '{absent}' does not exist.")


# --- queries


def test_a_query_goes_up_down_or_both_ways_as_deep_as_it_is_told(ask: Ask) -> None:
    a, b, c, d, beside = (make(ask, name) for name in "abcde")
    chain(ask, a, b, c, d)
    chain(ask, beside, c)
    assert names(ask("QueryLineage", StartArns=[b], Direction="Ascendants")) == {a}
    assert names(ask("QueryLineage", StartArns=[b], Direction="Descendants")) == {c, d}
    assert names(ask("QueryLineage", StartArns=[b], Direction="Descendants", MaxDepth=1)) == {c}
    both = ask("QueryLineage", StartArns=[b], Direction="Both", IncludeEdges=True)
    assert names(both) == {a, b, c, d}, "what else contributed to c is neither; the start is one, with edges"
    assert len(both["Edges"]) == 3
    assert ask("QueryLineage", StartArns=[b], IncludeEdges=False)["Edges"] == []
    chain(ask, d, a)
    assert names(ask("QueryLineage", StartArns=[a], Direction="Descendants")) == {b, c, d}, "a circle is gone round once"


def test_a_query_keeps_what_its_filters_want(ask: Ask) -> None:
    a, b, c = make(ask, "a"), make(ask, "b", "Model"), make(ask, "c")
    chain(ask, a, b, c)
    kept = ask("QueryLineage", StartArns=[a], Filters={"Types": ["Model"]}, IncludeEdges=True)
    assert kept["Vertices"] == [{"Arn": b, "Type": "Model", "LineageType": "Artifact"}]
    assert ask("QueryLineage", StartArns=[a], Filters={"LineageTypes": ["Action"]})["Vertices"] == []
    assert ask("QueryLineage", StartArns=[a], Filters={"Properties": {"x": "1"}})["Vertices"] == []
    assert ask("QueryLineage", StartArns=[a], Filters={"CreatedBefore": 1.0})["Vertices"] == []
    assert refusal(lambda: ask("QueryLineage", StartArns=[a[:-4] + "0000"]))[0] == "ResourceNotFound"
    assert refusal(lambda: ask("QueryLineage"))[0] == "ValidationException"


def test_a_query_is_paged(ask: Ask) -> None:
    hub = make(ask, "hub")
    for number in range(5):
        chain(ask, hub, make(ask, f"n{number}"))
    first = ask("QueryLineage", StartArns=[hub], MaxResults=3)
    second = ask("QueryLineage", StartArns=[hub], MaxResults=3, NextToken=first["NextToken"])
    assert (len(first["Vertices"]), len(second["Vertices"]), len(names(first) | names(second))) == (3, 2, 5)


# --- what pipelines enter


def test_the_jobs_of_an_execution_are_entered_when_it_has_ended(works: Works) -> None:
    data = put(works, "data.csv", b"1")
    step = training("Train", InputDataConfig=[channel(data)], HyperParameters={"eta": "0.1"})
    works.create(pipeline(step))
    arn = works.start()
    works.look(arn)
    assert works("ListArtifacts")["ArtifactSummaries"] == []
    model = f"s3://{BUCKET}/models/m/output/model.tar.gz"
    works.end(arn, "Train", ModelArtifacts={"S3ModelArtifacts": model}, TrainingStartTime=1.0, TrainingEndTime=2.0)
    job = works.job(arn, "Train")
    (summary,) = works("ListTrialComponents", SourceArn=job.arn)["TrialComponentSummaries"]
    assert summary["TrialComponentName"] == f"{job.name}-aws-training-job"
    told = works("DescribeTrialComponent", TrialComponentName=summary["TrialComponentName"])
    assert told["Parameters"]["eta"] == {"StringValue": "0.1"}
    assert told["InputArtifacts"]["train"] == {"Value": data}
    assert told["OutputArtifacts"]["SageMaker.ModelArtifact"] == {"Value": model}
    component = summary["TrialComponentArn"]
    (made,) = works("ListAssociations", SourceArn=component)["AssociationSummaries"]
    assert (made["AssociationType"], made["SourceType"], made["DestinationType"]) == ("Produced", "SageMakerTrainingJob", "Model")
    given = works("ListAssociations", DestinationArn=component)["AssociationSummaries"]
    assert {(each["SourceType"], each["AssociationType"]) for each in given} == {("DataSet", "ContributedTo"), ("Image", "ContributedTo")}
    (dataset,) = works("ListArtifacts", SourceUri=data)["ArtifactSummaries"]
    down = works("QueryLineage", StartArns=[dataset["ArtifactArn"]], Direction="Descendants")
    assert {(each["Type"], each["LineageType"]) for each in down["Vertices"]} == {("TrainingJob", "TrialComponent"), ("Model", "Artifact")}
    assert works("ListTags", ResourceArn=job.arn)["Tags"] == [{"Key": "sagemaker:pipeline-execution-arn", "Value": arn}]


# --- jobs outside of pipelines
def train(made: Jobs, name: str = "job", **more: Any) -> Document:
    """A training job that has completed, and whose looks are over."""
    document = made.train(name, InputDataConfig=[laid("train", "train/")], **more)
    made.step(document)
    made.runs.say(phase="ended", exit_code=0, started=1.0, ended=2.0, results=[result("model", "", b"m")])
    while made.step(made.document("training-job", name)) is not None:
        pass
    return made.document("training-job", name)


def test_a_job_that_ran_alone_is_entered_once_when_it_has_ended(made: Jobs, ask: Ask) -> None:
    made.put("train/a.csv")
    job = train(made)
    component = ask("DescribeTrialComponent", TrialComponentName="job-aws-training-job")
    assert component["Source"] == {"SourceArn": job.arn, "SourceType": "SageMakerTrainingJob"}
    assert (component["Status"], component["StartTime"], component["EndTime"]) == ({"PrimaryStatus": "Completed"}, 1.0, 2.0)
    around = {
        (each["SourceType"], each["AssociationType"], each["DestinationType"]) for each in ask("ListAssociations")["AssociationSummaries"]
    }
    assert around == {
        ("Image", "ContributedTo", "SageMakerTrainingJob"), ("DataSet", "ContributedTo", "SageMakerTrainingJob"),
        ("SageMakerTrainingJob", "Produced", "Model"),
    }  # fmt: skip
    ask("DeleteTrialComponent", TrialComponentName="job-aws-training-job")
    made.step(job)
    assert ask("ListTrialComponents")["TrialComponentSummaries"] == []


def test_a_job_that_names_a_trial_is_in_it_from_its_creation_on_with_its_metrics(made: Jobs, ask: Ask) -> None:
    made.put("train/a.csv")
    ask("CreateExperiment", ExperimentName="Flowers")
    ask("CreateTrial", TrialName="red", ExperimentName="flowers")
    config = {"ExperimentName": "Flowers", "TrialName": "red", "TrialComponentDisplayName": "Fit"}
    made.train("first", ExperimentConfig=config, Tags=[{"Key": "k", "Value": "v"}])
    (component,) = ask("ListTrialComponents", TrialName="red")["TrialComponentSummaries"]
    assert ask("ListTags", ResourceArn=component["TrialComponentArn"])["Tags"] == []
    assert (component["DisplayName"], component["Status"]["PrimaryStatus"]) == ("Fit", "InProgress")
    made.runs.states.clear()
    job = train(made, "second", ExperimentConfig={"ExperimentName": "Flowers"})
    assert [each["TrialName"] for each in ask("ListTrials", ExperimentName="flowers")["TrialSummaries"]] == ["second", "red"]
    made.world.app.store.commit(Change(rows=[Points(series=f"{job.arn}/loss", points=[(1.0, 0.5, 0.0), (2.0, 0.25, 1.0)])]))
    shown = ask("DescribeTrialComponent", TrialComponentName="second-aws-training-job")
    assert [(one["MetricName"], one["SourceArn"], one["Last"]) for one in shown["Metrics"]] == [("loss", job.arn, 0.25)]
    code, told = refusal(lambda: made.train("third", ExperimentConfig={"ExperimentName": "absent"}))
    assert (code, "absent" in told) == ("ResourceNotFound", True)


# --- model packages
def test_a_package_is_entered_when_it_is_registered_and_at_each_approval(world: World, ask: Ask) -> None:
    ask("CreateModelPackageGroup", ModelPackageGroupName="g")
    container = {"Image": "python:3", "ModelDataUrl": "s3://b/m.tar.gz"}
    specification = {"Containers": [container], "SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["text/csv"]}
    arn = ask("CreateModelPackage", ModelPackageGroupName="g", InferenceSpecification=specification)["ModelPackageArn"]
    (package,) = world.app.store.page(Query(kind="sagemaker.model-package"))
    world.step(package)
    ask("UpdateModelPackage", ModelPackageArn=arn, ModelApprovalStatus="Approved")
    world.step(world.app.store.get(package.ref))
    (model,) = ask("ListArtifacts", SourceUri=arn)["ArtifactSummaries"]
    given = ask("ListAssociations", DestinationArn=model["ArtifactArn"])["AssociationSummaries"]
    assert sorted(each["SourceType"] for each in given) == ["Approval", "Approval", "Image", "Model"]
    (made,) = ask("ListAssociations", SourceArn=model["ArtifactArn"])["AssociationSummaries"]
    assert (made["DestinationType"], made["AssociationType"]) == ("ModelGroup", "AssociatedWith")
    assert {"PendingManualApproval", "Approved"} == {each["ActionName"].split("-")[2] for each in ask("ListActions")["ActionSummaries"]}


# --- executions
def test_what_a_job_read_is_entered_before_the_package_that_holds_it(works: Works) -> None:
    data = put(works, "model.tar.gz", b"1")
    container = {"Image": "python:3", "ModelDataUrl": data}
    arguments = {"ModelPackageGroupName": "g", "InferenceSpecification": {"Containers": [container]}}
    register = {"Name": "Register", "Type": "RegisterModel", "DependsOn": ["Train"], "Arguments": arguments}
    works.create(pipeline(training("Train", InputDataConfig=[channel(data)]), register))
    arn = works.start()
    works.look(arn)
    job = works.job(arn, "Train")
    job.status = job.body["TrainingJobStatus"] = "Completed"
    works.app.store.commit(Change(puts=[job]))
    while works.world.step(works.document(arn)) == 0.0:
        for package in works.app.store.page(Query(kind="sagemaker.model-package")):
            works.world.step(package)
    (artifact,) = works("ListArtifacts", SourceUri=data)["ArtifactSummaries"]
    (package,) = works.app.store.page(Query(kind="sagemaker.model-package"))
    assert artifact["ArtifactType"] == "DataSet"
    assert len(works("ListArtifacts", SourceUri=package.arn)["ArtifactSummaries"]) == 1


def test_lineage_is_entered_once_and_an_execution_that_has_ended_stays_as_it_ended(works: Works) -> None:
    works.create(pipeline(processing("Clean")))
    arn = works.start()
    works.look(arn)
    works.end(arn, "Clean", "Failed", FailureReason="AlgorithmError: x")
    before = works.document(arn)
    count = len(works("ListAssociations")["AssociationSummaries"])
    works.look(arn)
    assert (works.document(arn).version, len(works("ListAssociations")["AssociationSummaries"])) == (before.version, count)
    assert (before.status, count) == ("Failed", 1)


def ended(works: Works, count: int) -> str:
    """An execution of so many steps whose jobs have all ended: only its lineage is not entered yet."""
    works.create(pipeline(*(processing(f"Clean{number}") for number in range(count))))
    arn = works.start()
    works.look(arn)
    jobs = [works.job(arn, f"Clean{number}") for number in range(count)]
    for job in jobs:
        job.status = job.body["ProcessingJobStatus"] = "Completed"
    works.app.store.commit(Change(puts=jobs))
    while works.document(arn).status not in ENDED:
        works.world.step(works.document(arn))
    return arn


def test_the_lineage_of_many_jobs_is_entered_by_a_few_a_look_and_each_is_read_once(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn, step = ended(works, 25), works.app.steps()[EXECUTION.kind]
    read: list[str] = []
    page = works.app.store.page

    def told(query: Query) -> list[Document]:
        found: list[Document] = page(query)
        read.extend(each.name for each in found)
        return found

    monkeypatch.setattr(works.app.store, "page", told)
    looks: list[int] = []
    again: float | None = 0.0
    while again == 0.0:
        for dies in (True, False):  # what a look wanted is lost with the engine: the next does it
            document = works.document(arn)
            call = works.app.step_call(document, 1.0)
            before = len(read)
            again = step(call, document)
            if dies:
                del read[before:]
        looks.append(sum(put.kind == COMPONENT.kind for put in call.change.puts))
        works.app.store.commit(call.change)
    assert (max(looks), sum(looks), again) == (10, 25, None)
    assert len(read) == len(set(read)) == 25
    assert len(works("ListTrialComponents", MaxResults=100)["TrialComponentSummaries"]) == 25
    assert len(works("ListAssociations", MaxResults=100)["AssociationSummaries"]) == 25
    call = works.app.step_call(document := works.document(arn), 2.0)
    assert (step(call, document), bool(call.change)) == (None, False)


def test_a_bill_reads_the_jobs_of_an_execution_once(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = ended(works, 6)
    asked = count_reads(works, monkeypatch)
    assert [len(step["jobs"]) for step in bills.bill(works.app.store, works.document(arn))["steps"]] == [1] * 6
    assert asked.count("page") == 1 + len(costs.KINDS)


def recorded(**arguments: Any) -> dict[str, Any]:
    return {"Name": "Record", "Type": "Lineage", "Arguments": arguments}


def test_a_lineage_step_makes_what_it_asks_for_and_later_steps_read_its_arns(works: Works) -> None:
    action = {"ActionName": {"Get": "Execution.PipelineExecutionId"}, "ActionType": "Training", "Source": {"SourceUri": "s3://b/model"}}
    artifact = {"ArtifactName": "set", "ArtifactType": "DataSet", "Source": {"SourceUri": "s3://b/set"}}
    between = {
        "Source": {"Name": "set", "Type": "Artifact"}, "AssociationType": "ContributedTo",
        "Destination": {"Name": {"Get": "Execution.PipelineExecutionId"}, "Type": "Action"},
    }  # fmt: skip
    told = {"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": {"Get": "Steps.Record.ArtifactArns['set']"}}}
    works.create(pipeline(recorded(Actions=[action], Artifacts=[artifact], Associations=[between]), told))
    arn = works.start()
    works.look(arn)
    step, made = works.steps(arn)["Record"], arn.rpartition("/")[2]
    assert step["StepStatus"] == "Succeeded"
    lineage = step["Metadata"]["Lineage"]
    assert lineage["ActionArns"] == {made: works("DescribeAction", ActionName=made)["ActionArn"]}
    assert works.steps(arn)["Stop"]["FailureReason"] == lineage["ArtifactArns"]["set"]
    (known,) = works("ListAssociations")["AssociationSummaries"]
    assert lineage["Associations"] == [{"SourceArn": known["SourceArn"], "DestinationArn": known["DestinationArn"]}]


def test_a_lineage_step_that_cannot_make_all_makes_nothing(works: Works) -> None:
    artifact = {"ArtifactName": "set", "ArtifactType": "DataSet", "Source": {"SourceUri": "s3://b/set"}}
    absent = {"Source": {"Name": "set", "Type": "Artifact"}, "Destination": {"Name": "nowhere", "Type": "Context"}}
    works.create(pipeline(recorded(Artifacts=[artifact], Associations=[absent])))
    arn = works.start()
    works.look(arn)
    told = works.steps(arn)["Record"]["FailureReason"]
    assert told == "ClientError: The Context 'nowhere' is none of the step's own; one that is there already is named by its Arn."
    assert works("ListArtifacts")["ArtifactSummaries"] == []
    code, told = refusal(lambda: works.create(pipeline(recorded(Models=[])), "Wrong"))
    assert (code, "must be some of Actions, Artifacts, Associations, Contexts" in told) == ("ValidationException", True)
