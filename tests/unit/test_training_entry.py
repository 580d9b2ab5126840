"""Script mode's entry point, run as a program, on old Pythons too."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from penstock.runs.base import RunState
from penstock.services.sagemaker.training.rules import failure_reason

ENTRY = Path(__file__).parents[2] / "src" / "penstock" / "containers" / "training" / "entry.py"
SHOW = "import os, sys; print(sys.argv[1:], os.getcwd(), sorted(n for n in os.environ if n.startswith('PENSTOCK')))"


def pythons() -> list[str]:
    """This Python, and the oldest at hand that images have."""
    found = [
        Path.home() / ".pyenv" / "versions" / version / "bin" / "python" for version in ("3.6.15", "3.7.16", "3.8.18")
    ]
    return [sys.executable, *(str(path) for path in found if path.exists())]


class Sandbox:
    """The folders that a run would have."""

    def __init__(self, folder: Path):
        self.code, self.source, self.failure = folder / "code", folder / "source", folder / "output" / "failure"
        self.code.mkdir()
        self.source.mkdir()
        self.folder = folder

    def archive(
        self, *members: tuple[str, str], name: str = "sourcedir.tar.gz", extra: list[tarfile.TarInfo] | None = None
    ) -> None:
        with tarfile.open(self.source / name, "w:gz") as tar:
            for path, text in members:
                info = tarfile.TarInfo(path)
                info.size = len(text)
                info.mode = 0o644
                tar.addfile(info, io.BytesIO(text.encode()))
            for info in extra or []:
                tar.addfile(info)

    def run(
        self, source: str, *arguments: str, python: str = sys.executable, **env: str
    ) -> subprocess.CompletedProcess[str]:
        places = {
            "PENSTOCK_CODE": str(self.code),
            "PENSTOCK_SOURCE": str(self.source),
            "PENSTOCK_FAILURE": str(self.failure),
        }
        return subprocess.run(
            [python, str(ENTRY), source, *arguments],
            env={"PATH": os.environ["PATH"], **places, **env},
            capture_output=True,
            text=True,
        )


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


@pytest.mark.parametrize("python", pythons())
def test_a_script_of_an_archive_runs_in_the_code_folder_with_its_arguments(sandbox: Sandbox, python: str):
    sandbox.archive(("train.py", SHOW), ("lib/x.py", ""))
    done = sandbox.run("s3://b/k/sourcedir.tar.gz", "train.py", "--a", "1 2", python=python)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"['--a', '1 2'] {sandbox.code} []"
    assert "train.py --a '1 2'" in done.stdout


def test_an_archive_with_its_root_as_a_member_is_unpacked(sandbox: Sandbox, tmp_path: Path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("print('here')")
    with tarfile.open(sandbox.source / "new.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "src", arcname=os.path.sep)
    assert sandbox.run("s3://b/k/new.tar.gz", "train.py").stdout.endswith("here\n")


def test_a_folder_and_a_local_archive_are_code_too(sandbox: Sandbox, tmp_path: Path):
    (tmp_path / "channel" / "sub").mkdir(parents=True)
    (tmp_path / "channel" / "train.py").write_text("import sub.m")
    (tmp_path / "channel" / "sub" / "m.py").write_text("print('folder')")
    assert sandbox.run(str(tmp_path / "channel"), "train.py").stdout.endswith("folder\n")
    sandbox.archive(("other.py", "print('archive')"))
    assert sandbox.run(str(sandbox.source / "sourcedir.tar.gz"), "other.py").stdout.endswith("archive\n")


def test_code_that_lies_there_already_is_left_as_it_is(sandbox: Sandbox):
    (sandbox.code / "train.py").write_text("print('there')")
    assert sandbox.run("s3://b/prefix", "train.py").stdout.endswith("there\n")
    assert sandbox.run(str(sandbox.code), "train.py").stdout.endswith("there\n")


def test_a_shell_script_needs_no_permission_and_gets_its_arguments_quoted(sandbox: Sandbox):
    sandbox.archive(("run.sh", '#!/bin/bash\necho "$1|$2|$SM_X"\n'))
    assert sandbox.run("s3://b/s.tar.gz", "run.sh", "--a", "x y'z", SM_X="v").stdout.splitlines()[-1] == "--a|x y'z|v"


def test_the_scripts_exit_code_is_the_jobs(sandbox: Sandbox):
    sandbox.archive(("train.py", "import sys; sys.exit(7)"))
    assert sandbox.run("s3://b/s.tar.gz", "train.py").returncode == 7
    assert not sandbox.failure.exists()


def test_a_signal_reaches_the_script_itself(sandbox: Sandbox):
    sandbox.archive(("train.py", "import os; print(os.getpid())"))
    script = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); p.wait(); print(p.pid)"
    places = {"PENSTOCK_CODE": str(sandbox.code), "PENSTOCK_SOURCE": str(sandbox.source), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", script, sys.executable, str(ENTRY), "s3://b/s.tar.gz", "train.py"]
    lines = subprocess.run(command, env=places, capture_output=True, text=True).stdout.splitlines()
    assert lines[-1] == lines[-2]


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../out.py", tarfile.REGTYPE, ""),
        ("a/../../out.py", tarfile.REGTYPE, ""),
        ("/etc/out.py", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "/etc/passwd"),
        ("a/link", tarfile.SYMTYPE, "../../x"),
        ("hard", tarfile.LNKTYPE, "../x"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("device", tarfile.CHRTYPE, ""),
    ],
)
@pytest.mark.parametrize("python", pythons()[:2])
def test_an_archive_that_leads_out_of_the_code_is_refused(
    sandbox: Sandbox, python: str, name: str, kind: bytes, link: str
):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    sandbox.archive(("train.py", "print('ran')"), extra=[member])
    done = sandbox.run("s3://b/s.tar.gz", "train.py", python=python)
    assert done.returncode == 1
    assert "ran" not in done.stdout
    told = sandbox.failure.read_text()
    assert told.startswith("the code's archive has a")
    reason = failure_reason({"AlgorithmSpecification": {}}, RunState("ended", exit_code=1, reason="exit", message=told))
    assert reason == f"AlgorithmError: {told}, exit code: 1"


def test_links_inside_the_archive_are_kept(sandbox: Sandbox):
    member = tarfile.TarInfo("pkg/link.py")
    member.type, member.linkname = tarfile.SYMTYPE, "../train.py"
    sandbox.archive(("train.py", "print('ran')"), extra=[member])
    assert sandbox.run("s3://b/s.tar.gz", "pkg/link.py").stdout.endswith("ran\n")


def test_what_is_no_archive_is_told(sandbox: Sandbox):
    (sandbox.source / "s.tar.gz").write_bytes(b"no archive")
    assert sandbox.run("s3://b/s.tar.gz", "train.py").returncode == 1
    assert "s.tar.gz cannot be unpacked" in sandbox.failure.read_text()


def test_a_script_may_be_named_without_its_suffix(sandbox: Sandbox):
    sandbox.archive(("train.py", "print('ran')"))
    assert sandbox.run("s3://b/s.tar.gz", "train").stdout.endswith("ran\n")


def test_a_missing_script_is_told_by_name(sandbox: Sandbox):
    sandbox.archive(("train.py", ""))
    assert sandbox.run("s3://b/s.tar.gz", "tarin.py").returncode == 1
    assert "there is no tarin.py in the code" in sandbox.failure.read_text()


def stand_for_pip(sandbox: Sandbox, program: str) -> str:
    """A program in pip's place: what it is asked, and what becomes of its answer, is what counts here."""
    (sandbox.folder / "fake" / "pip").mkdir(parents=True)
    (sandbox.folder / "fake" / "pip" / "__init__.py").touch()
    (sandbox.folder / "fake" / "pip" / "__main__.py").write_text(program)
    return str(sandbox.folder / "fake")


