"""A supervisor's life: forked by the runner, it serves one run after another, and outlives it while it has one.

One that serves again costs no fork, no exit and no page copied (half of its processor time, by perf). Nothing that a
program could reach is used twice: each run has namespaces, cgroups and mounts of its own.
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import socket
import time
from pathlib import Path

from penstock.runs import endings, limits, network, sandbox
from penstock.runs.folder import Order, RunFolder, pack_order, unpack_order
from penstock.runs.roots import Ground, sources_of
from penstock.runs.spares import Spare
from penstock.runs.supervisor import Attempt, supervise

SERVED = 200
"""How many runs a supervisor serves before another takes its place: what it may have lost track of goes with it."""
COLLECTED = 16
"""After how many runs the garbage is collected, while no run is there to wait for it."""
READY, DONE, CANNOT, MADE, BARE = b"ready", b"done", b"cannot", b"made", b"bare"
"""What a supervisor says to the runner: it waits for a run; its run is over; it cannot take this one, another can; it has a spare; it
could make none."""
SPARE, VAIN = b"spare ", b"vain "
"""Before an order: the supervisor advises that a spare be made, or the runner has it made; that those of its kind are of no use."""
MESSAGE_BYTES = 256 * 1024


class Server:
    """A supervisor's life: readies what does not depend on a run, waits for one, sees it to its end, and so on."""

    def __init__(self, channel: socket.socket, house: sandbox.House, means: limits.Means, mark: str):
        self._channel, self._house, self._means, self._mark = channel, house, means, mark
        self._cell: limits.Cell | None = None
        self._ground: Ground | None = None
        self._failure: Exception | None = None
        self._spare: Spare | None = None
        self._spent = False
        """Something went wrong: it ends after this run, and another serves the next."""

    def serve(self) -> None:
        """Serves until the runner closes the channel, or is gone, or enough was served."""
        limits.limit_self("pids" in self._means.folders)
        try:
            for number in range(SERVED):
                self._ready()
                self._channel.send(READY)
                if not self._wait() or self._spent:
                    return
                self._channel.send(DONE)
                if number % COLLECTED == 0:
                    gc.collect()
        except (BrokenPipeError, ConnectionResetError):  # the runner is gone
            return
        finally:
            self._drop_spare()
            self._leave_cell()

    def _wait(self) -> bool:
        """Waits for a run, and sees it to its end; False once none will come."""
        while message := self._channel.recv(MESSAGE_BYTES):
            if message.startswith(SPARE):
                self._make_spare(message[len(SPARE) :])
                self._channel.send(MADE if self._spare else BARE)
                continue
            taken = self._take(RunFolder(Path(os.fsdecode(message))))
            self._drop_spare()
            if taken:
                return True
            self._channel.send(CANNOT)
        return False

    def _make_spare(self, packed: bytes) -> None:
        """Makes a sandbox ahead; where that cannot be, runs are started as always."""
        self._drop_spare()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            order = unpack_order(packed)
            ground, cell = self._ground, self._cell
            if ground is not None and cell is not None and self._failure is None and ground.can_show(sources_of(order.spec)):
                for source in sources_of(order.spec):
                    ground.show(source)
                self._spare = Spare(order.spec, order.setup, ground, self._means, cell)

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.drop()
            self._judge(spare)

    def _judge(self, spare: Spare) -> None:
        if spare.vain:
            self._advise(Order(spare.wanted, spare.setup), VAIN)

    def _advise(self, order: Order, what: bytes = SPARE) -> None:
        with contextlib.suppress(OSError):  # larger than a message may be, or the runner is gone
            self._channel.send(what + pack_order(order), socket.MSG_DONTWAIT)

    def _ready(self) -> None:
        """Entering a cgroup may take the kernel 10 ms, the namespaces take 1 ms; so it is done while nobody waits for it."""
        last, self._cell = self._cell, limits.Cell(self._means, f"{self._mark}-{secrets.token_hex(6)}")
        try:
            self._cell.enter()
            if self._ground is None:
                self._ground = Ground(self._house)
            network.enter_namespace()
        except OSError as error:
            self._failure, self._spent = error, True
        finally:
            if last is not None:
                last.remove()

    def _take(self, folder: RunFolder) -> bool:
        """Runs the run of a folder to its end. Does nothing if it has, or had, a supervisor; False if another must run it."""
        try:
            os.chdir(folder.path)  # the folder itself, should its name be given to another run one day
            order = folder.order()
        except FileNotFoundError:
            return True  # put away
        except (ValueError, KeyError, TypeError, AttributeError):
            folder.take_lock()  # an order that cannot be read: lost with this process
            raise
        if self._spare is not None and not self._spare.fits(order.spec):
            self._drop_spare()
        shown = [] if order.spec.container else sources_of(order.spec)
        if self._ground is not None and not self._ground.can_show(shown):
            os.chdir("/")
            return False
        try:
            lock = folder.take_lock()
        except OSError:  # no room for it: the runner gives the run to the next supervisor, but not at once
            time.sleep(endings.WAIT_S)
            raise
        if lock is None:
            return True
        order.attempt = folder.attempt()  # as of the moment it was locked
        if order.attempt > 1:  # the runner may not have been there to see the last one lost
            limits.clear_lost(self._means, folder.path, folder.cell())
        if self._failure is not None or self._ground is None or self._cell is None:
            folder.end(endings.not_made(self._failure or OSError(), order.attempt))
        else:
            self._supervise(folder, order)
        os.close(lock)
        os.chdir("/")
        return True

    def _supervise(self, folder: RunFolder, order: Order) -> None:
        assert self._ground is not None
        assert self._cell is not None
        try:
            maker = _container_attempt() if order.spec.container else Attempt
        except ImportError as fault:  # the extra was there when the run was admitted
            return folder.end(endings.not_made(fault, order.attempt))
        attempt = maker(folder, order, self._ground, self._means, self._cell)
        attempt.advise = self._advise
        attempt.spare, self._spare = self._spare, None
        taken = attempt.spare
        well = supervise(attempt)
        if taken is not None:
            self._judge(taken)
        self._spent = bool(order.spec.container) or not well  # with its client in it, a supervisor is twice as large

    def _leave_cell(self) -> None:
        if self._cell is not None:
            self._cell.leave()
            self._cell.remove()


def _container_attempt() -> type[Attempt]:
    """What runs containers, imported where it is needed only: its client is an extra, and larger than all else here."""
    from penstock.runs.docker.attempt import ContainerAttempt

    return ContainerAttempt
