from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from penstock import authority
from penstock.doorway import Closed, Doorway, forbidden
from penstock.runs.images.indexes import read_indexes, redact
from penstock.settings import Settings


def write_conf(home: Path, text: str) -> dict[str, str]:
    folder = home / ".config" / "pip"
    folder.mkdir(parents=True)
    (folder / "pip.conf").write_text(text)
    return {"HOME": str(home), "XDG_CONFIG_DIRS": "/nonexistent"}


def test_pip_conf_reaches_uv(tmp_path: Path) -> None:
    environ = write_conf(
        tmp_path,
        "[global]\nindex-url = https://a/simple\nextra-index-url =\n  https://b/simple\n  https://c/simple\n"
        "trusted-host = d\n",
    )
    env = read_indexes(environ).for_uv(environ)
    assert env["UV_DEFAULT_INDEX"] == "https://a/simple"
    assert env["UV_INDEX"] == "https://b/simple https://c/simple"
    assert env["UV_INSECURE_HOST"] == "d"
    assert env["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_a_pip_variable_wins_over_the_file_and_uvs_own_over_both(tmp_path: Path) -> None:
    environ = write_conf(tmp_path, "[global]\nindex-url = https://a/simple\n") | {"PIP_INDEX_URL": "https://b/simple"}
    assert read_indexes(environ).for_uv(environ)["UV_DEFAULT_INDEX"] == "https://b/simple"
    environ["UV_DEFAULT_INDEX"] = "https://c/simple"
    assert read_indexes(environ).for_uv(environ)["UV_DEFAULT_INDEX"] == "https://c/simple"


def test_the_server_s_other_variables_do_not_reach_uv(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "AWS_SECRET_ACCESS_KEY": "x", "HTTPS_PROXY": "http://p", "VIRTUAL_ENV": "/v"}
    env = read_indexes(environ).for_uv(environ)
    assert env["HTTPS_PROXY"] == "http://p"
    assert not {"AWS_SECRET_ACCESS_KEY", "VIRTUAL_ENV"} & env.keys()


def test_jobs_get_pip_and_uv_variables_without_the_machine_s_certificates(tmp_path: Path) -> None:
    environ = {
        "HOME": str(tmp_path),
        "PIP_INDEX_URL": "https://a/simple",
        "PIP_CERT": "/c.pem",
        "UV_CACHE_DIR": "/cache",
    }
    assert read_indexes(environ | {"PIP_CONFIG_FILE": "/dev/null"}).for_jobs() == {
        "PIP_INDEX_URL": "https://a/simple",
        "UV_DEFAULT_INDEX": "https://a/simple",
    }


def test_local_folders_are_named(tmp_path: Path) -> None:
    for name in ("simple", "files", "secrets"):
        (tmp_path / name).mkdir()
    environ = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_EXTRA_INDEX_URL": f"file://{tmp_path}/simple https://b",
        "PIP_FIND_LINKS": "/no/such",
    }
    assert read_indexes(environ).folders() == [f"{tmp_path}/simple", f"{tmp_path}/files"]


def test_no_index_switched_off_is_no_setting() -> None:
    assert "no-index" not in read_indexes({"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "false"}).pip


def test_credentials_in_urls_are_redacted() -> None:
    assert (
        redact("at https://ann:pw@host/simple and http://tok@h:1/")
        == "at https://****@host/simple and http://****@h:1/"
    )
    assert redact("mail a@b, https://host/x@y") == "mail a@b, https://host/x@y"


def test_the_registries_of_the_settings_are_known_by_host_and_port(tmp_path: Path) -> None:
    environ = write_conf(
        tmp_path, "[global]\nindex-url = https://me:secret@a/simple\nextra-index-url = http://b:3141/simple file:///c\n"
    ) | {"UV_INDEX": "inner=https://d/simple http://e/x", "UV_INDEX_STRATEGY": "first-index", "UV_CACHE_DIR": "/f"}
    assert read_indexes(environ).places() == {("a", 443), ("b", 3141), ("d", 443), ("e", 80)}


def test_the_doorway_lets_jobs_reach_them_on_addresses_that_are_otherwise_forbidden(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    authority.establish(tmp_path / "ca")
    with socket.create_server(("127.0.0.1", 0)) as registry, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [listening.getsockname()[1] for listening in (registry, other)]
        doorway = Doorway(settings, "token", ("127.0.0.1", 1), None, {("localhost", ports[0])})

        async def go(port: int) -> None:
            _, writer = await doorway._outside("localhost", port)
            writer.close()
            await writer.wait_closed()

        asyncio.run(go(ports[0]))
        with pytest.raises(Closed, match="ports 80 and 443 only"):
            asyncio.run(go(ports[1]))


def test_networks_kept_for_documentation_are_nobodys_and_not_forbidden() -> None:
    assert not forbidden("203.0.113.80")
    assert not forbidden("2001:db8::1")
    assert forbidden("198.18.0.1")
