"""Containers without an engine: where one is looked for, what its images become, and what of their archives is taken."""

from __future__ import annotations

import io
import socket
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("docker", reason="the extra `docker` is not installed")

from docker.errors import APIError, ImageNotFound, NotFound

from penstock import Refused
from penstock.runs import strays
from penstock.runs.base import ImageError, Input
from penstock.runs.docker import archives, daemon, store, sweep
from penstock.runs.docker.attempt import ContainerAttempt
from penstock.runs.docker.sockets import HeldNamespace
from penstock.runs.folder import RunFolder
from penstock.runs.images.registry import LocalImages
from penstock.runs.outputs import TooMuch

CONFIG = {"Env": ["A=1", "B=x=y"], "Entrypoint": ["/run.sh"], "Cmd": ["serve"], "WorkingDir": "/srv"}
PODMAN = daemon.Daemon("unix:///s", "Podman", "4.3.1", "1.41")


class Client:
    """An engine's client that knows some images, and takes and gives archives."""

    def __init__(self, *images: str, archive: bytes = b""):
        self.images, self.archive, self.removed = images, archive, []  # type: ignore[var-annotated]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.images:
            raise ImageNotFound("no")
        return {"Id": "sha256:0123456789abcdef", "Config": CONFIG}

    def put_archive(self, _: str, path: str, stream: Any) -> bool:
        assert path == "/"
        self.archive = stream.read()
        return True

    def get_archive(self, _: str, source: str, __: int) -> Any:
        if source == "/not/there":
            raise NotFound("no")
        return (piece for piece in (self.archive[:700], self.archive[700:])), {}

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        return [
            {"Id": f"{run}-{part}", "Labels": {sweep.RUN: run, sweep.ATTEMPT: "1", sweep.PART: part}}
            for run in ("dead", "live") for part in (sweep.HOLDER, sweep.PROGRAM)
        ]  # fmt: skip

    def remove_container(self, container: str, **_: Any) -> None:
        self.removed.append(container)


