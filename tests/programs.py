"""Clients as users have them: environments of their own, started through `penstock exec --`, at a family."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import clients
from tests.conftest import Family

EXAMPLE = clients.ROOT / "examples" / "quality-gate"
SNIPPET = """
import boto3
sm_client = boto3.client('sagemaker')
response = sm_client.start_pipeline_execution(
    PipelineName='MLOpsPipeline',
    PipelineParameters=[
        {'Name': 'ProcessingInstanceType', 'Value': 'ml.t3.medium'},
        {'Name': 'TrainingInstanceType', 'Value': 'ml.m5.xlarge'},
        {'Name': 'AccuracyThreshold', 'Value': '0.75'}
    ]
)
print(f'Execution ARN: {response["PipelineExecutionArn"]}')
"""
QUIET = {"SAGEMAKER_SUPPRESS_V2_WARNING": "1", "PYTHONWARNINGS": "ignore"}
WAIT_S = 240


@dataclass
class Told:
    """What a program said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """The last line of the output, as JSON."""
        assert self.code == 0, self.err[-3000:] + self.out[-3000:]
        return json.loads(self.out.strip().splitlines()[-1])

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


@dataclass
class Programs:
    """Programs of the clients' environments, each through `penstock exec --`."""

    family: Family
    home: Path
    """HOME of the programs, so that no file of this machine's user has a say."""

    def __call__(self, name: str, *words: str | Path, cwd: Path | None = None, **more: str) -> Told:
        """Runs `<environment>/bin/<program> words…`; `name` is "v2/python", say."""
        where, _, program = name.partition("/")
        path = clients.environment(where) / "bin"
        return self.own("exec", "--", str(path / program), *map(str, words), cwd=cwd, path=path, **more)

    def own(self, *words: str, cwd: Path | None = None, path: Path | None = None, **more: str) -> Told:
        """Runs a command of Penstock's own."""
        env = self.environ | {"PENSTOCK_DATA": str(self.family.data)} | more
        env["PATH"] = f"{path}:{env['PATH']}" if path else env["PATH"]
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *words], cwd=cwd or self.home, env=env, capture_output=True, text=True,
            timeout=WAIT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Told(done.returncode, done.stdout, done.stderr)

    @property
    def environ(self) -> dict[str, str]:
        return {**clean(), **QUIET, "HOME": str(self.home)}

    @property
    def variables(self) -> dict[str, str]:
        """What `penstock env` prints."""
        found: dict[str, str] = json.loads(self.own("env", "--json").out)
        return found

    def seen(self, *words: str) -> Any:
        """What the AWS CLI answers, read as JSON."""
        told = self("cli/aws", *words)
        assert told.code == 0, told
        return json.loads(told.out) if told.out.strip() else None


def clean() -> dict[str, str]:
    """This process's environment without what would lead a client elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


@dataclass
class Desk:
    """The Python of a client's environment, waiting with the SDK imported (see desk.py)."""

    socket: Path
    folder: Path
    count: int = field(default=0)

    def __call__(self, script: str, *arguments: str, **files: str) -> Told:
        """Runs a script to its end; `files` lie beside it (`train__py="..."`, `src/train.py` is `src__train__py`)."""
        return self.ended(self.begin(script, *arguments, **files))

    def begin(self, script: str, *arguments: str, **files: str) -> tuple[socket.socket, Path]:
        """Starts a script, and does not wait for it."""
        self.count += 1
        folder = self.folder / f"script-{self.count}"
        for name, text in {"main__py": script, **files}.items():
            path = folder / name.replace("___", "/").replace("__", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        asked = {
            "script": str(folder / "main.py"), "arguments": arguments, "folder": str(folder), "env": {},
            "stdout": str(folder / "stdout"), "stderr": str(folder / "stderr"),
        }  # fmt: skip
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.socket))
        connection.sendall(json.dumps(asked).encode() + b"\n")
        return connection, folder

    def ended(self, begun: tuple[socket.socket, Path]) -> Told:
        connection, folder = begun
        connection.settimeout(WAIT_S)
        with connection, connection.makefile() as stream:
            code = int(stream.readline())
        return Told(code, (folder / "stdout").read_text(), (folder / "stderr").read_text())


@contextmanager
def desk(programs: Programs, name: str, folder: Path, modules: tuple[str, ...]) -> Iterator[Desk]:
    short = Path(f"/tmp/penstock-desk-{os.getpid()}-{name}")  # a socket's address has 108 bytes
    command = [clients.environment(name) / "bin" / "python", Path(__file__).with_name("desk.py"), short, *modules]
    with open(folder / "desk.log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, env=programs.environ | programs.variables
        )  # fmt: skip
    assert process.stdout is not None
    try:
        ready = any(line == b"ready\n" for line in process.stdout)  # an SDK may have words of its own before
        assert ready, (folder / "desk.log").read_text()
        yield Desk(short, folder)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        short.unlink(missing_ok=True)
