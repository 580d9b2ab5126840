"""pytest plugin: one JSON line a test (outcome, seconds, AWS operations called), a time limit, and a world of its own for each test.

Load with `-p conformance`; `moto.py` and `sdk.py` do. Needs pytest and botocore, nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import boto3
import pytest
from botocore import handlers

MOTO_ACCOUNT = "123456789012"


class TimeLimit(BaseException):
    """A test ran past --limit. A BaseException, so that no `except Exception` of a test swallows it."""


def read_list(path: str | Path) -> dict[str, str]:
    """Reads `node id  # remark` lines. Gives id -> remark."""
    found = {}
    for line in Path(path).read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            node, _, remark = line.partition("  #")
            found[node.strip()] = remark.strip()
    return found


def listed(node: str, table: dict[str, str]) -> str | None:
    """The remark of the entry that is `node`, its function without parameters, its class or its file."""
    plain = node.split("[", 1)[0]
    parts = plain.split("::")
    for key in [node] + ["::".join(parts[:n]) for n in range(len(parts), 0, -1)]:
        if key in table:
            return table[key]
    return None


class Calls:
    """What the test under way asked of AWS, by botocore's own events. With `account` set, shows tests their account as MOTO_ACCOUNT."""

    def __init__(self) -> None:
        self.account: str | None = None
        self.clear()

    def clear(self) -> None:
        self.count: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.buckets: list[str] = []
        self.groups: set[str] = set()

    def install(self) -> None:
        handlers.BUILTIN_HANDLERS[:0] = [
            ("before-call", self.before_call),
            ("before-parse", self.before_parse),
            ("after-call", self.after_call),
            ("after-call-error", self.after_call_error),
        ]

    def before_call(self, model, params, **_) -> None:  # type: ignore[no-untyped-def]
        self.count[f"{model.service_model.service_name}:{model.name}"] += 1
        if self.account:
            theirs, ours = MOTO_ACCOUNT, self.account
            body = params.get("body")
            if isinstance(body, bytes | bytearray) and model.service_model.service_name != "s3":
                params["body"] = bytes(body).replace(theirs.encode(), ours.encode())
            elif isinstance(body, dict):
                params["body"] = {k: v.replace(theirs, ours) if isinstance(v, str) else v for k, v in body.items()}
            elif isinstance(body, str):
                params["body"] = body.replace(theirs, ours)
            for part in ("url", "url_path"):
                if isinstance(params.get(part), str):
                    params[part] = params[part].replace(theirs, ours)
            for name, value in list(params.get("headers", {}).items()):
                if isinstance(value, str) and theirs in value:
                    params["headers"][name] = value.replace(theirs, ours)

    def before_parse(self, operation_model, response_dict, **_) -> None:  # type: ignore[no-untyped-def]
        body = response_dict.get("body")
        if self.account and isinstance(body, bytes):
            response_dict["body"] = body.replace(self.account.encode(), MOTO_ACCOUNT.encode())

    def after_call(self, http_response, parsed, model, **_) -> None:  # type: ignore[no-untyped-def]
        name = f"{model.service_model.service_name}:{model.name}"
        if http_response.status_code >= 400:
            code = (parsed.get("Error") or {}).get("Code", "")
            self.refused[f"{name} {http_response.status_code} {code}"] += 1

    def after_call_error(self, exception, model=None, event_name="", **_) -> None:  # type: ignore[no-untyped-def]
        self.refused[f"{event_name.removeprefix('after-call-error.')} {type(exception).__name__}"] += 1


CALLS = Calls()
CALLS.install()


def note_bucket(params, **_) -> None:  # type: ignore[no-untyped-def]
    CALLS.buckets.append(params["Bucket"])


handlers.BUILTIN_HANDLERS.append(("before-parameter-build.s3.CreateBucket", note_bucket))


def sweep_buckets(names: list[str]) -> None:
    """Bucket names are global: a test's buckets must go even where each test has an account of its own."""
    s3 = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))
    for name in dict.fromkeys(names):
        try:
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
                for row in page.get("Versions", []) + page.get("DeleteMarkers", []):
                    s3.delete_object(Bucket=name, Key=row["Key"], VersionId=row["VersionId"])
            s3.delete_bucket(Bucket=name)
        except Exception:  # a bucket that will not go is the server's affair; the next test that wants it will say so
            continue


