"""What the command line says, without a server."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.cli import checks, pipelines
from penstock.settings import Settings


def penstock(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "100"} | environ)


@pytest.mark.parametrize("command", ["", "demo", "up", "exec", "down"])
def test_help_shows_no_type_beside_a_flag(command: str) -> None:
    shown = penstock(*command.split(), "--help").stdout
    assert "--help" in shown
    assert "bool" not in shown


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
