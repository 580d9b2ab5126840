"""The world a program sees: the variables that lead AWS's clients to Penstock, and the commands that hand them over."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock import Refused, hosts, presence
from penstock.settings import Settings, data_folder

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Data folder (else PENSTOCK_DATA, else ~/.local/share/penstock).", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="As a JSON object.")]
PortOption = Annotated[
    int | None,
    typer.Option(help="Port of the server that is started if none is up; 0 takes a free one.", show_default="4600"),
]

FOREIGN = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
"""What would lead a program to another account; taken out, as is the endpoint of a single service."""
START_S = 60.0


def settings_of(data: Path | None, **given: Any) -> Settings:
    return Settings.load(data=data.expanduser().resolve() if data else None, **given)


def listing(data: Path | None) -> tuple[Settings, dict[str, Any]]:
    """The settings and the server of a command that only looks: it starts one on a folder that is there, and makes none.

    Raises: Refused.
    """
    settings = settings_of(data)
    if not settings.data.is_dir():
        raise Refused(f"There is no data folder {settings.data}: nothing ran there; `{typed('up', settings)}` makes it.")
    return settings, ensure_up(settings, quiet=True)


def settings_at(data: Path | None, port: int | None) -> Settings:
    """Settings of a command that starts a server if none is up; who names its port has another's 4601 in the way, too."""
    settings = settings_of(data, port=port, doorway_port=None if port is None else doorway_beside())
    tell_other_port(presence.running(settings.data), port)
    return settings


def tell_other_port(about: dict[str, Any] | None, port: int | None) -> None:
    """A line where the port that was asked for is not that of the server that is up."""
    if about and port and not str(about["url"]).endswith(f":{port}"):
        print(f"penstock: a server is up already, at {about['url']}: --port {port} has no say.", file=sys.stderr)


def doorway_beside() -> int | None:
    """A free doorway for who named the API's port alone, unless the environment names one."""
    return None if "PENSTOCK_DOORWAY_PORT" in os.environ else 0


def typed(command: str, settings: Settings | None = None) -> str:
    """How the person can type a command of `penstock` here: with --data where it would go to another folder without."""
    away = settings is not None and settings.data.resolve() != data_folder().resolve()
    return f"{_program()} {command}" + (f" --data {shlex.quote(str(settings.data))}" if settings and away else "")


def _program() -> str:
    """`penstock` by its name where it is on PATH, else by where it is."""
    if shutil.which("penstock"):
        return "penstock"
    program = Path(sys.executable).parent / "penstock"  # not resolved: an environment's python is a link
    if not program.exists():
        return f"{shlex.quote(sys.executable)} -m penstock"
    here = Path.cwd()
    return shlex.quote(str(program.relative_to(here) if program.is_relative_to(here) else program))


def credentials(settings: Settings) -> dict[str, str]:
    """The first account's keys, made at the first start.

    Raises: Refused when no server was ever started on the folder.
    """
    try:
        found: dict[str, str] = json.loads((settings.data / "credentials.json").read_text())
    except FileNotFoundError:
        raise Refused(f"There are no credentials in {settings.data} yet: `{typed('up', settings)}` makes them.") from None
    return found


