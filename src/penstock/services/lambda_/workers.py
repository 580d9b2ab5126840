"""The run of a worker: its sandbox, its environment, its credentials. Called by the dispatcher, in the engine process."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from penstock.functions.base import PREFIX, Order, Refusal
from penstock.kernel import auth, inside
from penstock.kernel.app import App
from penstock.kernel.call import Call, Caller
from penstock.kernel.errors import ServiceError
from penstock.runs.base import Environment, ImageError, Input, Instance, RunSpec
from penstock.services.lambda_ import archives, rules
from penstock.services.lambda_.state import FUNCTION, LATEST, NOT_FOUND, VERSION
from penstock.store.records import Change, Document, Query, Ref

HOST = f"{inside.CONTAINERS}/penstock_lambda"
TASK, LAYERS, PACKED = "/var/task", "/opt", "/var/penstock"
RUNTIME_PORT = 9001
LIFE_S = 30 * 86400.0
"""A worker that is never idle lives no longer, and its credentials a day more."""
ALONE_S = 900.0
"""How long a worker waits for a server that is gone."""
CPU_MB = 1769
"""The memory with which a function has one core."""
PROCESSES = 1024
KEYS = 100_000
SPARE_BYTES = 1 << 30
"""What a worker may write beside /tmp: the unpacked code lies there."""


class Workers:
    """Makes the runs of workers.

    Takes: the app of the engine process.
    """

    def __init__(self, app: App):
        self._app = app

    def make(self, order: Order, run: str) -> RunSpec | None:
        """The run of a worker for an order; None while the runtime's environment is being made.

        Raises: Refusal.
        """
        found = self._configuration(order)
        try:
            image = self._app.images.look(rules.image_of(found.body["Runtime"]))
        except ImageError as fault:
            raise Refusal("InvalidRuntimeException", str(fault)) from None
        if image is None:
            return None
        call = self._app.step_call(found, self._app.clock.now())
        try:
            inputs, arguments = _archives(call, found)
        except ServiceError as fault:
            raise Refusal(fault.code, fault.message) from None
        key = self._key(found, run)
        self._app.store.commit(Change(puts=[key]))
        return self._spec(found, run, image, key, inputs, arguments)

    def forget(self, run: str) -> None:
        """Takes back the credentials of a worker that has ended."""
        keys = auth.keys_of_run(self._app.store, run)
        if keys:
            self._app.store.commit(Change(deletes=keys))

    def sweep(self, runs: Collection[str]) -> None:
        """At the start: takes back the credentials of workers that are not among the runs."""
        keys = self._app.store.page(Query(kind=auth.KEY, limit=KEYS))
        named = [(key, key.parent or key.label) for key in keys]  # people's have their account as parent
        gone = [key for key, run in named if run.startswith(PREFIX) and run not in runs]
        if gone:
            self._app.store.commit(Change(deletes=gone))

    def _configuration(self, order: Order) -> Document:
        kind, name = (
            (FUNCTION.kind, order.function)
            if order.version == LATEST
            else (VERSION.kind, f"{order.function}:{order.version}")
        )
        found = self._app.store.get(Ref(kind, order.account, order.region, name))
        if found is None:
            raise Refusal(NOT_FOUND, f"Function not found: {order.arn}")
        return found

    def _key(self, found: Document, run: str) -> Document:
        """Credentials of the function's role, of no use to anybody but this worker."""
        role = found.body["Role"].rsplit("/", 1)[-1]
        caller = Caller(
            account=found.account,
            arn=f"arn:aws:sts::{found.account}:assumed-role/{role}/{found.body['FunctionName']}",
            run=run,
        )
        now = self._app.clock.now()
        return auth.make_key(caller, now, now + LIFE_S + 86400.0)

    def _spec(
        self, found: Document, run: str, image: Environment, key: Document, inputs: list[Input], arguments: list[str]
    ) -> RunSpec:
        app, body = self._app, found.body
        group = (body.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{body['FunctionName']}"
        day = datetime.fromtimestamp(app.clock.now(), UTC).strftime("%Y/%m/%d")
        stream = f"{day}/[{body['Version']}]{secrets.token_hex(16)}"
        log = app.logs.path(found.account, found.region, group, stream)
        memory_mb = int(body["MemorySize"])
        cpus = max(1.0, memory_mb / CPU_MB)
        env = inside.run_environment(
            region=found.region, key={"AccessKeyId": key.name, **key.body}, hosts=[],
            certificates=(app.settings.data / "ca" / "bundle.pem").exists(), image=image.env, packages={},
            own=_own(body, group, stream, image), given=(body.get("Environment") or {}).get("Variables") or {}, cpus=int(cpus),
        )  # fmt: skip
        return RunSpec(
            name=run, command=[image.python, HOST, *arguments], env=env, cwd=TASK, mounts=image.mounts, inputs=inputs,
            folders=[TASK], instances=[Instance("localhost", log=log)], blobs=str(app.settings.data / "blobs"), cpus=cpus,
            memory_bytes=memory_mb << 20, disk_bytes=(int(body["EphemeralStorage"]["Size"]) << 20) + SPARE_BYTES,
            processes=PROCESSES, timeout_s=LIFE_S, alone_s=ALONE_S, grace_s=0.0, share="functions", party=found.arn,
            doors={"functions": RUNTIME_PORT}, layers=[*image.layers, *app.layers],
            labels={"kind": found.kind, "account": found.account, "region": found.region, "name": found.name},
        )  # fmt: skip


def _archives(call: Call, found: Document) -> tuple[list[Input], list[str]]:
    """The archives of a function and its layers, and what the host is told of them: the layers in order, the code last."""
    body = found.body
    inputs, arguments = [], []
    for number, layer in enumerate(body.get("Layers") or [], 1):
        target = f"{PACKED}/layer-{number}.zip"
        inputs.append(archives.input_of(call, layer["_code"], found.region, target))
        arguments += [target, LAYERS]
    target = f"{PACKED}/code.zip"
    inputs.append(archives.input_of(call, body["_code"], found.region, target))
    return inputs, [*arguments, target, TASK]


def _own(body: dict[str, Any], group: str, stream: str, image: Environment) -> dict[str, str]:
    """The variables that the service sets.

    Source: docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
    """
    return {
        "_HANDLER": body["Handler"],
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{body['Runtime']}",
        "AWS_LAMBDA_FUNCTION_NAME": body["FunctionName"],
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(body["MemorySize"]),
        "AWS_LAMBDA_FUNCTION_VERSION": body["Version"],
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": group,
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{RUNTIME_PORT}",
        "LAMBDA_TASK_ROOT": TASK,
        "LAMBDA_RUNTIME_DIR": HOST,
        "TZ": ":UTC",
        "PATH": f"{image.env.get('PATH', '/usr/bin:/bin')}:/opt/bin",
        "LD_LIBRARY_PATH": f"{TASK}:{TASK}/lib:/opt/lib",
    }
