"""Watches over one run from its start to its exit record, and outlives the server and the runner.

It lays the inputs, makes the namespaces and the root, starts bubblewrap, moves the output to the log, holds the time limit, takes the
outputs, and writes the exit record. It holds a lock meanwhile. If it dies, the kernel kills its sandbox, and nothing was published.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.runs import endings, limits, linux, network, outputs, sandbox
from penstock.runs.base import ENDED, Instance, RunSpec, RunState
from penstock.runs.folder import KEPT, STOP, Order, RunFolder
from penstock.runs.live import LiveOutputs
from penstock.runs.logs import LogPump
from penstock.runs.lookout import Lookout
from penstock.runs.roots import Ground, Roots
from penstock.runs.spares import Spare, fitting, mentions
from penstock.runs.trees import remove_tree

OTHERS_GRACE_S = 10.0
"""How long the other instances have after one has failed."""
TERM_AGAIN_S = 0.005
LEAVE_S = 0.1
MARK_S = 0.25
"""How long a program must have run to be told of: the end of a shorter one says all, and is looked at once."""


def supervise(attempt: Attempt) -> bool:
    """Runs a run whose lock this process holds to its end, from inside its cell; False if something went wrong here."""
    folder, order = attempt.folder, attempt.order
    well = True
    try:
        state = attempt.run()
    except Exception as error:
        with contextlib.suppress(OSError):  # the runner's log lies on the same disk
            traceback.print_exc(file=sys.stderr)
        attempt.kill()
        state, well = endings.not_made(error, order.attempt), False
    endings.record(folder, state, attempt.clean)
    attempt.clean()
    return well


@dataclass(slots=True)
class Program:
    """One instance's bubblewrap, and what is known of the program in it."""

    instance: Instance
    pump: LogPump
    cell: limits.Cell
    pid: int = 0
    process: int = -1
    """A pidfd of bubblewrap."""
    first: int = 0
    """The pid of the sandbox's pid 1, as seen from here; 0 until known."""
    first_process: int = -1
    status: bytes = b""
    ended: bool = False
    drained: bool = False
    exit_code: int = 0
    made: bool = True
    cpu_s: float = 0.0
    peak_bytes: float = 0.0


@dataclass(slots=True)
class Times:
    """When the loop has to act by itself (monotonic seconds)."""

    deadline: float = float("inf")
    kill: float = float("inf")
    term: float = float("inf")
    offer: float = float("inf")
    alone: float = float("inf")
    leave: float = float("inf")
    mark: float = float("inf")