def variables(settings: Settings, about: dict[str, Any]) -> dict[str, str]:
    """The environment that leads AWS's clients to the server."""
    keys = credentials(settings)
    bundle = str(settings.data / "ca" / "bundle.pem")
    proxy = f"http://penstock:{keys['proxy_token']}@{about['doorway']}"
    theirs = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").replace(" ", "").split(",")
    upstream = settings.upstream_proxy or hosts.upstream_of()
    here = {"127.0.0.1", "localhost", settings.host, *filter(stays_direct, theirs)}
    return {
        "AWS_ENDPOINT_URL": about["url"],
        "AWS_ACCESS_KEY_ID": keys["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": keys["secret_access_key"],
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_REGION": settings.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        **({"PENSTOCK_UPSTREAM_PROXY": upstream} if upstream else {}),
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
        "NO_PROXY": ",".join(sorted(here)),
        "no_proxy": ",".join(sorted(here)),
        **dict.fromkeys(
            ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"), bundle
        ),
    }


def is_foreign(name: str) -> bool:
    return name in FOREIGN or name.startswith("AWS_ENDPOINT_URL_")


def program_environment(settings: Settings, about: dict[str, Any]) -> dict[str, str]:
    """This process's environment with the way to the server in it."""
    mine = {name: value for name, value in os.environ.items() if not is_foreign(name)}
    return mine | variables(settings, about)


def stays_direct(host: str) -> bool:
    """Whether an entry of the person's own NO_PROXY may stay: not where it would lead past the doorway to AWS."""
    bare = host.lstrip("*.").partition(":")[0]
    return bool(bare) and not hosts.is_aws(bare) and bare not in ("com", "cn", "com.cn", "aws")


def ensure_up(settings: Settings, quiet: bool = False) -> dict[str, Any]:
    """The running server of the folder; starts one in the background if there is none.

    Raises: Refused with the server's own words when it cannot start.
    """
    if about := presence.running(settings.data):
        return about
    try:
        return start_detached(settings, quiet=quiet)
    except Refused:  # maybe because somebody else is starting it at this moment
        if about := presence.await_running(settings.data, START_S):
            return about
        raise


def server_command(settings: Settings, *more: str) -> list[str]:
    """The command whose process is the server. What else is set, it reads from the environment."""
    given = {"data": settings.data, "host": settings.host, "port": settings.port, "doorway-port": settings.doorway_port}
    options = [
        word for name, value in {**given, "fronts": settings.fronts}.items() for word in (f"--{name}", str(value))
    ]
    return [sys.executable, "-P", "-m", "penstock", "serve", *options, *more]  # -P: no module of this folder's


def start_detached(settings: Settings, quiet: bool = False) -> dict[str, Any]:
    """Starts a server in the background; what it tells about itself.

    Raises: Refused with its last words.
    """
    log = settings.data / "server.log"
    log_fd = presence.open_in(settings.data, log.name, os.O_WRONLY | os.O_APPEND)
    read_end, write_end = os.pipe()
    with open(log_fd, "ab") as out:
        began = out.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            server_command(settings, "--ready-fd", str(write_end)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            pass_fds=(write_end,),
            cwd="/",
        )
    os.close(write_end)
    with os.fdopen(read_end) as ready:
        text = ready.readline()  # a line once it is ready, nothing if it ended
    if not text:
        process.wait(START_S)
        words = log.read_bytes()[began:].decode(errors="replace").strip().splitlines()
        raise Refused(words[-1].removeprefix("penstock: ") if words else "The server ended without a word.")
    about: dict[str, Any] = json.loads(text)
    if not quiet:
        print(f"penstock: a server is up at {about['url']} (`{typed('down', settings)}` stops it)", file=sys.stderr)
    return about


def exec_(
    program: Annotated[list[str], typer.Argument(help="The program and its arguments.")],
    data: DataOption = None,
    port: PortOption = None,
) -> None:
    """Run any program with endpoint, credentials and region set; starts a server if none is up."""
    settings = settings_at(data, port)
    about = ensure_up(settings)
    try:
        os.execvpe(program[0], program, program_environment(settings, about))  # noqa: S606 - that is what was asked for
    except FileNotFoundError:
        raise Refused(f"There is no program {program[0]!r}.") from None
    except OSError as fault:
        raise Refused(f"{program[0]!r} cannot be run: {fault.strerror}.") from None


def env(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
    unset: Annotated[
        bool, typer.Option("--unset", help="The way back: takes all of them out of the shell, and starts nothing.")
    ] = False,
) -> None:
    """Print the variables for a shell, eval "$(penstock env)"; starts a server if none is up."""
    settings = settings_of(data)
    if unset:
        print("\n".join(f"unset {name}" for name in variables(settings, {"url": "", "doorway": ""})))
        return
    found = variables(settings, ensure_up(settings))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print("\n".join(f"unset {name}" for name in sorted(os.environ) if is_foreign(name)) or "# Penstock")
    for name, value in found.items():
        print(f"export {name}={shlex.quote(value)}")
