"""The forward proxy: where it leads, for whom, and where it never leads."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from botocore.config import Config

from penstock import Refused, authority
from penstock.cli import world
from penstock.doorway import Doorway, forbidden, is_own, targets_of
from penstock.hosts import upstream_of
from penstock.settings import Settings
from tests.conftest import House

TOKEN = "a-token"


@dataclass
class Open:
    """A doorway that is open, in a thread of its own."""

    port: int
    bundle: Path

    def get(self, url: str) -> tuple[int, bytes]:
        with urllib3.ProxyManager(f"http://127.0.0.1:{self.port}", ca_certs=str(self.bundle)) as pool:
            answer = pool.request("GET", url, timeout=5, retries=False)
            return answer.status, answer.data

    def ask(self, head: str, token: str | None = TOKEN) -> bytes:
        """The answer's first bytes to a request's head."""
        if token is not None:
            head += f"Proxy-Authorization: Basic {base64.b64encode(f'penstock:{token}'.encode()).decode()}\r\n"
        with socket.create_connection(("127.0.0.1", self.port), 10) as client:
            client.sendall(f"{head}\r\n".encode("latin-1"))
            return client.recv(4096)

    def connect(self, target: str, token: str | None = TOKEN) -> int:
        return int(self.ask(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n", token).split(b" ")[1])


def opened(settings: Settings, front: tuple[str, int], upstream: str | None = None, **options: Any) -> Iterator[Open]:
    bundle = authority.establish(settings.data / "ca")
    (settings.data / "sockets").mkdir(exist_ok=True)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    doorway = Doorway(settings, TOKEN, front, upstream, **options)
    started = threading.Event()
    ending: list[Callable[[], Any]] = []

    async def serve() -> None:
        task = asyncio.ensure_future(doorway.run(listening, settings.data / "sockets" / "doorway.sock"))
        loop = asyncio.get_running_loop()
        ending.append(lambda: loop.call_soon_threadsafe(task.cancel))
        started.set()
        await asyncio.wait([task])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    try:
        yield Open(listening.getsockname()[1], bundle)
    finally:
        ending[0]()
        thread.join(15)


@pytest.fixture(scope="module")
def doorway(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    settings = Settings(data=tmp_path_factory.mktemp("doorway"))
    yield from opened(settings, ("127.0.0.1", int(house.url.rpartition(":")[2])))


@pytest.fixture(scope="module")
def keys(house: House) -> dict[str, str]:
    return house.account()


@pytest.fixture
def aws(doorway: Open, keys: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """boto3 clients that know nothing but a proxy and a bundle."""
    made = []

    def client(service: str, region: str = "us-east-1", url: str | None = None, **config: Any) -> Any:
        session = boto3.Session(keys["access_key_id"], keys["secret_access_key"], region_name=region)
        made.append(
            session.client(
                service,
                endpoint_url=url,
                verify=str(doorway.bundle),
                config=Config(
                    proxies={"https": f"http://127.0.0.1:{doorway.port}"}, retries={"max_attempts": 0}, **config
                ),
            )
        )
        return made[-1]

    yield client
    for each in made:
        each.close()


# --- AWS's hosts
def test_an_explicit_regional_endpoint_reaches_the_front(aws: Any, keys: dict[str, str]) -> None:
    sts = aws("sts", "eu-west-1", "https://sts.eu-west-1.amazonaws.com")
    assert sts.get_caller_identity()["Account"] == keys["account"]


@pytest.mark.parametrize("service", ["iam", "sagemaker", "logs"])
def test_a_client_without_an_endpoint_reaches_the_front(aws: Any, service: str) -> None:
    operation = {"iam": "list_roles", "sagemaker": "list_models", "logs": "describe_log_groups"}[service]
    assert getattr(aws(service), operation)()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_china_and_its_hosts_too(aws: Any) -> None:
    assert aws("sagemaker", "cn-north-1").list_models()["Models"] == []


@pytest.mark.parametrize("style", ["virtual", "path"])
@pytest.mark.parametrize("url", [None, "https://s3.us-east-1.amazonaws.com", "https://s3-us-east-1.amazonaws.com"])
def test_objects_by_the_hosts_of_s3(aws: Any, keys: dict[str, str], style: str, url: str | None) -> None:
    s3 = aws("s3", url=url, s3={"addressing_style": style})
    bucket = f"door-{style}-{keys['account']}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="a b/ü.txt", Body=b"bytes")
    assert s3.get_object(Bucket=bucket, Key="a b/ü.txt")["Body"].read() == b"bytes"
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a b/ü.txt"]


def test_a_bucket_with_dots_and_the_dual_stack(aws: Any, keys: dict[str, str]) -> None:
    name = f"with.dots.{keys['account']}"
    aws("s3").create_bucket(Bucket=name)
    s3 = aws("s3", s3={"addressing_style": "virtual", "use_dualstack_endpoint": True})
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    assert s3.head_object(Bucket=name, Key="k")["ContentLength"] == 1


def test_a_presigned_virtual_host_address_is_read(aws: Any, doorway: Open, keys: dict[str, str]) -> None:
    name = f"presigned-{keys['account']}"
    s3 = aws("s3", s3={"addressing_style": "virtual"}, signature_version="s3v4")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"here")
    url = s3.generate_presigned_url("get_object", {"Bucket": name, "Key": "k"})
    assert url.startswith(f"https://{name}.s3")
    assert doorway.get(url) == (200, b"here")


def test_telemetry_is_answered_at_once(doorway: Open) -> None:
    url = "https://sm-pysdk-t-us-west-2.s3.us-west-2.amazonaws.com/telemetry?x-feature=1"
    assert doorway.get(url) == (200, b"")


def test_a_plain_request_to_a_host_of_aws_reaches_the_front(doorway: Open) -> None:
    head = "GET http://s3.us-east-1.amazonaws.com/ HTTP/1.1\r\nHost: s3.us-east-1.amazonaws.com\r\n"
    assert doorway.ask(head).startswith(b"HTTP/1.1 403")  # the front's: not signed


def test_a_dot_at_the_end_does_not_lead_around_the_front(doorway: Open) -> None:
    assert doorway.connect("sts.us-east-1.amazonaws.com.:443", token=None) == 200


# --- others
@pytest.mark.parametrize("token", [None, "", "another"])
def test_an_unknown_caller_is_asked_who_it_is(doorway: Open, token: str | None) -> None:
    assert doorway.connect("example.com:443", token) == 407


def test_credentials_that_are_no_text_are_an_unknown_caller(doorway: Open) -> None:
    assert b" 407 " in doorway.ask("CONNECT example.com:443 HTTP/1.1\r\nProxy-Authorization: Basic /w==\r\n", None)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "localhost", "localhost.", "[::1]"),
        *("[::ffff:127.0.0.1]", "10.1.2.3", "172.20.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254"),
        *(
            "[::ffff:a9fe:a9fe]",
            "[::a9fe:a9fe]",
            "0251.0376.0251.0376",
            "2852039166",
            "100.100.100.200",
            "168.63.129.16",
        ),
        *("169.254.170.2", "[fd00:ec2::254]", "192.0.0.192", "[fe80::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
    ],
)
def test_this_machine_and_its_network_are_nobodys_business(doorway: Open, host: str) -> None:
    assert doorway.connect(f"{host}:443") == 403


def test_a_name_that_stands_for_this_machine_is_refused(doorway: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = socket.getaddrinfo

    def lies(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host == "rebound.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in ("93.184.216.34", "127.0.0.1")]
        return resolved(host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lies)
    assert doorway.connect("rebound.example:443") == 403


@pytest.mark.parametrize("port", [22, 25, 4600, 8080, 99999])
def test_other_ports_are_refused(doorway: Open, port: int) -> None:
    assert doorway.connect(f"93.184.216.34:{port}") == 403


@pytest.mark.parametrize(
    "line",
    [
        *("GET / HTTP/1.1", "nonsense", "CONNECT example.com:https HTTP/1.1", "GET http://[/ HTTP/1.1"),
        *("GET ftp://example.com/ HTTP/1.1", "GET http://example.com:x/ HTTP/1.1"),
        f"CONNECT {'a' * 64}.com:443 HTTP/1.1",
    ],
)
def test_what_is_no_request_to_a_proxy_is_told_so(doorway: Open, line: str) -> None:
    assert b" 400 " in doorway.ask(f"{line}\r\n").partition(b"\r\n")[0]


# --- a host outside, which here is one of this machine's registries
@pytest.fixture
def outside() -> Iterator[int]:
    """A server that reads until its client has said all, then says it back."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                heard = b""
                while piece := connection.recv(65536):
                    heard += piece
                    if heard.startswith(b"GET ") and heard.endswith(b"\r\n\r\n"):
                        break
                connection.sendall(heard)

    thread = threading.Thread(target=serve)
    thread.start()
    yield int(listening.getsockname()[1])
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