@pytest.mark.parametrize("python", pythons())
def test_requirements_that_cannot_be_installed_fail_the_job_with_the_installers_words(sandbox: Sandbox, python: str):
    sandbox.archive(("train.py", "print('ran')"), ("requirements.txt", "nobody==1\n"))
    pip = stand_for_pip(sandbox, "import sys; print('Collecting'); print('ERROR: none', file=sys.stderr); sys.exit(2)")
    done = sandbox.run("s3://b/s.tar.gz", "train.py", python=python, PYTHONPATH=pip)
    assert done.returncode == 1
    assert sandbox.failure.read_text() == (
        'InstallRequirementsError:\nExitCode 2\nErrorMessage "ERROR: none"\n'
        f'Command "{python} -m pip install -r requirements.txt"'
    )
    assert "Collecting" in done.stdout
    assert "ran" not in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_shell_script_installs_nothing_by_itself(sandbox: Sandbox):
    sandbox.archive(("run.sh", "echo ran"), ("requirements.txt", "no-such-package-of-anybody==1.0\n"))
    assert sandbox.run("s3://b/s.tar.gz", "run.sh").stdout.endswith("ran\n")


def test_code_with_a_setup_py_runs_as_a_module(sandbox: Sandbox):
    pip = stand_for_pip(sandbox, "import sys; print('pip', sys.argv[1:])")
    sandbox.archive(
        ("setup.py", "raise SystemExit(3)"), ("requirements.txt", ""), ("train.py", "print(__name__, __package__)")
    )
    done = sandbox.run("s3://b/s.tar.gz", "train.py", PYTHONPATH=pip)
    assert "pip ['install', '.', '-r', 'requirements.txt']" in done.stdout
    assert done.stdout.splitlines()[-1] == "__main__ "
