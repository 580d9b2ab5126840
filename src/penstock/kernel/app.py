"""The app: the parts that meet in the composition root, and the way from an operation's name to its function.

No globals: it is handed down through `Call`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from penstock.kernel import idempotency, upkeep
from penstock.kernel.call import Call, Caller
from penstock.kernel.clock import Clock
from penstock.kernel.errors import ServiceError, unserved
from penstock.store.base import Store
from penstock.store.records import Document
from penstock.wire import models, validate

if TYPE_CHECKING:
    from penstock.settings import Settings

Operation = Callable[[Call], "dict[str, Any] | None"]
Step = Callable[[Call, Document], "float | None"]
PACKAGES = {"lambda": "lambda_"}
"""Service names that are no Python names."""


@dataclass(slots=True)
class App:
    """What operations and steps may use. `runs` is there in the engine process only; fronts only ask `images` for names."""

    settings: Settings
    store: Store
    blobs: Any
    clock: Clock
    services: Sequence[str]
    logs: Any = None
    """The folder of log streams: penstock.kernel.logs.Logs."""
    runs: Any = None
    """runs.base.Executor"""
    images: Any = None
    """runs.base.Images"""
    layers: list[str] = field(default_factory=list)
    """What every job finds in its root beside its image: `RunSpec.layers`."""
    functions: Any = None
    """functions.base.Functions"""
    search: Any = None
    """search.base.LateSearch"""
    nudge: Callable[[Any], Any] | None = None
    _functions: dict[tuple[str, str], Operation | None] = field(default_factory=dict)
    _modules: dict[str, list[ModuleType]] = field(default_factory=dict)

    # --- services
    def modules(self, service: str, noun: str) -> list[ModuleType]:
        """The `noun` ("api", "engine") modules of a service: of its package, and of its folders when it is a folder of folders."""
        key = f"{service}.{noun}"
        if key not in self._modules:
            package = importlib.import_module(f"penstock.services.{PACKAGES.get(service, service.replace('-', '_'))}")
            names = [package.__name__, *(f"{package.__name__}.{folder}" for folder in getattr(package, "FOLDERS", ()))]
            self._modules[key] = [m for name in names if (m := _import_if_there(f"{name}.{noun}"))]
        return self._modules[key]

    def function(self, operation: models.Operation) -> Operation | None:
        """The function that serves the operation, or None."""
        key = (operation.service.name, operation.name)
        if key not in self._functions:
            name = operation.python_name
            self._functions[key] = next(
                (getattr(m, name) for m in self.modules(key[0], "api") if hasattr(m, name)), None
            )
        return self._functions[key]

    def steps(self) -> dict[str, Step]:
        """Every service's engine steps, by kind."""
        return {**upkeep.STEPS, **self._of_engines("STEPS")}

    def give_up(self) -> dict[str, Step]:
        """What ends a document whose step raises whatever it does, by kind; kinds that nobody waits for have none."""
        return self._of_engines("GIVE_UP")

    def _of_engines(self, table: str) -> dict[str, Step]:
        found: dict[str, Step] = {}
        for service in self.services:
            for module in self.modules(service, "engine"):
                found.update(getattr(module, table, {}))
        return found

    # --- calls
    def perform(self, call: Call, operation: models.Operation) -> dict[str, Any]:
        """Validates, runs and answers one call; what it wants written is in `call.change` afterwards.

        Raises: ServiceError, with 501 for what is not served.
        """
        function = self.function(operation)
        if function is None:
            raise unserved(operation.service.name, operation.name)
        try:
            validate.check(operation, call.params)
        except validate.Invalid as fault:
            raise ServiceError(fault.code, fault.message) from None
        return idempotency.answer(call, operation, function)

    def run(self, outer: Call, service: str, operation_name: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """`Call.other`: the same path without the wire, writing into the outer call's change."""
        operation = models.service(service).operations[operation_name]
        call = Call(
            app=self,
            caller=outer.caller,
            service=service,
            operation=operation_name,
            region=outer.region,
            params=dict(params),
            request_id=outer.request_id,
            now=outer.now,
            change=outer.change,
            by_ref=outer.by_ref,
        )
        return self.perform(call, operation)

    def step_call(self, document: Document, now: float) -> Call:
        """The call that an engine step of the document gets: made by its account, in its region."""
        caller = Caller(account=document.account, arn=f"arn:aws:iam::{document.account}:root")
        return Call(
            app=self,
            caller=caller,
            service=document.kind.partition(".")[0],
            operation="",
            region=document.region,
            params={},
            request_id=document.name,
            now=now,
        )


def _import_if_there(name: str) -> ModuleType | None:
    if importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module(name)
