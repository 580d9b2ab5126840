"""The way of training, processing and transform jobs from their creation to their run and back.

look_at      one look of the engine: starts the run, follows it, publishes what it left, cleans up
recover      at the engine's start
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

from penstock.kernel import auth
from penstock.kernel.app import App
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.runs.base import ENDED, LOST, RUNNING, STARTING, WAITING, Executor, ImageError, RunState
from penstock.services.sagemaker import contract, faults
from penstock.services.sagemaker.lineage import jobs as lineage
from penstock.services.sagemaker.nouns import FINAL, NOUNS, run_ref, stream_name
from penstock.services.sagemaker.programs import Kind
from penstock.services.sagemaker.results import publish, unpublished
from penstock.services.sagemaker.specs import NotYet, sentence, specify
from penstock.services.sagemaker.telling import show, tell
from penstock.store.records import Change, Document, Query, Wake

HEARTBEAT_S = 20.0
"""How often a running job is looked at when nothing is heard of it."""
CONTINUOUS_S = 5.0
PUBLISHED_AT_ONCE = 2000
ATTEMPTS = 2


def recover(app: App) -> int:
    """At the engine's start: has every job that has not ended looked at now, since what waited for capacity is forgotten.

    Gives how many there are. Also gives back the folders of ended runs whose jobs have ended too, or were deleted.
    """
    wakes: list[Wake] = []
    for kind in NOUNS:
        for status in ("InProgress", "Stopping"):
            for document in app.store.page(Query(kind=kind, status=status, limit=100_000)):
                ref = document.ref
                wakes.append(
                    Wake(kind=ref.kind, account=ref.account, region=ref.region, name=ref.name, due=app.clock.now())
                )
    if wakes:
        app.store.commit(Change(wakes=wakes))
    runs: Executor = app.runs
    for name in runs.names():
        ref_of_run = run_ref(name)
        job = app.store.get(ref_of_run) if ref_of_run else None
        state = runs.look(name)
        over = ref_of_run is not None and (job is None or job.body["_run"] != name or job.status in FINAL)
        if over and state and state.phase in (ENDED, LOST):
            runs.forget(name)
    return len(wakes)


def look_at(call: Call, kind: Kind, document: Document) -> float | None:
    """One look at a job; gives the seconds until the next."""
    runs: Executor = call.app.runs
    name = document.body["_run"]
    state = runs.look(name)
    if document.status in FINAL:
        if state and state.phase in (STARTING, RUNNING):  # it was given up
            runs.stop(name)
            return HEARTBEAT_S
        runs.forget(name)
        lineage.settle(call, document)
        return None
    stopping = document.status == "Stopping"
    if state is None:
        if stopping:
            return conclude(call, kind, document, RunState(ENDED, reason="stopped", ended=call.now))
        started = _start(call, kind, document)
        if not isinstance(started, RunState):
            return started
        state = started
    if state.phase == ENDED:
        return conclude(call, kind, document, state)
    if state.phase == LOST:
        return _recover(call, kind, document, state)
    if stopping:
        runs.stop(name)
        return HEARTBEAT_S
    if state.phase == WAITING:
        show(call, kind, document, kind.wait(call, document))
        return HEARTBEAT_S
    if state.phase == STARTING:  # that its program runs, or has ended, will be heard of
        return HEARTBEAT_S
    return _follow(call, kind, document, state)


def give_up(call: Call, kind: Kind, document: Document) -> float | None:
    """Ends a job whose looks raise whatever is done; what runs of it is stopped by the next look."""
    if document.status in FINAL:
        return None
    conclude(call, kind, document, RunState(ENDED, ended=call.now), contract.INTERNAL_REASON)
    return 0.0


def _start(call: Call, kind: Kind, document: Document) -> RunState | float | None:
    """Starts the job's run: its state, or the seconds until the next try."""
    if struck := faults.failure_of(call, document):
        return conclude(call, kind, document, RunState(ENDED, ended=call.now), struck)
    try:
        spec, note = specify(call, kind, document)
    except NotYet as wait:
        return wait.seconds
    except (ImageError, ServiceError) as fault:
        return conclude(call, kind, document, RunState(ENDED, ended=call.now), sentence(fault))
    for instance in spec.instances:
        if note and not os.path.getsize(instance.log):
            call.app.logs.append(instance.log, call.now, note)
    runs: Executor = call.app.runs
    return runs.start(spec)


