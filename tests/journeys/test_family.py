"""The family of processes from the command line: one folder, one server, and what brings it up and down."""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from penstock import presence
from penstock.runs import runner
from tests.conftest import Boto, Family
from tests.crash.families import Clan, free_port, until

QUIET = {
    "AWS_PROFILE": "mine",
    "AWS_ENDPOINT_URL_S3": "https://elsewhere.example",
    "NO_PROXY": "pypi.corp,.amazonaws.com",
}


def penstock(data: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PENSTOCK_DATA": str(data), "PENSTOCK_PORT": "0", "PENSTOCK_DOORWAY_PORT": "0"} | more
    command = [sys.executable, "-m", "penstock", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    if presence.held(tmp_path / "data"):
        assert penstock(tmp_path / "data", "down", "--jobs").returncode == 0


def test_two_programs_that_start_a_server_at_once_share_it(folder: Path) -> None:
    ask = ("exec", "--", sys.executable, "-c", "import os; print(os.environ['AWS_ENDPOINT_URL'])")
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: penstock(folder, *ask), range(2)))
    assert [each.returncode for each in both] == [0, 0], [each.stderr for each in both]
    assert both[0].stdout == both[1].stdout


def test_down_returns_when_all_have_ended_and_up_follows_at_once(folder: Path) -> None:
    first = penstock(folder, "up", "--detach", "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(penstock(folder, "down", "--json").stdout) == {"jobs_that_go_on": 0}
    assert not presence.held(folder)
    again = penstock(
        folder, "up", "--detach", "--json", PENSTOCK_PORT=json.loads(first.stdout)["url"].rpartition(":")[2]
    )
    assert json.loads(again.stdout)["credentials"] == json.loads(first.stdout)["credentials"]


def test_a_second_server_on_the_folder_is_told_where_the_first_one_is(family: Family) -> None:
    second = family.penstock("up", "--port", "0", "--doorway-port", "0")
    assert second.returncode == 1
    assert second.stderr.startswith(f"penstock: A server is up already, at {family.about['url']} (pid {family.about['pid']})")
    assert second.stderr.count("\n") == 1
    behind = family.penstock("up", "--detach", "--json")
    assert (behind.returncode, json.loads(behind.stdout)["pid"]) == (0, family.about["pid"])
    assert f"was up already at {family.about['url']}" in family.penstock("up", "-d").stdout


@pytest.mark.parametrize("member", ["engine", "porter"])
def test_a_signal_that_the_kernel_gives_to_another_thread_ends_a_process_all_the_same(folder: Path, member: str) -> None:
    clan = Clan(folder, ports=(free_port(), free_port()))
    clan.up()
    try:
        pid = clan.member(member)
        assert pid is not None
        other = max(map(int, os.listdir(f"/proc/{pid}/task")))
        assert other != pid
        ctypes.CDLL(None, use_errno=True).tgkill(pid, other, signal.SIGTERM)
        until(lambda: clan.member(member) not in (None, pid), f"another {member}")
    finally:
        clan.down()


def test_what_answers_goes_before_what_carries(family: Family) -> None:
    base = os.nice(0)
    nice = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            name, _, rest = (entry / "stat").read_text().partition(" (")[2].rpartition(") ")
            if int(rest.split()[1]) == family.about["pid"]:
                nice[name.removeprefix("penstock-")] = int(rest.split()[16])
    front = next(nice[name] for name in nice if name.startswith("front"))
    assert front == -10 if os.geteuid() == 0 else front in (base, -10)
    assert (nice["engine"], nice["porter"]) == (base, base + 10)


def test_a_port_has_no_say_where_a_server_is_up(family: Family) -> None:
    told = family.penstock("exec", "--port", "1", "--", "printenv", "AWS_ENDPOINT_URL")
    assert told.stdout.strip() == family.about["url"]
    assert f"a server is up already, at {family.about['url']}: --port 1 has no say." in told.stderr


def test_a_port_that_is_taken_is_told(family: Family, folder: Path) -> None:
    port = str(family.about["url"]).rpartition(":")[2]
    taken = penstock(folder, "up", "--detach", "--port", port)
    assert taken.returncode == 2
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in taken.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--doorway-port", "{taken}"), "Address already in use. Free ports: `"),
        (("--host", "192.0.2.1"), "Cannot assign requested address. `--host` takes an address of this machine"),
        (("--port", "99999"), "port 99999 is none"),
        (("--data", "/proc/x"), "The data folder /proc/x cannot be made or written: No such file or directory."),
    ],
)
@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_what_cannot_be_is_one_sentence_that_names_its_option(
    folder: Path, arguments: tuple[str, ...], sentence: str, detach: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = penstock(folder, "up", *detach, *(word.format(taken=port) for word in arguments))
    assert (told.returncode, told.stderr.count("\n")) == (2, 1), told.stderr
    assert sentence in told.stderr


def delete(data: Path) -> None:
    shutil.rmtree(data, ignore_errors=True)  # the family may write while it goes


def move(data: Path) -> None:
    data.rename(data.with_name("moved"))


@pytest.mark.parametrize("way", [delete, move], ids=["rm", "mv"])
def test_a_family_whose_folder_goes_away_ends_as_a_whole(folder: Path, way: Callable[[Path], None]) -> None:
    command = [sys.executable, "-m", "penstock", "up", "--port", "0", "--doorway-port", "0", "--data", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        assert "is up at" in keeper.stdout.readline()
        runner_pid = int(runner.ask(folder, {"op": "ping"})["pid"])
        family = [keeper.pid, runner_pid, *children(keeper.pid), *children(runner_pid)]
        held = [os.pidfd_open(pid) for pid in dict.fromkeys(family)]
        try:
            way(folder)
            assert [fd for fd in held if not select.select([fd], [], [], 60)[0]] == []
        finally:
            for fd in held:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                os.close(fd)
        told = keeper.communicate()[1]
    assert keeper.returncode == 2
    assert told.endswith(f"penstock: The data folder {folder} was deleted or moved away: the server ends.\n")


@pytest.mark.parametrize("way", [delete, move], ids=["rm", "mv"])
def test_a_runner_alone_whose_folder_goes_away_ends(folder: Path, way: Callable[[Path], None]) -> None:
    launched = runner.launch(folder)
    try:
        assert runner.wait_ready(folder, 60)["pid"] == launched.pid
        way(folder)
        assert launched.wait(60) == 0
    finally:
        launched.kill()
        launched.wait()


def test_a_script_whose_python_lacks_the_sdk_is_told_which_option_names_another(family: Family, tmp_path: Path) -> None:
    script = tmp_path / "pipeline.py"
    script.write_text("import sagemaker\n")
    told = family.penstock("run", str(script), "--python", sys.executable)
    assert told.returncode == 2
    assert "has no SageMaker SDK: name one that has with --python" in told.stderr
    script.write_text("raise SystemExit('its own fault')\n")
    assert "--python" not in family.penstock("run", str(script), "--python", sys.executable).stderr


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def child(keeper_pid: int, name: str) -> int | None:
    for pid in Path(f"/proc/{keeper_pid}/task/{keeper_pid}/children").read_text().split():
        with suppress(OSError):  # it may end while it is looked at
            if Path(f"/proc/{pid}/comm").read_text().strip() == f"penstock-{name}"[:15]:
                return int(pid)
    return None


@pytest.mark.parametrize("name", ["front-0", "engine", "doorway", "porter"])
def test_a_member_that_is_killed_comes_back(family: Family, name: str) -> None:
    keeper_pid = int(str(family.about["pid"]))
    before = child(keeper_pid, name)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while child(keeper_pid, name) in (None, before):
        assert time.monotonic() < deadline, f"{name} did not come back"
        time.sleep(0.01)
    boto = family.boto()
    client: Any = boto.session.client("sagemaker", endpoint_url=boto.url)
    client.create_model_package_group(ModelPackageGroupName=f"after-{name}")
    client.close()


def test_exec_gives_the_programs_exit_code_and_a_world_of_its_own(family: Family) -> None:
    program = "import os, json; print(json.dumps(dict(os.environ))); raise SystemExit(7)"
    ran = family.penstock("exec", "--", sys.executable, "-c", program)
    assert ran.returncode == 7
    world = json.loads(ran.stdout)
    assert world["AWS_ENDPOINT_URL"] == family.about["url"]
    assert world["HTTPS_PROXY"].endswith(f"@{family.about['doorway']}")
    assert {world[name] for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE")} == {str(family.data / "ca" / "bundle.pem")}


def test_what_leads_elsewhere_is_taken_out_and_a_persons_own_hosts_stay(family: Family) -> None:
    program = "import os, json; print(json.dumps(dict(os.environ)))"
    ran = penstock(family.data, "exec", "--", sys.executable, "-c", program, **QUIET)
    world = json.loads(ran.stdout)
    assert not {"AWS_PROFILE", "AWS_ENDPOINT_URL_S3"} & set(world)
    assert world["NO_PROXY"] == "127.0.0.1,localhost,pypi.corp"


def test_a_shell_evaluates_env(family: Family) -> None:
    text = penstock(family.data, "env", **QUIET).stdout
    script = f'{text}\necho "$AWS_ENDPOINT_URL $AWS_DEFAULT_REGION ${{AWS_PROFILE-none}} ${{AWS_ENDPOINT_URL_S3-none}}"'
    said = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, env=os.environ | QUIET, check=True)
    assert said.stdout == f"{family.about['url']} us-east-1 none none\n"
    back = penstock(family.data, "env", "--unset").stdout
    script = f"{text}\n{back}\nenv"
    said = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=True)
    assert {line.partition("=")[0] for line in said.stdout.splitlines()} <= {"PATH", "PWD", "SHLVL", "_"}


@pytest.mark.parametrize(("program", "sentence"), [("no-such", "There is no program"), ("/etc", "cannot be run")])
def test_a_program_that_cannot_be_run_is_one_sentence(family: Family, program: str, sentence: str) -> None:
    ran = family.penstock("exec", "--", program)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert sentence in ran.stderr


def test_new_accounts_have_keys_that_work(family: Family) -> None:
    added = family.penstock("account", "add", "--count", "2", "--json")
    found = [json.loads(line) for line in added.stdout.splitlines()]
    assert len({each["AccountId"] for each in found}) == 2
    for each in found:
        keys = {"access_key_id": each["AccessKeyId"], "secret_access_key": each["SecretAccessKey"]}
        boto = Boto(str(family.about["url"]), keys)
        assert boto("sts").get_caller_identity()["Account"] == each["AccountId"]
        boto.close()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--id", "abc"), "12 digits"),
        (("--id", "123456789012"), "there already"),
        (("--id", "210987654321", "--count", "2"), "One id is one account"),
    ],
)
def test_an_account_that_cannot_be_is_refused(family: Family, arguments: tuple[str, ...], sentence: str) -> None:
    ran = family.penstock("account", "add", *arguments)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert sentence in ran.stderr


def test_reset_refuses_under_a_server_and_deletes_what_is_penstocks_without(family: Family, folder: Path) -> None:
    assert "`penstock down` first" in family.penstock("reset", "--yes").stderr
    (folder / "runs").mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "server.lock").touch()
    (folder / "thesis.tex").write_text("years")
    told = penstock(folder, "reset", "--yes")
    assert (told.returncode, " ".join(told.stdout.split())) == (0, f"{folder} is empty but for its images, thesis.tex.")
    assert sorted(path.name for path in folder.iterdir()) == ["images", "thesis.tex"]
    (folder / "server.lock").touch()
    assert "give --yes" in penstock(folder, "reset", "--json").stderr
    told = penstock(folder, "reset", "--json", "--yes", "--images")
    assert json.loads(told.stdout) == {"data": str(folder), "kept": ["thesis.tex"]}


@pytest.mark.parametrize("command", [("reset", "--yes"), ("up",), ("up", "--detach"), ("exec", "--", "true")])
def test_a_folder_that_is_somebodys_is_left_alone(folder: Path, command: tuple[str, ...]) -> None:
    (folder / "src").mkdir(parents=True)
    (folder / "runs").mkdir()
    told = penstock(folder, *command)
    assert (told.returncode, told.stderr.count("\n")) == (2, 1), told.stderr
    assert "no data folder of Penstock's" in told.stderr or "not empty, and not Penstock's" in told.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["runs", "src"]


@pytest.mark.parametrize("command", [("doctor", "--json"), ("image", "list", "--json")])
def test_what_machines_read_is_json(family: Family, command: tuple[str, ...]) -> None:
    assert isinstance(json.loads(family.penstock(*command).stdout), list)