def test_the_first_socket_that_may_be_used_is_the_engine_s(tmp_path: Path) -> None:
    (tmp_path / "podman").mkdir()
    (tmp_path / "podman" / "podman.sock").touch()
    (tmp_path / "docker.sock").touch()
    found = daemon.find_address("auto", {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found in (f"unix://{tmp_path}/docker.sock", "unix:///run/docker.sock")
    assert daemon.find_address("auto", {"DOCKER_HOST": "unix:///x.sock"}) == "unix:///x.sock"


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:2375", "ssh://host", "/run/docker.sock", "yes"])
def test_an_address_that_is_no_socket_of_this_machine_is_refused(address: str) -> None:
    with pytest.raises(Refused, match=r"unix:///run/docker\.sock"):
        daemon.find_address(address, {})


def test_an_engine_that_is_away_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"No container engine answers at unix://.*/none: No such file or directory\.$"):
        daemon.reach(f"unix://{tmp_path}/none")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.DockerImages:
    client = Client("mine:1", "localhost/built:2", "python:3.11")
    monkeypatch.setattr(store, "reach", lambda *_: SimpleNamespace(name="Podman", version="4.3.1", client=lambda _: client))
    monkeypatch.setattr(store, "missing", lambda _: "")
    return store.DockerImages(LocalImages(tmp_path), "unix:///s")


def test_where_nobody_listens_an_unknown_image_is_refused_at_once(tmp_path: Path) -> None:
    found = store.DockerImages(LocalImages(tmp_path), f"unix://{tmp_path}/none.sock")
    with pytest.raises(ImageError, match=r"--requirements FILE\. No container engine answers at unix://.*: No such file or directory\.$"):
        found.check("nobody/knows:1")
    found.check("python:3.11")


def test_an_engine_with_too_many_before_us_is_there(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(tmp_path / "s"))
        address = f"unix://{tmp_path}/s"
        assert "Connection refused" in daemon.missing(address)
        listening.listen(0)
        first.connect(str(tmp_path / "s"))
        assert daemon.missing(address) == ""


def look(images: store.DockerImages, uri: str) -> Any:
    """What an image became, once the engine has answered."""
    heard = threading.Event()
    images.listen(lambda _: heard.set())
    if (found := images.look(uri)) is not None:
        return found
    assert heard.wait(60)
    return images.look(uri)


@pytest.mark.parametrize("uri", ["mine:1", "built:2"])
def test_an_image_of_the_engine_runs_its_own_program_in_its_own_world(images: store.DockerImages, uri: str) -> None:
    images.check(uri)
    found = look(images, uri)
    assert (found.container, found.entrypoint, found.command, found.cwd) == ("sha256:0123456789abcdef", ["/run.sh"], ["serve"], "/srv")
    assert (found.env["A"], found.env["B"]) == ("1", "x=y")
    assert found.note == f"{uri} runs as a container of Podman 4.3.1: image 0123456789ab."


def test_an_image_that_this_machine_knows_is_never_the_engine_s(images: store.DockerImages) -> None:
    images.check("python:3.11")
    assert images._unknown("python:3.11") == ""


def test_an_image_in_no_store_is_refused_with_the_command_that_brings_it(images: store.DockerImages) -> None:
    for asked in (images.check, lambda uri: look(images, uri)):
        with pytest.raises(ImageError, match=r"`podman pull nobody/knows:1` brings one\.$"):
            asked("nobody/knows:1")


def test_an_engine_that_does_not_answer_in_time_refuses_nothing(
    images: store.DockerImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise Refused("away")

    monkeypatch.setattr(store, "reach", away)
    images.check("mine:1")
    monkeypatch.setattr(store, "AWAY_S", 0.0)
    monkeypatch.setattr(store, "AGAIN_S", 0.0)
    with pytest.raises(ImageError, match="no container engine answers"):
        look(images, "mine:1")


def test_one_thread_asks_an_engine_that_hangs_and_who_waited_in_vain_once_waits_no_more(
    images: store.DockerImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked, reach = threading.Event(), [], store.reach

    def hanging(*_: Any) -> Any:
        asked.append(threading.current_thread())
        assert answers.wait(60)
        return reach("")

    monkeypatch.setattr(store, "reach", hanging)
    monkeypatch.setattr(store, "HELLO_S", 0.01)
    assert (images.asks("python:3.11"), images.asks("mine:1")) == (False, True)
    images.check("mine:1")
    while images.asks("mine:2"):  # until the question hangs
        answers.wait(0.01)
    for number in range(20):
        images.check(f"mine:{number}")
        assert images.look(f"mine:{number}") is None
    assert len(asked) == 1
    heard = threading.Event()
    images.listen(lambda _: heard.set() if not images._asked else None)
    answers.set()
    assert heard.wait(60)
    assert len(set(asked)) == 1
    assert not images.asks("mine:1"), "what is known is not asked for"


def test_the_answers_of_an_engine_are_kept_up_to_a_number(images: store.DockerImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ANSWERS", 2)
    for number in range(5):
        with pytest.raises(ImageError):
            images.check(f"none:{number}")
    assert set(images._answers) == {"none:3", "none:4"}


def test_what_was_refused_is_asked_for_anew(images: store.DockerImages, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError):
        images.check("pulled:1")
    with store.reach("", 0).client(0) as client:
        client.images = ("pulled:1",)  # type: ignore[attr-defined]
    images.check("pulled:1")


def test_inputs_go_in_as_one_archive_that_leaves_the_images_own_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "layer" / "opt" / "penstock").mkdir(parents=True)
    (tmp_path / "layer" / "opt" / "penstock" / "ca.pem").write_bytes(b"pem")
    (tmp_path / "blob").write_bytes(b"bytes")
    client: Any = Client()
    inputs = [Input("/opt/ml/input/x", blob=str(tmp_path / "blob")), Input("/data/in/y", data=b"text")]
    archives.put_files(client, "c", [str(tmp_path / "layer")], ["/opt/ml/model"], inputs)
    with tarfile.open(fileobj=io.BytesIO(client.archive)) as tar:
        found = {member.name: member for member in tar}
        assert tar.extractfile("opt/ml/input/x").read() == b"bytes"  # type: ignore[union-attr]
        assert tar.extractfile("data/in/y").read() == b"text"  # type: ignore[union-attr]
    assert {"opt/penstock/ca.pem", "opt/ml", "opt/ml/model", "opt/ml/input", "data/in"} < set(found)
    assert "opt" not in found
    assert "data" not in found
    assert found["opt/ml/model"].mode == 0o777


def test_an_input_without_its_blob_is_an_error_and_no_half_archive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        archives.put_files(Client(), "c", [], [], [Input("/opt/ml/x", blob=str(tmp_path / "none"))])


def packed(*members: tuple[str, bytes | None, str]) -> bytes:
    """An archive of members: name, bytes (None: a folder) and what a link leads to."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data, link in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data or b""), 1_000_000_000
            member.type = tarfile.DIRTYPE if data is None else tarfile.SYMTYPE if link.startswith("/") else tarfile.REGTYPE
            if link and not link.startswith("/"):
                member.type, member.size = tarfile.LNKTYPE, 0
            member.linkname = link
            tar.addfile(member, io.BytesIO(data or b"") if member.isreg() else None)
    return buffer.getvalue()


def test_only_files_and_folders_are_taken_out_and_nothing_leads_away(tmp_path: Path) -> None:
    hostile = packed(
        ("model", None, ""), ("model/a", b"aa", ""), ("model/etc", b"", "/etc"), ("model/etc/passwd", b"mine", ""),
        ("../../up", b"no", ""), ("model/../../up", b"no", ""), ("model/again", b"", "model/a"), ("/model/top", b"t", ""),
    )  # fmt: skip
    root = tmp_path / "root"
    archives.Shadow(root, 1 << 20).fetch(Client(archive=hostile), "c", "/opt/ml/model")  # type: ignore[arg-type]
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    assert sorted(found) == [f"opt/ml/model/{name}" for name in ("a", "again", "etc/passwd", "top")]
    assert found["opt/ml/model/again"].read_bytes() == b"aa"
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert not list(tmp_path.rglob("up"))


def test_what_is_more_than_the_volume_is_too_much(tmp_path: Path) -> None:
    large = packed(("model", None, ""), ("model/a", b"x" * 3000, ""))
    with pytest.raises(TooMuch):
        archives.Shadow(tmp_path, 2999).fetch(Client(archive=large), "c", "/opt/ml/model")  # type: ignore[arg-type]
    archives.Shadow(tmp_path, 1 << 20).fetch(Client(), "c", "/not/there")  # type: ignore[arg-type]


def test_a_torn_archive_is_an_error(tmp_path: Path) -> None:
    torn = packed(("model", None, ""), ("model/a", b"x" * 3000, ""))[:1800]
    with pytest.raises(OSError, match="no whole archive"):
        archives.Shadow(tmp_path, 1 << 20).fetch(Client(archive=torn), "c", "/opt/ml/model")  # type: ignore[arg-type]


def test_a_sweep_removes_what_nobody_watches_the_holder_last(tmp_path: Path) -> None:
    client: Any = Client()
    assert sweep.sweep(client, tmp_path, lambda run, attempt: run == "live") == 2
    assert client.removed == ["dead-program", "dead-holder"]
    assert not sweep.is_watched(tmp_path, "nobody", 1)


def test_what_a_crash_left_is_swept_where_no_engine_is_chosen_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[str]] = []
    monkeypatch.setattr(strays.subprocess, "Popen", lambda command, **_: begun.append(command[3:]))
    runs, client = tmp_path / "runs", Client()
    strays.sweep_at_start("", runs)
    assert begun == []
    strays.sweep_at_start("unix:///s", runs)
    for reached in (False, True):  # until it could be done
        strays.sweep_at_start("", runs)
        assert begun[-1][:2] == ["unix:///s", str(runs)]
        away = mock.Mock(side_effect=None if reached else Refused("away"), return_value=mock.Mock(client=lambda: client))
        monkeypatch.setattr(sweep, "reach", away)
        sweep.main(begun[-1][0], *map(Path, begun[-1][1:]))
    assert len(client.removed) == 4
    strays.sweep_at_start("", runs)
    assert len(begun) == 3


def test_a_holder_that_does_not_start_is_known_to_whoever_removes_it(tmp_path: Path) -> None:
    client = mock.Mock(
        create_host_config=lambda **_: {}, create_container=lambda *_, **__: {"Id": "made"},
        inspect_image=lambda _: {"Id": "i"}, start=mock.Mock(side_effect=APIError("no")),
    )  # fmt: skip
    attempt = ContainerAttempt.__new__(ContainerAttempt)
    attempt.folder, attempt.order = RunFolder(tmp_path), mock.Mock(attempt=1)
    attempt.spec = mock.Mock(instances=[mock.Mock(host="algo-1")], port=8080)
    attempt.scratch, attempt.client, attempt.namespaces = tmp_path, client, []
    with mock.patch.object(ContainerAttempt, "_ports", return_value={"api": 80}), pytest.raises(APIError):
        attempt._make_network()
    assert [each.container for each in attempt.namespaces if isinstance(each, HeldNamespace)] == ["made"]