@pytest.fixture
def leading(outside: int, tmp_path: Path) -> Iterator[Open]:
    """A doorway that leads to the server outside."""
    yield from opened(Settings(data=tmp_path), ("127.0.0.1", 1), registries={("127.0.0.1", outside)})


def test_a_target_that_the_settings_name_is_open_and_its_neighbours_are_not(outside: int, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, private_targets=f"git.corp, 127.0.0.1:{outside}")
    for leading in opened(settings, ("127.0.0.1", 1)):
        assert leading.connect(f"127.0.0.1:{outside}") == 200
        assert leading.connect("127.0.0.1:443") == 403
        assert leading.connect(f"127.0.0.2:{outside}") == 403


def test_targets_are_hosts_with_or_without_a_port() -> None:
    assert targets_of("Git.corp., [fd00::1]:9") == {("git.corp", 80), ("git.corp", 443), ("fd00::1", 9)}
    assert targets_of("") == set()
    with pytest.raises(Refused, match="PENSTOCK_PRIVATE_TARGETS: 'a:b'"):
        targets_of("a:b")


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_tunnel_whose_one_side_has_said_all_still_answers(leading: Open, outside: int) -> None:
    known = base64.b64encode(f"penstock:{TOKEN}".encode()).decode()
    said = b"x" * 1_000_000
    with socket.create_connection(("127.0.0.1", leading.port), 10) as client:
        client.sendall(f"CONNECT 127.0.0.1:{outside} HTTP/1.1\r\nProxy-Authorization: Basic {known}\r\n\r\n".encode())
        assert client.recv(len(b"HTTP/1.1 200 Connection established\r\n\r\n")).startswith(b"HTTP/1.1 200")
        threading.Thread(target=lambda: (client.sendall(said), client.shutdown(socket.SHUT_WR))).start()
        assert read_all(client) == said