class Attempt:
    """One attempt at a run."""

    def __init__(self, folder: RunFolder, order: Order, ground: Ground, means: limits.Means, cell: limits.Cell):
        self.folder, self.order, self.ground, self.means, self.cell = folder, order, ground, means, cell
        self.house = ground.house
        self.spec: RunSpec = order.spec
        self.scratch = folder.path / str(order.attempt)
        self.roots = Roots(self.spec, ground, self.scratch)
        self.programs: list[Program] = []
        self.handouts: list[network.Handout] = []
        self.selector = selectors.DefaultSelector()
        self.times = Times()
        self.reason = self.message = ""
        self.failed: Program | None = None
        self.started = 0.0
        self.early: list[Program] = []
        self.lookout: Lookout | None = None
        self.namespaces: list[network.Namespace] = []
        self.watch: linux.Watch | None = None
        self.limiting: threading.Thread | None = None
        self.closed = False
        self.live: LiveOutputs | None = None
        self.spare: Spare | None = None
        """A waiting Python that fits, made for this run alone."""
        self.advise: Callable[[Order], None] = lambda order: None
        """Told of what the next spare should be like."""

    def run(self) -> RunState:
        """Makes everything, waits for the end, takes the outputs; gives the exit record."""
        self._listen()
        # Before the start: killed while bubblewrap makes its namespaces, it leaves a pid 1 that waits for ever, for the runner to find.
        self.folder.note_cell(self.cell.name)
        self._make()
        self._start()
        if reason := self.folder.stop_reason():
            self.end_early(reason)
        while not all(p.ended and p.drained for p in self.programs):
            self._wait()
        return self._conclude()

    def _listen(self) -> None:
        """Hears of a stop at once; where the user's inotify instances are used up (128 by default), each look asks for it."""
        try:
            watch = linux.Watch()
        except OSError:
            return
        self.watch = watch
        watch.add(self.folder.path)
        self.selector.register(watch.fd, selectors.EVENT_READ, lambda: self._hear(watch))

    # --- making

    def _make(self) -> None:
        """Lays and mounts the roots, opens logs and ports."""
        self.roots.lay()
        for number, instance in enumerate(self.spec.instances):
            self._prepare(number, instance)
        self.ground.enter()
        self._make_network()
        self.roots.mount()

    def _prepare(self, number: int, instance: Instance) -> None:
        """Opens one instance's log and sets its limits."""
        log = Path(instance.log or self.folder.path / f"{instance.host}.log")
        cell = limits.Cell(self.means, f"{self.cell.name}.{number}") if number else self.cell
        pipe = None
        if self.spare is not None:
            cell, pipe = self.spare.cell, self.spare.give_output()
        self.programs.append(Program(instance, LogPump(log, self.spec.log_bytes, pipe), cell))

    def _make_network(self) -> None:
        self.namespaces = network.name_namespaces([i.host for i in self.spec.instances])
        network.open_ports(self.namespaces, self._ports())
        self._prepare_handouts()

    def _ports(self) -> dict[str, int]:
        """The ports of Penstock inside, by who answers there."""
        setup = self.order.setup
        ports = {"front": setup.api_port, "doorway": setup.doorway_port} if self.spec.network and setup.sockets else {}
        return ports | (self.spec.doors if setup.sockets else {})

    def _prepare_handouts(self) -> None:
        setup = self.order.setup
        for namespace in self.namespaces:
            info = {"run": self.spec.name, "instance": namespace.host, "attempt": self.order.attempt}
            for name, listening in namespace.listening.items():
                path = f"{setup.sockets}/{name}.sock"
                self.handouts.append(
                    network.Handout(path, namespace, listening, info, at_once=self.spec.port is not None)
                )

    # --- starting

    def _start(self) -> None:
        for program, namespace in zip(self.programs, self.namespaces, strict=True):
            if namespace.fd >= 0:
                linux.join(namespace.fd, linux.NEWNET)
            self._launch(program)
        self.lookout = self._look_out()
        roots, blobs = list(self.roots.merged.values()), outputs.BlobFolder(self.spec.blobs, self._owner())
        self.live = self._look_live(roots, blobs)
        self.times.leave = time.monotonic() + LEAVE_S
        for handout in self.handouts:
            handout.wait(self.selector)
        self._offer()
        self._advise()

    def _advise(self) -> None:
        """Where the program would have been faster by a spare, the next of its kind is to find one."""
        wanted = fitting(self.spec)
        if wanted is not None and mentions(self.roots.merged[self.spec.instances[0].host], self.spec):
            self.advise(Order(wanted, self.order.setup))

    def _look_out(self) -> Lookout:
        memory_bytes = None if self.means.memory else self.spec.memory_bytes
        return Lookout(self.roots.layers, self.spec.disk_bytes, memory_bytes)

    def _look_live(self, roots: list[outputs.Root], blobs: outputs.BlobFolder) -> LiveOutputs:
        return LiveOutputs(self.folder, self.order.attempt, self.spec.outputs, roots, blobs, self.spec.disk_bytes)

    def _leave_cell(self) -> None:
        """Steps out of the program's cgroup and closes it: a program that is out of memory would hold us up, too.

        In a thread, since the kernel may take 10 ms. What a program does in its first LEAVE_S harms nobody, and short ones are spared.
        """
        self.times.leave = float("inf")
        try:
            self.limiting = threading.Thread(target=self._limit, daemon=True)
            self.limiting.start()
        except RuntimeError:  # the program has taken all the processes that its cell may have
            self.limiting = None
            self._limit()

    def _limit(self) -> None:
        """Sets the limits; a program that would go on without them is ended."""
        try:
            self.cell.leave()
            if self.live is not None:  # not before: what it does is not the program's
                self.live.start()
            within = [program.cell.limit(self.spec.memory_bytes, self.spec.cpus) for program in self.programs]
        except OSError as error:
            self._end_now("sandbox", f"The limits of memory and processors could not be set: {error}")
            return
        if not all(within):
            self._end_now("memory")

    def _end_now(self, reason: str, message: str = "") -> None:
        """SIGKILL at once; the first reason counts."""
        if not self.reason:
            self.reason, self.message = reason, message
            self.kill()

    def _owner(self) -> int | None:
        """Whose the blobs of its outputs become."""
        return sandbox.KEEPER_ID if self.house.mapped else None

    def _launch(self, program: Program) -> None:
        """Starts bubblewrap for one instance, born in its cgroup."""
        if self.spare is not None and self._take_spare(program, self.spare):
            return
        host = program.instance.host
        options = sandbox.bwrap_arguments(
            self.spec, program.instance, self.roots.merged[host].merged, self.roots.bound[host],
            self.order.setup.disable_userns, self.house.as_root, host in self.roots.assembled,
        )  # fmt: skip
        if program.cell is not self.cell:
            program.cell.enter()
        program.cell.count(self.spec.processes)
        with limits.oom_as_program(), self.ground.as_job():
            program.pid, status = sandbox.start_bwrap(
                self.order.setup.bwrap, options, self.house.calls, self.spec.command, program.pump.writing
            )
        if program.cell is not self.cell:
            self.cell.enter()
        program.process = os.pidfd_open(program.pid)
        self._hear_of(program, status)

    def _take_spare(self, program: Program, spare: Spare) -> bool:
        """Makes a waiting Python the program; False, with nothing left of it, where that cannot be."""
        try:
            spare.become(self.spec, self.roots)
        except OSError:
            program.pump.discard()
            program.cell = self.cell
            self.spare = None
            spare.drop()
            return False
        program.pid, program.process, status, program.status = spare.give()
        self._hear_of(program, status)
        self._note_first(program)
        return True

    def _hear_of(self, program: Program, status: int) -> None:
        """From now on what becomes of the program is heard."""
        os.close(program.pump.writing)
        self.selector.register(status, selectors.EVENT_READ, lambda: self._read_status(program, status))
        self.selector.register(program.pump.reading, selectors.EVENT_READ, lambda: self._pump(program))
        self.selector.register(program.process, selectors.EVENT_READ, lambda: self._reap(program, status))

    # --- the loop

    def _wait(self) -> None:
        """Waits for the next thing that happens, or for the next moment when something is due."""
        assert self.lookout is not None
        times = self.times
        due = min(times.deadline, times.kill, times.term, times.offer, times.leave, times.mark, self.lookout.due)
        for key, _ in self.selector.select(max(0.0, due - time.monotonic())):
            if key.fd in self.selector.get_map():  # one that came before it may have closed it
                act: Callable[[], None] = key.data
                act()
        now = time.monotonic()
        if now >= self.times.deadline:
            self.times.deadline = float("inf")
            self.end_early("timeout")
        if now >= self.times.term:
            self._send_terms(self.early)
        if now >= self.times.kill:
            self.times.kill = now + 1.0
            self.kill()
        if self.times.offer == float("inf") and any(each.wanted for each in self.handouts):
            self.times.offer = now  # nobody is there
        if now >= self.times.offer:
            self._offer()
        if now >= self.times.leave:
            self._leave_cell()
        if now >= self.times.mark:
            self.times.mark = float("inf")
            self.folder.mark_running(self.started, self.order.attempt)
        if now >= self.lookout.due:
            if self.watch is None and (reason := self.folder.stop_reason()):
                self.end_early(reason)
            over = self.lookout.look([p.first for p in self.programs if p.first and not p.ended])
            if over:
                self._end_now(over)

    def _hear(self, watch: linux.Watch) -> None:
        if any(noticed.name == STOP for noticed in watch.read()):
            self.end_early(self.folder.stop_reason() or "stopped")

    def _pump(self, program: Program) -> None:
        if not program.pump.pump():
            self.selector.unregister(program.pump.reading)
            program.drained = True

    def _read_status(self, program: Program, status: int) -> None:
        with contextlib.suppress(BlockingIOError):
            piece = os.read(status, 4096)
            if not piece:
                self.selector.unregister(status)
            program.status += piece
        self._note_first(program)

    def _note_first(self, program: Program) -> None:
        """Finds the sandbox's pid 1, once bubblewrap has told of it."""
        if not program.first and b"\n" in program.status:
            for line in program.status.splitlines():
                program.first = json.loads(line).get("child-pid", 0) or program.first
            with contextlib.suppress(ProcessLookupError):
                program.first_process = os.pidfd_open(program.first)
            self._mark_started()

    def _mark_started(self) -> None:
        """The first program has started: its time runs."""
        if not self.started:
            self.started = time.time()
            self.times.deadline = time.monotonic() + self.spec.timeout_s
            self.times.mark = time.monotonic() + MARK_S

    def _reap(self, program: Program, status: int) -> None:
        """Bubblewrap is gone: what was the exit code, did the program start at all?"""
        self.selector.unregister(program.process)
        _, outcome = os.waitpid(program.pid, 0)
        with contextlib.suppress(KeyError):
            self._read_status(program, status)
            self.selector.unregister(status)
        os.close(status)
        if program.first_process >= 0:  # normally dead already; if bubblewrap was killed, its pid 1 is about to be
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(program.first_process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(outcome)
        program.made = code < 0 or b'"exit-code"' in program.status
        program.cpu_s = program.cell.cpu_s() or 0.0
        program.peak_bytes = program.cell.peak_bytes() or 0.0
        self._note_end(program, 128 - code if code < 0 else code)

    def _note_end(self, program: Program, exit_code: int) -> None:
        """A program has ended; after a failure the others have a moment."""
        program.ended, program.exit_code = True, exit_code
        if program.exit_code and self.failed is None:
            self.failed = program
            self._terminate(OTHERS_GRACE_S)

    def _offer(self) -> None:
        """Hands the sockets that are wanted to whoever was not there; tries again soon."""
        now = time.monotonic()
        missing = [h for h in self.handouts if h.wanted and not h.offer(self.selector)]
        if not missing:
            self.times.offer = self.times.alone = float("inf")
            return
        self.times.offer = now + network.RETRY_S
        self.times.alone = min(self.times.alone, now + (self.spec.alone_s or float("inf")))
        if now >= self.times.alone:
            self.times.alone = float("inf")
            self.end_early("stopped")

    # --- ending

    def end_early(self, reason: str) -> None:
        """SIGTERM now, SIGKILL after the grace. The first reason counts."""
        if not self.reason:
            self.reason = reason
            self._terminate(self.spec.grace_s)

    def _terminate(self, grace_s: float) -> None:
        self.times.kill = min(self.times.kill, time.monotonic() + grace_s)
        self._send_terms([p for p in self.programs if not p.ended])

    def _send_terms(self, programs: list[Program]) -> None:
        """Sends SIGTERM, again in a moment to those whose program is not there yet."""
        self.early = [p for p in programs if not p.ended and not self._send_term(p)]
        self.times.term = time.monotonic() + TERM_AGAIN_S if self.early else float("inf")

    def _send_term(self, program: Program) -> bool:
        """Whether there was a program to send SIGTERM to."""
        return _send_term(program)

    def kill(self) -> None:
        """Kills pid 1 of every sandbox, and so all in it."""
        for program in self.programs:
            if program.pid and not program.ended:
                self._kill(program)

    def _kill(self, program: Program) -> None:
        target = program.first_process if program.first_process >= 0 else program.process
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(target, signal.SIGKILL)

    def _conclude(self) -> RunState:
        """Takes the outputs and gives the exit record."""
        assert self.lookout is not None
        if self.live is not None:
            self.live.stop()
        state = RunState(ENDED, 0, self.reason, started=self.started or time.time(), attempt=self.order.attempt)
        roots = list(self.roots.merged.values())
        self._note_processes()
        if self.failed is not None:
            state.exit_code, state.tail = self.failed.exit_code, self.failed.pump.tail()
            if not self.failed.made and not self.reason:
                state.exit_code, state.reason = endings.CANNOT_RUN, "sandbox"
                state.message = (state.tail or ["The sandbox could not be made."])[-1]
            elif not self.reason:
                state.reason = "memory" if self.failed.cell.ran_out() else "exit"
        if state.reason in ("disk", "room"):
            state.message = self.lookout.sentence
        if self.message:
            state.exit_code, state.message = endings.CANNOT_RUN, self.message
            self.programs[0].pump.note(f"penstock: {self.message}")
        if state.reason and not state.message and self.spec.message_file:
            state.message = outputs.read_message(roots, self.spec.message_file)
        wanted = [o for o in self.spec.outputs if o.always or not state.reason]
        if wanted:
            owner = self._owner()
            try:
                state.results = outputs.take_outputs(wanted, roots, self.spec.blobs, owner, self.spec.disk_bytes)
            except outputs.TooMuch as much:
                if not state.reason:
                    state.reason, state.message = "disk", str(much)
        used = {
            "cpu_s": sum(p.cpu_s for p in self.programs) or self.lookout.cpu_s,
            "peak_memory_bytes": max(p.peak_bytes for p in self.programs) or self.lookout.peak_bytes,
        }
        # Without cgroups the watch knows, and only of runs that it came to look at.
        state.usage = {name: float(value) for name, value in used.items() if value}
        if told := endings.sentence(state, self.spec):
            (self.failed or self.programs[0]).pump.note(f"penstock: {told}")
        if self.spec.keep and not state.reason:
            self.roots.keep(self.folder.path / KEPT)
        state.ended = time.time()
        return state

    def _note_processes(self) -> None:
        """Before the last lines are taken: what fails for want of a process seldom says so."""
        for program in self.programs:
            if program.cell.refused_processes():
                program.pump.note(f"penstock: the limit of {self.spec.processes} processes was reached.")

    def clean(self) -> None:
        """Gives back what the attempt used; the exit record and the logs stay."""
        if not self.closed:
            self.closed = True
            self._close()
        remove_tree(Path(self.scratch.name))  # below the working folder: the name may be another run's by now

    def _close(self) -> None:
        if self.limiting is not None:
            self.limiting.join()
        if self.live is not None:
            self.live.stop()
        for handout in self.handouts:
            handout.close()
        for namespace in self.namespaces:
            namespace.close()
        for program in self.programs:
            program.pump.close()
            for process in (program.process, program.first_process):
                if process >= 0:
                    os.close(process)
            if program.cell is not self.cell:
                program.cell.remove()
        self.selector.close()
        if self.watch is not None:
            self.watch.close()
        self.roots.unmount()
        if self.spare is not None:
            self.spare.drop()


def _send_term(program: Program) -> bool:
    """Sends SIGTERM to the program, the first child of the sandbox's pid 1 (which would not hear it)."""
    try:
        children = Path(f"/proc/{program.first}/task/{program.first}/children").read_text().split()
        process = os.pidfd_open(int(children[0]))
        try:
            signal.pidfd_send_signal(process, signal.SIGTERM)
        finally:
            os.close(process)
    except (OSError, IndexError):
        return False
    return True
