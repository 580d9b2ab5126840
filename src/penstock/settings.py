"""Every knob: its name, default, unit and meaning. Frozen; made once, handed down."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from penstock import Refused

CACHES = ("aws", "aws+guard", "content")


def data_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of this user: $PENSTOCK_DATA, else $XDG_DATA_HOME/penstock, else ~/.local/share/penstock."""
    environ = os.environ if environ is None else environ
    if given := environ.get("PENSTOCK_DATA"):
        return Path(given).expanduser()
    home = environ.get("XDG_DATA_HOME") or os.path.join(environ.get("HOME", os.path.expanduser("~")), ".local", "share")
    return Path(home) / "penstock"


def knob(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, slots=True)
class Settings:
    """Read from the environment as PENSTOCK_<NAME>; options of `penstock up` win over it."""

    data: Path = field(default_factory=data_folder, metadata={"meaning": "Folder that holds all state."})
    host: str = knob("127.0.0.1", "Address the API listens on.")
    port: int = knob(4600, "Port of the API (0: a free one).")
    doorway_port: int = knob(4601, "Port of the forward proxy for programs that name AWS hosts (0: a free one).")
    account: str = knob("123456789012", "Account id of the first account.")
    region: str = knob("us-east-1", "Region handed to clients; requests may name any other.")
    fronts: int = knob(1, "Processes that answer the API.")
    cpus: float = knob(0.0, "Cores that jobs may use together (0: all of the machine).")
    memory_bytes: int = knob(0, "Memory that jobs may use together (0: all of the machine, less 1 GiB).")
    grace_s: float = knob(120.0, "What a job has between SIGTERM and SIGKILL when it is stopped or its time is over.")
    internet: bool = knob(True, "Whether jobs reach the internet through the doorway.")
    private_targets: str = knob(
        "",
        "Hosts of this machine or its network that the doorway leads to all the same, for jobs and programs: "
        "`git.corp, feast.corp:6566` (without a port: 80 and 443).",
    )
    upstream_proxy: str = knob(
        "", "Proxy through which the doorway reaches the internet (default: the HTTPS_PROXY that the server finds)."
    )
    patience_s: float = knob(60.0, "What a client has for a head, and for the next bytes of what it sends or takes.")
    max_body_bytes: int = knob(16 << 20, "Largest request body, but for objects and for archives of functions and layers (70 MB).")
    cache: str = knob(
        "aws+guard",
        "How steps with caching on are cached: aws (AWS's key), aws+guard (a hit is refused where the bytes at the inputs "
        "changed) or content (bytes instead of URIs). A pipeline's tag `penstock:cache` wins over it.",
    )
    quotas: str = knob(
        "",
        "Service quotas that jobs are held to: `ml.m5.large for training job usage=2, ml.t3.medium for processing job "
        "usage=4` (none: no quotas). Beyond one, CreateTrainingJob and the like answer ResourceLimitExceeded.",
    )
    spot_share: float = knob(
        0.3,
        "The part of their training time that managed spot jobs are billed for (BillableTimeInSeconds). At AWS it is what spot "
        "capacity costs at the moment, of the on-demand price; 0.3 is 70 % off.",
    )
    spares: bool = knob(
        True,
        "Whether a Python with its image's packages imported is made ahead for the next job like one that has just started "
        "(scikit-learn's and XGBoost's images); it goes after 20 s without such a job.",
    )
    lambda_idle_s: float = knob(600.0, "How long a function's worker is kept warm that nobody needs.")
    lambda_retry_s: float = knob(
        60.0, "Pause before the first retry of an asynchronous invocation; twice as long before the second, as at AWS."
    )
    keep_events_days: float = knob(7.0, "How long the outbox keeps events (0: for ever).")
    keep_points_days: float = knob(455.0, "How long metric points are kept, as at CloudWatch (0: for ever).")
    keep_logs_days: float = knob(0.0, "After how many days without a line a log stream goes (0: as its group says).")
    log_level: str = knob("info", "What the server's own log tells: debug, info, warning or error.")
    docker: str = knob(
        "",
        "The container engine that runs images which Penstock does not know: `auto` (Docker's or Podman's socket, wherever "
        "it is) or its address, `unix:///run/docker.sock`; empty: none. Needs the extra `penstock[docker]`.",
    )
    python_downloads: bool = knob(True, "Whether `uv` may fetch a Python that an image needs and the machine lacks.")

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """Settings from the environment and from options that are not None.

        Raises: Refused for a value that cannot be.
        """
        environ = os.environ if environ is None else environ
        hints = get_type_hints(cls)
        values: dict[str, Any] = {"data": data_folder(environ)}
        for knob_ in dataclasses.fields(cls):
            text = environ.get(f"PENSTOCK_{knob_.name.upper()}")
            if text is not None:
                values[knob_.name] = _read(knob_.name, text, hints[knob_.name])
        values.update({name: value for name, value in given.items() if value is not None})
        values["data"] = Path(os.path.abspath(values["data"]))  # a server in the background works elsewhere
        made = cls(**values)
        for name in ("port", "doorway_port"):
            if not 0 <= getattr(made, name) < 1 << 16:
                raise Refused(f"{name.replace('_', ' ')} {getattr(made, name)} is none: ports go from 0 (a free one) to 65535.")
        if made.cache not in CACHES:
            raise Refused(f"PENSTOCK_CACHE={made.cache!r} must be one of {', '.join(CACHES)}")
        if not 0.0 < made.spot_share <= 1.0:
            raise Refused(f"PENSTOCK_SPOT_SHARE={made.spot_share:g} must be more than 0 and at most 1")
        for item in filter(str.strip, made.quotas.split(",")):
            if not re.fullmatch(r".+ for .+ job usage *= *\d+", item.strip()):
                told = f"PENSTOCK_QUOTAS has {item.strip()!r}; a quota is written `ml.m5.large for training job usage=2`"
                raise Refused(told)
        return made


def _read(name: str, text: str, kind: type) -> Any:
    try:
        if kind is bool:
            return {
                "1": True,
                "true": True,
                "yes": True,
                "on": True,
                "0": False,
                "false": False,
                "no": False,
                "off": False,
            }[text.strip().lower()]
        return Path(text).expanduser() if kind is Path else kind(text)
    except (KeyError, ValueError):
        raise Refused(f"PENSTOCK_{name.upper()}={text!r} is no {kind.__name__}") from None