def _follow(call: Call, kind: Kind, document: Document, state: RunState) -> float:
    """Shows that the program runs, and publishes what it has written so far."""
    news = kind.run(call, document, state.started or call.now)
    if state.results:
        try:
            with call.attempt():
                news |= publish(call, kind, document, state)
        except ServiceError as error:  # its place is gone: the next look stops the run
            conclude(call, kind, document, RunState(ENDED, started=state.started, ended=call.now), unpublished(error))
            return 0.0
    show(call, kind, document, news)
    return CONTINUOUS_S if _is_live(document) else HEARTBEAT_S


def _is_live(document: Document) -> bool:
    """Whether the job puts files into S3 while it runs."""
    body = document.body
    entries = (body.get("ProcessingOutputConfig") or {}).get("Outputs") or []
    modes = {entry.get("S3Output", {}).get("S3UploadMode") for entry in entries}
    return bool(body.get("CheckpointConfig")) or "Continuous" in modes or "TransformOutput" in body


def _recover(call: Call, kind: Kind, document: Document, state: RunState) -> float | None:
    """A run whose supervisor is gone may be tried again, once: from the beginning, or from what is published."""
    if document.status == "Stopping":
        return conclude(call, kind, document, RunState(ENDED, reason="stopped", ended=call.now, results=state.results))
    if state.attempt >= ATTEMPTS:
        return conclude(call, kind, document, state, contract.INTERNAL_REASON)
    try:
        with call.attempt():
            fresh = publish(call, kind, document, state)
    except ServiceError as error:
        return conclude(call, kind, document, RunState(ENDED, ended=call.now), unpublished(error))
    if fresh:  # the next attempt leaves it out, or begins with it: it must be there before
        kind.resource.save(call, document)
        return 0.0
    for host in kind.hosts(document):
        file = call.app.logs.path(document.account, document.region, kind.group, stream_name(document, host.name))
        call.app.logs.append(file, call.now, f"penstock: the run was lost; attempt {state.attempt + 1} begins.")
    runs: Executor = call.app.runs
    spec = None
    if kind.resumed or document.body.get("CheckpointConfig"):  # what went up before the loss is what the next attempt goes on from
        try:
            spec, _ = specify(call, kind, document)
        except NotYet as wait:
            return wait.seconds
        except (ImageError, ServiceError) as fault:
            return conclude(call, kind, document, state, sentence(fault))
    runs.retry(document.body["_run"], spec)
    return HEARTBEAT_S


def conclude(call: Call, kind: Kind, document: Document, state: RunState, fault: str | None = None) -> float | None:
    """Publishes what the run left and ends the job, in one change; before it many results, some at a time."""
    begun = document.body.get("_taken", 0)
    many = len(state.results) - begun > PUBLISHED_AT_ONCE
    if many and not fault and _publish_some(call, kind, document, state, begun):
        return 0.0
    if rest := state.results[begun:]:
        try:
            with call.attempt():
                publish(call, kind, document, replace(state, results=rest))
        except ServiceError as error:
            fault = fault or unpublished(error)
    kind.end(call, document, state, fault)
    for member in ("_published", "_taken", "_keys"):
        document.body.pop(member, None)
    run, runs = document.body["_run"], call.app.runs
    for key in auth.keys_of_run(call.app.store, run):
        call.delete(key)
    pause_s = lineage.owe(call, document)
    kind.resource.save(call, document)
    tell(call, document)
    call.afterwards.append(lambda: _give_back(runs, run))
    return pause_s


def _give_back(runs: Executor, name: str) -> None:
    """Gives a run's folder back; one that was given up while it runs waits for the next look."""
    with contextlib.suppress(ValueError):
        runs.forget(name)


def _publish_some(call: Call, kind: Kind, document: Document, state: RunState, begun: int) -> bool:
    """Publishes the next of many results: a change of a hundred thousand rows would have everybody wait. Not where it cannot."""
    until = begun + PUBLISHED_AT_ONCE
    try:
        with call.attempt():
            publish(call, kind, document, replace(state, results=state.results[begun:until]))
    except ServiceError:
        return False
    document.body["_taken"] = until
    kind.resource.save(call, document)
    return True