def test_a_plain_request_is_passed_on_without_what_is_meant_for_proxies(leading: Open, outside: int) -> None:
    known = base64.b64encode(f"penstock:{TOKEN}".encode()).decode()
    with socket.create_connection(("127.0.0.1", leading.port), 10) as client:
        client.sendall(
            f"GET http://127.0.0.1:{outside}/a?b=c HTTP/1.1\r\nHost: h\r\nProxy-Authorization: Basic {known}\r\n"
            "Proxy-Connection: keep-alive\r\nConnection: keep-alive\r\nX-Own: 1\r\n\r\n".encode()
        )
        assert read_all(client) == b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nX-Own: 1\r\nConnection: close\r\n\r\n"


def test_a_plain_connection_to_a_host_of_aws_serves_one_host(doorway: Open) -> None:
    with socket.create_connection(("127.0.0.1", doorway.port), 10) as client:
        client.sendall(b"GET http://sts.amazonaws.com/ HTTP/1.1\r\nHost: sts.amazonaws.com\r\n\r\n")
        assert b"connection: close" in read_all(client).lower()  # the next request may be for another


# --- behind another proxy
@pytest.fixture
def upstream() -> Iterator[tuple[int, list[bytes]]]:
    """A proxy that says 200 to all, and remembers what it was asked for."""
    asked: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 200 Fine\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening.getsockname()[1], asked
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


@pytest.fixture
def behind(upstream: tuple[int, list[bytes]], tmp_path: Path) -> Iterator[Open]:
    yield from opened(Settings(data=tmp_path), ("127.0.0.1", 1), f"http://me:secret@127.0.0.1:{upstream[0]}")


