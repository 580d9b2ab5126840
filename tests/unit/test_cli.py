"""What the command line says, without a server."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError
from rich.console import Console

from penstock import Refused, cli, server
from penstock.cli import checks, costs, dag, demo, executions, family, faults, images, logs, pipelines, plan, world
from penstock.cli.clients import Unanswered
from penstock.cli.screen import screen, theirs
from penstock.kernel.errors import ServiceError
from penstock.runs.base import RunSpec
from penstock.runs.folder import Order, RunFolder, Setup
from penstock.services.sagemaker import orders
from penstock.settings import Settings
from penstock.store.records import Document


def penstock(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "100"} | environ)


@pytest.mark.parametrize("command", ["", "demo", "up", "exec", "down"])
def test_help_shows_no_type_beside_a_flag(command: str) -> None:
    shown = penstock(*command.split(), "--help").stdout
    assert "--help" in shown
    assert "bool" not in shown


def test_help_breaks_no_line_where_the_source_does() -> None:
    shown = penstock("explain", "--help", COLUMNS="80").stdout.splitlines()
    paragraph = shown[next(n for n, line in enumerate(shown) if line.strip().startswith("hit:")) :]
    paragraph = [line.strip() for line in paragraph[: next(n for n, line in enumerate(paragraph) if not line.strip())]]
    for line, following in pairwise(paragraph):
        assert len(line) + 1 + len(following.split()[0]) > 78, line


def test_help_names_where_the_data_folder_comes_from() -> None:
    assert "PENSTOCK_DATA" in penstock("demo", "--help").stdout


def test_doctor_says_that_a_port_is_taken_and_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = {check.name: check for check in checks.examine(Settings(data=tmp_path, port=port, doorway_port=0))}
    assert found["ports"].state == "bad"
    assert found["ports"].sentence.endswith(f" listens on 127.0.0.1:{port}.")
    assert "--port 0" in found["ports"].remedy


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(128 + signal.SIGTERM)], ids=["ctrl-c", "sigterm"])
def test_who_stops_looking_is_told_that_the_execution_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stop: BaseException
) -> None:
    def interrupted(*_: Any) -> None:
        raise stop

    monkeypatch.setattr(pipelines.dag, "follow", interrupted)
    with pytest.raises(type(stop)):
        pipelines.follow(None, "arn:p/execution/x", False)  # type: ignore[arg-type]
    assert "The execution goes on" in capsys.readouterr().out


def test_a_reason_with_brackets_is_printed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "ClientError: KeyError: ['churn'] [/not markup] [red]"
    monkeypatch.setattr(pipelines.dag, "follow", lambda *_: {"FailureReason": reason})
    pipelines.follow(None, "arn:p/execution/x", False)  # type: ignore[arg-type]
    assert reason in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


ARN = "arn:aws:sagemaker:us-east-1:111122223333:pipeline/churn/execution/abcdefghijkl"


@pytest.mark.parametrize("as_json", [False, True], ids=["drawn", "json"])
@pytest.mark.parametrize("fault", [EndpointConnectionError, ConnectionClosedError])
def test_a_server_that_goes_away_is_told_in_a_sentence_with_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: Any, as_json: bool
) -> None:
    def gone(*_: Any) -> None:
        raise fault(endpoint_url="http://127.0.0.1:1")

    monkeypatch.setattr(dag, "follow", gone)
    monkeypatch.setattr(dag, "View", gone)
    monkeypatch.setattr(cli, "get_command", lambda _: lambda: pipelines.follow(None, ARN, as_json))  # type: ignore[arg-type]
    monkeypatch.setattr(cli, "put_help_right", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["penstock", "run"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == Unanswered.code == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    for word in ("the server is not answering", ARN, "penstock up`", "penstock logs abcdefghijkl`"):
        assert word in told
    page = (Path(cli.__file__).parents[3] / "docs" / "cli.md").read_text()
    assert "3 the server stopped answering" in " ".join(page.split())


class Answers:
    """Clients whose operations answer what they are given."""

    def __init__(self, **answers: Any):
        self.answers = answers
        self.exceptions = type("exceptions", (), {"ClientError": ClientError})

    def __getitem__(self, service: str) -> Answers:
        return self

    def __getattr__(self, operation: str) -> Any:
        def call(**_: Any) -> Any:
            answer = self.answers.get(operation)
            if answer is None:
                raise ClientError({"Error": {"Code": "ValidationException", "Message": "Unknown parameter 'Rws'"}}, operation)
            return answer

        return call

    def every(self, service: str, operation: str, **_: Any) -> Any:
        return iter(self.answers[operation])


def test_an_unknown_parameter_is_told_with_those_there_are() -> None:
    text = '{"Parameters": [{"Name": "Rows"}, {"Name": "Depth"}]}'
    clients: Any = Answers(describe_pipeline={"PipelineDefinition": text})
    with pytest.raises(cli.Refused, match=r"Unknown parameter 'Rws'\. churn has Rows, Depth\."):
        pipelines.start(clients, "churn", [{"Name": "Rws", "Value": "1"}])


TRIALS = [{"TrainingJobName": "tune-001"}, {"TrainingJobName": "tune-002"}]


def test_the_logs_of_a_tuning_step_and_job_are_those_of_its_training_jobs() -> None:
    arn = "arn:aws:sagemaker:us-east-1:111122223333:hyper-parameter-tuning-job/tune"
    clients: Any = Answers(
        describe_pipeline_execution={"PipelineExecutionStatus": "Succeeded"},
        list_pipeline_execution_steps=[{"StepName": "Tune", "Metadata": {"TuningJob": {"Arn": arn}}}],
        list_training_jobs_for_hyper_parameter_tuning_job=TRIALS,
        describe_hyper_parameter_tuning_job={"HyperParameterTuningJobStatus": "InProgress"},
    )
    for step in ("Tune", None):
        found = logs.logs_of(clients, ARN, step)
        assert found.over
        assert [log.label for log in found.logs] == ["Tune: tune-001", "Tune: tune-002"]
    found = logs.logs_named(clients, "tune")
    assert not found.over
    assert [(log.label, log.job) for log in found.logs] == [("tune-001", "tune-001"), ("tune-002", "tune-002")]


@pytest.mark.parametrize(
    ("status", "told"),
    [("Failed", "ended without a log. Train: ClientError: no such image"), ("Executing", "has written no log yet")],
)
def test_without_a_log_it_is_told_what_failed(capsys: pytest.CaptureFixture[str], status: str, told: str) -> None:
    steps = [{"StepName": "Train", "FailureReason": "ClientError: no such image"}] if status == "Failed" else []
    clients: Any = Answers(
        describe_pipeline_execution={"PipelineExecutionStatus": status}, list_pipeline_execution_steps=steps
    )
    logs.read(clients, logs.Reader(clients, False), ARN, None, False)
    assert capsys.readouterr().err == f"penstock: {ARN} {told}\n"


def test_a_cached_step_is_shown_as_cached() -> None:
    view = dag.View.__new__(dag.View)
    view.arn, view.execution = ARN, {"PipelineExecutionStatus": "Succeeded"}
    hit = {"StepStatus": "Succeeded", "CacheHitResult": {"SourcePipelineExecutionArn": ARN}}
    view.nodes = [dag.Node("A", "Training", 0, shown=hit), dag.Node("B", "Training", 0, shown={"StepStatus": "Succeeded"})]
    assert [step["Cached"] for step in dag.summary(view)["Steps"]] == [True, False]
    shown = Console(width=120, file=io.StringIO(), record=True)
    shown.print(view.draw())
    assert [line.count("(cached)") for line in shown.export_text().splitlines()] == [0, 1, 0]


def test_a_long_reason_takes_nothing_of_the_steps_and_is_told_whole_below() -> None:
    reason = "ClientError: AlgorithmError: See job logs for more information [1] " + "why " * 30
    view = dag.View.__new__(dag.View)
    view.arn, view.execution = ARN, {"PipelineExecutionStatus": "Failed"}
    view.nodes = [
        dag.Node("PreprocessTheRawData", "Processing", 0, shown={"StepStatus": "Succeeded"}, last_line="x" * 150),
        dag.Node("TrainModel", "Training", 0, shown={"StepStatus": "Failed", "FailureReason": reason}),
    ]
    shown = Console(width=80, file=io.StringIO(), record=True)
    shown.print(view.draw())
    dag.tell_reasons(view, shown)
    lines = shown.export_text().splitlines()
    assert "PreprocessTheRawData  Processing  Succeeded" in lines[1]
    assert re.search(r"✘  TrainModel +Training +Failed +ClientError: .*…", lines[2])
    assert len(lines[2]) <= 80
    assert lines[3:] == [f"✘ TrainModel: {reason}"]


def test_no_name_of_an_image_is_broken() -> None:
    name = "sagemaker-" + "x" * 120 + ":1"
    rows = [["image", "state"], [name, "ready"]]
    assert images.lines(rows, aligned=False) == ["image\tstate", f"{name}\tready"]
    assert images.lines(rows, aligned=True)[1] == f"{name}  ready"
    assert images.lines(rows, aligned=True)[0].index("state") == len(name) + 2


def test_commands_are_told_as_they_can_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / ".venv" / "bin" / "penstock"
    program.parent.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(program.parent / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert world.typed("up") == f"{program.parent / 'python'} -m penstock up"
    program.write_text("")
    program.chmod(0o755)
    assert world.typed("up") == ".venv/bin/penstock up"
    monkeypatch.setenv("PATH", str(program.parent))
    assert world.typed("up") == "penstock up"
    elsewhere = Settings(data=tmp_path / "my data")
    assert world.typed("logs", elsewhere) == f"penstock logs --data '{tmp_path}/my data'"
    monkeypatch.setenv("PENSTOCK_DATA", str(elsewhere.data))
    assert world.typed("logs", elsewhere) == "penstock logs"


def test_hints_name_the_data_folder_that_was_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path)
    monkeypatch.setattr(pipelines.dag, "follow", lambda *_: {"FailureReason": "so"})
    pipelines.follow(None, ARN, False, settings)  # type: ignore[arg-type]
    assert f"penstock logs --data {tmp_path} abcdefghijkl" in capsys.readouterr().out
    out = Console(file=io.StringIO(), record=True, width=200)
    demo.tell_next(settings, ARN, {"Seconds": 1}, out)
    assert f"penstock exec --data {tmp_path} -- aws" in out.export_text()


def test_a_taken_port_is_told_with_the_one_command_that_takes_free_ones(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, data = taken.getsockname()[1], str(tmp_path)
        told = penstock("up", "--detach", "--port", "0", "--doorway-port", str(port), "--data", data).stderr
        up = f"up --data {data}"
        assert f"{up} --port 0`; ports of your choice: `" in told
        assert f"{up} --port N --doorway-port M`" in told


def test_a_free_port_of_the_api_comes_with_a_free_one_of_the_doorway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def start(settings: Settings, **_: Any) -> dict[str, Any]:
        asked.append((settings.port, settings.doorway_port))
        return {}

    monkeypatch.setattr(world, "ensure_up", start)
    monkeypatch.setattr(family, "show", lambda *_, **__: None)
    monkeypatch.delenv("PENSTOCK_DOORWAY_PORT", raising=False)
    for doorway in (None, 4700):
        family.up(data=tmp_path, port=0, doorway_port=doorway, detach=True)
    monkeypatch.setenv("PENSTOCK_DOORWAY_PORT", "4800")
    family.up(data=tmp_path, port=0, detach=True)
    assert asked == [(0, 0), (0, 4700), (0, 4800)]


@pytest.mark.parametrize(("result", "suggested"), [({}, False), ({"ModelPackageArn": "arn:x"}, True)])
def test_a_shut_gate_does_not_suggest_itself(result: dict[str, Any], suggested: bool) -> None:
    out = Console(file=io.StringIO(), record=True, width=200)
    demo.tell_next(Settings(), ARN, {"Seconds": 1, **result}, out)
    assert ("--threshold 0.999" in out.export_text()) is suggested


def test_an_unknown_image_is_told_once(tmp_path: Path) -> None:
    call: Any = SimpleNamespace(app=SimpleNamespace(images=server.images_of(Settings(data=tmp_path))))
    with pytest.raises(ServiceError) as refused:
        orders.check_image(call, "nothing:1")
    assert refused.value.message.startswith("Requested image nothing:1 not found. ")
    assert "No environment is known" not in refused.value.message
    assert "Bring your own: penstock image add nothing:1 " in refused.value.message


def test_a_tab_of_a_log_is_a_gap_in_the_live_view() -> None:
    view = dag.View.__new__(dag.View)
    assert view._remark(dag.Node("a", "Training", 0, last_line="[9]#011train-auc:0.9")) == "[9]  train-auc:0.9"


LISTED = {
    "list_pipelines": [{"PipelineName": "churn"}, {"PipelineName": "demand"}],
    "list_pipeline_executions": [
        {
            "PipelineExecutionArn": f"arn:x/execution/{name}", "PipelineExecutionStatus": status,
            "StartTime": datetime(2026, 11, day, tzinfo=UTC),
        }
        for name, status, day in (("old", "Failed", 1), ("new", "Executing", 3), ("mid", "Succeeded", 2))
    ],
}  # fmt: skip


def test_a_program_reads_rows_between_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    images.show_rows([["execution", "status"], ["abc", "Failed"]], [None, "red"])
    assert capsys.readouterr().out == "execution\tstatus\nabc\tFailed\n"


def test_executions_are_listed_newest_first_by_pipeline_and_status() -> None:
    clients: Any = Answers(**LISTED)
    ids = [each["PipelineExecutionArn"].rpartition("/")[2] for each in executions.find(clients, "churn")]
    assert ids == ["new", "mid", "old"]
    assert len(executions.find(clients, None)) == 6
    assert [each["PipelineName"] for each in executions.find(clients, "demand", "Failed")] == ["demand"]


@pytest.mark.parametrize(("pipeline", "status", "told"), [("chrun", None, "churn, demand"), (None, "Running", "Executing")])
def test_what_no_execution_can_be_is_told_with_what_there_is(pipeline: str | None, status: str | None, told: str) -> None:
    clients: Any = Answers(**LISTED)
    with pytest.raises(cli.Refused, match=told):
        executions.find(clients, pipeline, status)


def test_whose_token_is_waited_for_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = {"StepName": "Ask", "StepStatus": "Executing", "Metadata": {"Callback": {"CallbackToken": "abc"}}}
    answered = {**waiting, "StepName": "Asked", "StepStatus": "Succeeded"}
    clients: Any = Answers(
        describe_pipeline_execution={"PipelineExecutionStatus": "Stopping"}, list_pipeline_execution_steps=[waiting, answered]
    )
    logs.read(clients, logs.Reader(clients, False), ARN, None, False)
    told = capsys.readouterr().err
    assert "Ask waits for its token: " in told
    assert told.count("--callback-token abc") == 1
    assert "Asked" not in told


def test_a_step_that_the_pipeline_has_not_is_refused_while_it_runs() -> None:
    definition = json.dumps({"Steps": [{"Name": "Train", "Type": "Training", "Arguments": {}}]})
    clients: Any = Answers(
        describe_pipeline_execution={"PipelineExecutionStatus": "Executing"}, list_pipeline_execution_steps=[],
        describe_pipeline_definition_for_execution={"PipelineDefinition": definition},
    )  # fmt: skip
    assert logs.logs_of(clients, ARN, "Train").logs == []
    with pytest.raises(cli.Refused, match="no step 'Nope'; it has Train"):
        logs.logs_of(clients, ARN, "Nope")


def test_the_log_of_a_function_is_its_groups() -> None:
    clients: Any = Answers(get_function_configuration={"FunctionName": "sum"})
    assert logs.logs_named(clients, "sum").logs == [logs.Log("", "/aws/lambda/sum", "")]
    with pytest.raises(cli.Refused, match="no function, is called 'sum'"):
        logs.logs_named(Answers(), "sum")  # type: ignore[arg-type]


def test_a_line_that_goes_on_with_another_is_not_the_last() -> None:
    assert dag.last_line(["done", "/x.py:3: UserWarning: old", "  warnings.warn(", "#011more", ""]) == "/x.py:3: UserWarning: old"
    assert dag.last_line(["  all", "  blank"]) == "blank"


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    for command in (executions.executions, lambda data: logs.logs("x", data=data), lambda data: faults.list_(data=data)):
        with pytest.raises(cli.Refused, match="There is no data folder"):
            command(data=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_line_is_broken_in_no_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    screen().print("word " * 100)
    assert len(capsys.readouterr().out.splitlines()) == 1


PLANNED = {
    "pipeline": "p", "version": 1, "cache": "on", "parameters": {}, "usd": 0.0, "usd_most": 0.0, "unknown": [], "unpriced": [],
    "prices": "of today",
    "steps": [
        {
            "step": "AStepWhoseNameIsRatherLong", "type": "Training", "after": ["PreprocessEverything", "AnotherOne"], "expected": "runs",
            "why": "so", "reached": False, "jobs": 1, "uses": [{"instances": 1, "instance_type": "ml.m5.24xlarge"}], "last_s": 3.0,
            "usd": 0.5,
        }
    ],
}  # fmt: skip


def test_the_names_of_a_plan_are_whole_at_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Console(width=80, file=io.StringIO(), record=True)
    monkeypatch.setattr(plan, "console", shown)
    plan._draw(PLANNED)
    told = shown.export_text()
    assert "? AStepWhoseNameIsRatherLong" in told
    assert "…" not in told
    assert "decided later" in told
    assert "(after PreprocessEverything, AnotherOne; instances 1 x ml.m5.24xlarge)" in told
    for words in ("Training", "runs", "3 s", "$0.50"):
        assert words in told.splitlines()[2]


def test_a_file_that_is_no_script_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# no")
    with pytest.raises(cli.Refused, match=r"does not end in \.py"):
        pipelines.run_script(Settings(data=tmp_path), {}, tmp_path / "README.md", None, "python", True)


def test_a_fault_is_listed_with_its_times() -> None:
    body = {"Fault": "spot-interruption", "Target": "Train", "Left": 1, "After": 2.5, "Gap": 3.0}
    told = faults._tell(Document(kind="", account="", region="", name="abc", body=body))
    assert told.endswith("1 more, after 2.5 s, capacity again after 3 s")


def test_a_bill_of_nothing_shows_no_prices(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"status": "Succeeded", "usd": 0.0, "unknown": [], "prices": "of today", "steps": [{"jobs": []}]}
    costs.print_total(told)
    assert "of today" not in capsys.readouterr().out
    costs.print_total({**told, "steps": [{"jobs": [{"uses": [{}]}]}]})
    assert "seconds are those of this machine" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["pip install 'penstock[docker]'.", "[/bold] [red]x[/red]", "ends in \\"])
def test_other_peoples_text_is_shown_as_it_is(text: str) -> None:
    shown = Console(width=200, file=io.StringIO(), record=True)
    shown.print(f"[bold]{theirs(text)}[/bold] [dim]end[/dim]")
    assert shown.export_text() == f"{text} end\n"


def test_doctor_shows_a_remedy_with_its_brackets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [checks.Check("docker", "poor", "No [docker].", "pip install 'penstock[docker]'.")]
    monkeypatch.setattr(checks, "examine", lambda settings: found)
    with pytest.raises(cli.typer.Exit):
        family.doctor(data=None, as_json=False)
    told = capsys.readouterr().out
    assert "No [docker]." in told
    assert "pip install 'penstock[docker]'." in told


def test_folders_images_and_steps_with_brackets_are_named_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"account": "1", "access_key_id": "A", "role_arn": "arn", "proxy_token": ""}
    monkeypatch.setattr(world, "credentials", lambda settings: keys)
    family.show({"url": "http://x"}, Settings(data=Path("/tmp/[dim]here")), as_json=False)
    job = {"job": "arn:x/[dim]job", "uses": [{"instances": 1, "instance_type": "ml.[dim]", "ran_s": 1, "billable_s": 1, "usd": 1}]}
    step = {"step": "a[dim]step", "cached": False, "usd": 1.0, "status": "Succeeded", "jobs": [job]}
    told = {"status": "Succeeded", "usd": 1.0, "unknown": ["ml.[dim]"], "prices": "of today", "steps": [step]}
    monkeypatch.setattr(world, "listing", lambda data: (Settings(), {}))
    monkeypatch.setattr(costs, "billed", lambda settings, execution: told)
    costs.cost("x")
    monkeypatch.setattr(server, "images_of", lambda settings: SimpleNamespace(pull=lambda uri, tell: SimpleNamespace(note=uri)))
    images.pull(["an[dim]image"])
    printed = capsys.readouterr().out
    for text in ("/tmp/[dim]here", "[dim]job", "ml.[dim],", "a[dim]step", "price for ml.[dim]", "an[dim]image"):
        assert text in printed


def test_a_program_hears_of_images_in_json_and_a_person_of_the_work_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pull(uri: str, tell: Any) -> Any:
        tell("working")
        return SimpleNamespace(note=f"{uri} is ready")

    monkeypatch.setattr(server, "images_of", lambda settings: SimpleNamespace(pull=pull, add=lambda uri, **given: None))
    images.pull(["a:1", "b:2"], as_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [{"uri": "a:1", "note": "a:1 is ready"}, {"uri": "b:2", "note": "b:2 is ready"}]
    (tmp_path / "requirements.txt").write_text("numpy")
    images.add("mine:1", tmp_path / "requirements.txt", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"uri": "mine:1"}

    class Build:
        def __init__(self, workshop: Any, folder: Path, file: Path, given: Any, tell: Any):
            tell("STEP 1")

        def make(self, tag: str) -> Any:
            return SimpleNamespace(layers=["x"], size_bytes=7)

    (tmp_path / "Dockerfile").write_text("FROM python")
    monkeypatch.setattr(world, "ensure_up", lambda settings, quiet: {})
    monkeypatch.setattr(images, "_workshop", lambda settings, fresh: None)
    monkeypatch.setattr(images, "Build", Build)
    images.build(tmp_path, "mine:2", as_json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"uri": "mine:2", "layers": 1, "size_bytes": 7}
    assert "STEP 1" in printed.err


def test_a_warm_worker_is_no_job_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    for name, share in (("job", "jobs"), ("worker", "functions")):
        RunFolder(tmp_path / "runs" / name).create(Order(RunSpec(name=name, share=share), Setup(bwrap=""), 1))
    monkeypatch.setattr(family, "goes_on", lambda _: True)
    assert family.runs_that_go_on(Settings(data=tmp_path)) == 1


class Listed:
    """Stands for the clients: pipelines by name, and when they were written."""

    def __init__(self, **pipelines: float):
        self.pipelines = pipelines

    def every(self, service: str, operation: str) -> list[dict[str, Any]]:
        assert (service, operation) == ("sagemaker", "list_pipelines")
        return [{"PipelineName": name, "LastModifiedTime": datetime.fromtimestamp(at, UTC)} for name, at in self.pipelines.items()]


@pytest.mark.parametrize(
    ("there", "text", "found"),
    [
        ({"old": 1, "new": 9}, "", "new"),
        ({"mine": 1, "mine-too": 1}, 'create_pipeline(PipelineName="mine")', "mine"),
    ],
)
def test_a_script_that_changes_no_pipeline_means_the_one_that_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: dict[str, float], text: str, found: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(text)
    clients: Any = Listed(**there)
    assert pipelines.only_upserted(clients, 5.0, script) == found
    assert ("changed no pipeline" in capsys.readouterr().err) is (found == "mine")


@pytest.mark.parametrize(
    ("there", "text", "told"),
    [
        ({"mine": 1, "other": 1}, "mine, other", "--pipeline: mine, other"),
        ({"mine": 1}, "nothing", "--pipeline: mine"),
        ({}, "nothing", "started none.$"),
        ({"a": 9, "b": 9}, "", "upserted a, b"),
    ],
)
def test_which_pipeline_is_meant_is_asked_where_it_is_not_plain(tmp_path: Path, there: dict[str, float], text: str, told: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(text)
    clients: Any = Listed(**there)
    with pytest.raises(Refused, match=told):
        pipelines.only_upserted(clients, 5.0, script)