class Worlds:
    """How a test gets a world without the leavings of the one before: a reset, an account of its own, or nothing."""

    def __init__(self, config: pytest.Config) -> None:
        self.kind = config.getoption("isolation")
        self.url = config.getoption("reset_url")
        self.command = config.getoption("reset_command")
        accounts = config.getoption("accounts")
        self.accounts = Path(accounts) if accounts else None
        self.sweep = config.getoption("sweep_buckets")
        self.owner: type | None = None

    def enter(self, cls: type | None) -> None:
        """A world for the next test; tests of a class that sets things up for all of them share one."""
        owner = cls if cls is not None and hasattr(cls, "setup_class") else None
        if owner is None or owner is not self.owner:
            self.fresh()
        self.owner = owner

    def fresh(self) -> None:
        if self.kind == "reset" and self.url:
            urllib.request.urlopen(urllib.request.Request(self.url, method="POST"), timeout=30).read()
        elif self.kind == "reset":
            subprocess.run(self.command, shell=True, check=True, stdout=subprocess.DEVNULL, timeout=60)
        elif self.kind == "account":
            assert self.accounts
            with open(f"{self.accounts}.lock", "w") as lock:  # groups that run at the same time share the file
                fcntl.flock(lock, fcntl.LOCK_EX)
                rows = self.accounts.read_text().splitlines()
                if not rows:
                    raise pytest.UsageError("there are too few accounts")
                self.accounts.write_text("\n".join(rows[1:]))
            row = json.loads(rows[0])
            os.environ.update(AWS_ACCESS_KEY_ID=row["AccessKeyId"], AWS_SECRET_ACCESS_KEY=row["SecretAccessKey"])
            os.environ.pop("AWS_SESSION_TOKEN", None)
            if row.get("SessionToken"):
                os.environ["AWS_SESSION_TOKEN"] = row["SessionToken"]
            CALLS.account = row["AccountId"]
            boto3.DEFAULT_SESSION = None

    def leave(self) -> None:
        if self.sweep and CALLS.buckets:
            sweep_buckets(CALLS.buckets)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--record", help="append one JSON line a test to this file")
    group.addoption("--limit", type=int, default=0, help="seconds a test may take, set-up included; 0: no limit")
    group.addoption("--not-applicable", default="", help="a list of node ids to leave out, with a remark each")
    group.addoption("--only-ids", default="", help="a file of node ids; everything else is deselected")
    group.addoption("--isolation", choices=["none", "reset", "account"], default="none")
    group.addoption("--reset-url", default="")
    group.addoption("--reset-command", default="")
    group.addoption(
        "--accounts", default="", help="a file of JSON lines: AccessKeyId, SecretAccessKey, SessionToken, AccountId"
    )
    group.addoption("--sweep-buckets", action="store_true", help="delete the buckets that a test made")
    group.addoption(
        "--server-account", default="", help="the account of the caller, if it is not the tests' own 123456789012"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("record"):
        config.pluginmanager.register(Recorder(config), "conformance-recorder")
    CALLS.account = config.getoption("server_account") or None


class Recorder:
    def __init__(self, config: pytest.Config) -> None:
        self.out = Path(config.getoption("record")).open("a", buffering=1)  # noqa: SIM115
        self.limit = config.getoption("limit")
        skip = config.getoption("not_applicable")
        self.skip = read_list(skip) if skip else {}
        only = config.getoption("only_ids")
        self.only = set(read_list(only)) if only else None
        self.worlds = Worlds(config)
        self.row: dict = {}

    def write(self, **row: object) -> None:
        self.out.write(json.dumps(row) + "\n")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept, dropped = [], []
        for item in items:
            remark = listed(item.nodeid, self.skip)
            if remark is not None:
                self.write(
                    event="test", id=item.nodeid, outcome="not applicable", why=remark, seconds=0, calls={}, refused={}
                )
            wanted = remark is None and (
                self.only is None or listed(item.nodeid, dict.fromkeys(self.only, "")) is not None
            )
            (kept if wanted else dropped).append(item)
        items[:] = kept
        config.hook.pytest_deselected(items=dropped)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.write(event="collected", ids=[item.nodeid for item in session.items])  # what -k left

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.write(event="uncollected", id=report.nodeid, why=str(report.longrepr)[-2000:])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None):  # type: ignore[no-untyped-def]
        CALLS.clear()
        random.seed()
        self.write(event="start", id=item.nodeid)
        self.row = {"id": item.nodeid, "outcome": "passed", "why": "", "started": time.time()}
        if self.limit:
            signal.signal(signal.SIGALRM, self.expire)
            signal.setitimer(signal.ITIMER_REAL, self.limit, 20)
        try:
            try:
                self.worlds.enter(getattr(item, "cls", None))
            except Exception as error:
                print(f"no fresh world: {error}", file=sys.stderr)
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            calls, refused = dict(CALLS.count), dict(CALLS.refused)
            if self.limit:
                signal.setitimer(signal.ITIMER_REAL, 30, 30)
            with contextlib.suppress(TimeLimit):
                self.worlds.leave()
            signal.setitimer(signal.ITIMER_REAL, 0)
            row = self.row
            self.write(
                event="test",
                id=row["id"],
                outcome=row["outcome"],
                why=row["why"],
                seconds=round(time.time() - row["started"], 2),
                calls=calls,
                refused=refused,
            )

    def expire(self, *_: object) -> None:
        raise TimeLimit(f"longer than {self.limit} s")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo):  # type: ignore[no-untyped-def]
        report = yield
        if report.skipped and self.row["outcome"] == "passed":
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "expected failure"
            self.row.update(outcome="skipped", why=str(reason)[:300])
        elif report.failed and self.row["outcome"] in ("passed", "skipped"):
            late = call.excinfo is not None and call.excinfo.errisinstance(TimeLimit)
            line = call.excinfo.exconly() if call.excinfo else ""
            self.row.update(outcome="timeout" if late else "failed", why=f"{call.when}: {line}"[:600])
        return report