def test_the_upstream_proxy_is_told_who_we_are(behind: Open, upstream: tuple[int, list[bytes]]) -> None:
    assert behind.connect("93.184.216.34:443") == 200
    assert upstream[1][0].startswith(b"CONNECT 93.184.216.34:443 ")
    assert base64.b64encode(b"me:secret") in upstream[1][0]
    assert TOKEN.encode() not in upstream[1][0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "2130706433", "10.0.0.1"])
def test_no_upstream_proxy_leads_to_private_addresses(
    behind: Open, upstream: tuple[int, list[bytes]], host: str
) -> None:
    assert behind.connect(f"{host}:443") == 403
    assert upstream[1] == []


def test_an_upstream_proxy_that_is_gone_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for gone in opened(Settings(data=tmp_path), ("127.0.0.1", 1), f"http://127.0.0.1:{port}"):
        assert gone.connect("93.184.216.34:443") == 502


def test_hosts_of_no_proxy_are_reached_without_it(tmp_path: Path) -> None:
    authority.establish(tmp_path / "ca")
    near = Doorway(
        Settings(data=tmp_path), TOKEN, ("127.0.0.1", 1), "http://proxy:3128", direct="corp.example, .in.example"
    )
    assert [host for host in ("corp.example", "a.in.example", "acorp.example", "x.org") if near._goes_direct(host)] == [
        "corp.example",
        "a.in.example",
    ]
    assert Doorway(Settings(data=tmp_path), TOKEN, ("127.0.0.1", 1), "http://proxy:3128", direct="*")._goes_direct(
        "x.org"
    )


def test_a_doorway_is_never_its_own_upstream() -> None:
    assert upstream_of({"HTTPS_PROXY": "http://penstock:token@127.0.0.1:4601"}) is None
    assert upstream_of({"https_proxy": "http://proxy:3128"}) == "http://proxy:3128"


def test_an_upstream_proxy_outlives_the_variables_of_penstock_env(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is started in a shell that has them finds the proxy that was there before."""
    settings = Settings(data=tmp_path)
    (tmp_path / "credentials.json").write_text(
        json.dumps({"access_key_id": "A", "secret_access_key": "S", "proxy_token": "T"})
    )
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    for _ in range(2):
        shell = world.variables(settings, {"url": "http://127.0.0.1:1", "doorway": "127.0.0.1:2"})
        assert shell["HTTPS_PROXY"] == "http://penstock:T@127.0.0.1:2"
        for name, value in shell.items():
            monkeypatch.setenv(name, value)
        assert upstream_of() == Settings.load(data=tmp_path).upstream_proxy == "http://proxy:3128"


@pytest.mark.parametrize("host", ["metadata.google.internal", "instance-data", "printer.local"])
def test_no_upstream_proxy_is_asked_for_a_private_name(
    behind: Open, upstream: tuple[int, list[bytes]], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = socket.getaddrinfo

    def unknown(name: Any, *rest: Any, **more: Any) -> Any:
        if name == host:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return resolved(name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert behind.connect(f"{host}:80") == 403
    assert upstream[1] == []


def test_a_redirect_to_the_metadata_service_ends_at_the_doorway(tmp_path: Path) -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data/\r\nContent-Length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def redirect() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head)

        thread = threading.Thread(target=redirect)
        thread.start()
        for leading in opened(Settings(data=tmp_path), ("127.0.0.1", 1), registries={("127.0.0.1", port)}):
            headers = urllib3.make_headers(proxy_basic_auth=f"penstock:{TOKEN}")
            with urllib3.ProxyManager(f"http://127.0.0.1:{leading.port}", proxy_headers=headers) as pool:
                answer = pool.request("GET", f"http://127.0.0.1:{port}/", timeout=10, redirect=True)
                assert (answer.status, b"does not lead there" in answer.data) == (403, True)
        thread.join(10)


def test_this_machines_own_addresses_are_known() -> None:
    assert (is_own("127.0.0.1"), is_own("93.184.216.34")) == (True, False)


def test_a_public_address_is_not_forbidden() -> None:
    assert not forbidden("93.184.216.34")
    assert not forbidden("2606:2800:220:1::1")
