"""The engine loop: claims due wakes, runs the step of each document, commits what the step wants in one transaction.

Recovery: a wake is removed only in the transaction that commits its step's change, so a step that died with the
process left its wake behind. At start nobody can hold a lease any more, so `release_all` gives all of them back. They
are due, so the loop claims them like any other wake and runs their steps again. A step is idempotent (it looks at the
document and at the world before it moves), so what it had done already is not done twice.

Who claims: a transaction that brings a wake, or gives one back, also claims what is due by then (`Work.attend`), so that what a
step makes due is begun as soon as the step's change is durable. The loop's own thread only waits for moments that come.

Nudges: whoever hears that a run has ended has its document looked at, without a claim: nothing is written down of it, since
recovery looks at it anyway. What such a look does to the document's wake holds only if nobody has moved that in between.

Long work: a step works no longer than 50 ms. One that is about to (it would join the parts of a large object, or lay out
thousands of files) says so by `Call.take_time`, which raises `Long`, and runs again in a few threads of its own, with a call
that may take its time. Its wake stays leased all the while, so a crash in the middle of it has it run again.

Giving up: a step that raises runs again after a pause, but not for ever. After `GIVE_UP_TRIES` its kind's `give_up` ends the
document as failed, so that whoever waits for it is told. What the machine lacks (room on the disk, the store) is waited for.
"""

from __future__ import annotations

import errno
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from penstock.kernel.call import Call, Long
from penstock.kernel.clock import Clock
from penstock.store.base import Store, Work
from penstock.store.records import Change, Document, Ref, Stale, StoreFailed, Taken, Unavailable, Unmet, Wake

Step = Callable[[Call, Document], "float | None"]
MakeCall = Callable[[Document, float], Call]

LEASE_S = 60.0
"""Far longer than a step may work; it matters only where another engine may take over."""
FLYING = 64
"""Steps whose changes may wait for the disk at once: the more, the larger the transactions."""
STALE_TRIES = 20
"""Runs of a step in a row that find somebody wrote in between, before it backs off as after an error."""
RETRY_S = 1.0
"""How soon to try again to give back a wake that the store did not take."""
BACKOFF_S = (1.0, 60.0)
"""The first pause after an error, which doubles, and the longest."""
LONG = 2
"""Steps that may do long work at once."""
GIVE_UP_TRIES = 8
"""Tries in a row that raised, over two minutes, before the document is ended as failed."""
SCARCE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)
"""What the machine lacks, and may have again."""
UNKNOWN_S = 60.0
"""How often to look whether a kind has a step by now."""

log = logging.getLogger(__name__)


class Engine:
    """Runs the steps of documents that are due; never two at once for the same document.

    Takes:
        steps: by the document's kind.
        make_call: gives the call that a step of the document gets, at that moment.
        workers: threads that run steps; their commits wait for the disk without holding one. More of them would only wait for
            each other: what steps do is Python, mostly.
        give_up: by the document's kind: ends a document whose step raises whatever it does, in the form of a step.
    """

    def __init__(
        self, steps: Mapping[str, Step], store: Store, work: Work, clock: Clock, make_call: MakeCall, workers: int = 2,
        give_up: Mapping[str, Step] | None = None,
    ):  # fmt: skip
        self._give_up = give_up or {}
        self._steps, self._make_call, self._store, self._work, self._clock = steps, make_call, store, work, clock
        self._workers = workers
        self._held: dict[Ref, Wake] = {}
        self._nudged: set[Ref] = set()
        """Whose looks have to wait: for the end of the one that runs, or (`drain`) for their turn."""
        self._lock = threading.Lock()
        self._look = threading.Event()
        self._landed = threading.Condition(self._lock)
        self._stopping = False
        self._unknown: set[str] = set()
        self._beside: set[Ref] = set()
        self._pool: ThreadPoolExecutor | None = None
        self._long_pool: ThreadPoolExecutor | None = None
        self._thread: threading.Thread | None = None
        self._until = math.inf
        """Until when the loop sleeps: it must hear of what is due before; of everything while it is awake."""

    # --- living
    def start(self) -> None:
        """Recovers what an earlier process left, and begins."""
        self._work.release_all()
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="step")
        self._long_pool = ThreadPoolExecutor(LONG, thread_name_prefix="long-step")
        self._work.attend(self._offer, self._take)
        for wake in self._take_nudged():
            self._start(wake)
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Claims nothing more, and returns when the steps that run have ended and their changes are durable."""
        with self._lock:
            self._stopping = True
        self._look.set()
        if self._thread:
            self._thread.join()
        with self._lock:
            while self._held:
                self._landed.wait()
        for pool in filter(None, (self._pool, self._long_pool)):
            pool.shutdown()

    def nudge(self, ref: Ref) -> None:
        """Has the document looked at now, or once more after the look that runs: a run of its has ended, say."""
        with self._lock:
            if ref in self._held or self._pool is None:
                self._nudged.add(ref)
                return
            if self._stopping:
                return
            self._held[ref] = wake = _unclaimed(ref)
        self._start(wake)

    def drain(self) -> int:
        """Runs in this thread all that is due, and what that makes due, until nothing is; gives the number of steps.

        For tests, instead of `start`: with a fake clock a story is told without threads and without waiting.
        """
        count = 0
        while wakes := self._take_nudged() or self._claim():
            for wake in wakes:
                self._run(wake)
                with self._lock:
                    while wake.ref in self._held:
                        self._landed.wait()
                count += 1
        return count

    # --- the loop
    def _loop(self) -> None:
        while not self._stopping:
            self._look.clear()
            try:
                wakes = self._claim()
                for wake in wakes:
                    self._start(wake)
                pause_s = 0.0 if wakes else self._pause()
            except Exception:
                log.exception("The engine could not look for work.")
                pause_s = BACKOFF_S[0]
            if pause_s != 0.0:
                self._clock.wait(self._look, pause_s)
            self._until = math.inf

    def _pause(self) -> float | None:
        """Until when there is nothing to do: None for until somebody says so."""
        with self._lock:
            if self._room() <= 0:
                self._until = -math.inf
                return None
        due = self._work.next_due()
        self._until = math.inf if due is None else due
        return None if due is None else max(0.0, due - self._clock.now())

    def _claim(self) -> list[Wake]:
        """Due wakes that were not running; asks the writer only when there are some."""
        now, lease_s, room = self._offer()
        due = self._work.next_due() if room > 0 else None
        return [] if due is None or due > now else self._hold(self._work.claim(now, lease_s, room))

    def _offer(self) -> tuple[float, float, int]:
        """What may be claimed now."""
        with self._lock:
            return self._clock.now(), LEASE_S, 0 if self._stopping else self._room()

    def _take(self, wakes: Sequence[Wake], due: float | None) -> None:
        """Begins what a transaction claimed; the loop hears of what is due before it would look.

        What was claimed while the engine stopped stays leased until the next start.
        """
        for wake in self._hold(wakes):
            self._start(wake)
        if due is not None and due < self._until:
            self._look.set()

    def _hold(self, wakes: Sequence[Wake]) -> list[Wake]:
        """Keeps claimed wakes; gives those that are not running."""
        fresh = []
        with self._lock:
            for wake in () if self._stopping else wakes:
                if wake.ref not in self._held:
                    fresh.append(wake)
                self._held[wake.ref] = wake  # the lease of a step that ran very long is renewed, and it goes on
        return fresh

    def _take_nudged(self) -> list[Wake]:
        with self._lock:
            wakes = [_unclaimed(ref) for ref in self._nudged]
            self._nudged.clear()
            self._held |= {wake.ref: wake for wake in wakes}
        return wakes

    def _room(self) -> int:
        """How many more may fly; those that do long work have threads of their own, and hold up nobody."""
        return FLYING - (len(self._held) - len(self._beside))

    def _start(self, wake: Wake, attempt: int = 1) -> None:
        if self._pool is None:
            threading.Thread(target=self._run, args=(wake, attempt), daemon=True).start()
        else:
            self._pool.submit(self._run, wake, attempt)

    def _start_long(self, wake: Wake, attempt: int) -> None:
        """Has the step run again where it holds up nobody (in this thread, for `drain`)."""
        if self._long_pool is None:
            self._run(wake, attempt, True)
            return
        with self._lock:
            self._beside.add(wake.ref)
        self._look.set()
        self._long_pool.submit(self._run, wake, attempt, True)

    # --- one wake
    def _run(self, wake: Wake, attempt: int = 1, patient: bool = False, last: bool = False) -> None:
        """Runs the step of a wake's document (the last time: its `give_up`) and sends its change on its way."""
        try:
            self._step(wake, attempt, patient, last)
        except Long:
            self._start_long(wake, attempt)
        except (Stale, Taken, Unmet) as error:
            self._again(wake, attempt, error, last)
        except (Exception, SystemExit) as error:  # a library's sys.exit must not take the wake with it
            self._fail(wake, error, last)

    def _step(self, wake: Wake, attempt: int, patient: bool, last: bool) -> None:
        if not wake.leased:  # read before the document: a wake that comes later is not ended by this look
            due = self._work.due(wake.ref)
            wake.due = math.inf if due is None else due
        document = self._store.get(wake.ref)
        if document is None:
            self._finish(wake, None, Change(), attempt)
            return
        step = (self._give_up if last else self._steps).get(wake.kind)
        if step is None:
            self._leave(wake)
            return
        call = self._make_call(document, self._clock.now())
        call.patient = patient or last
        again = step(call, document)
        due = None if again is None else self._clock.now() + again
        self._finish(wake, due, call.change, attempt, last, call.afterwards)

    def _finish(
        self, wake: Wake, again: float | None, change: Change, attempt: int, last: bool = False,
        afterwards: Sequence[Callable[[], None]] = (),
    ) -> None:  # fmt: skip
        lease = self._lease(wake)

        def landed(future: Future[None]) -> None:
            error = future.exception()
            if error is None:
                for act in afterwards:
                    self._tidy(act) if self._pool is None else self._pool.submit(self._tidy, act)
                self._land(lease)
            elif isinstance(error, (Stale, Taken, Unmet)):
                self._again(wake, attempt, error, last)
            else:
                self._fail(wake, error, last)

        self._work.finish(lease, again, change).add_done_callback(landed)

    def _tidy(self, act: Callable[[], None]) -> None:
        """Does what a step wanted done once its change was durable; what fails is found again at the next start."""
        try:
            act()
        except OSError:
            log.exception("What a step left to do could not be done.")

    def _again(self, wake: Wake, attempt: int, error: BaseException, last: bool) -> None:
        """Somebody wrote in between: the step runs again at once, the lease is still ours; some time it counts as an error."""
        if attempt < STALE_TRIES and not last:
            self._start(wake, attempt + 1)
        else:
            self._fail(wake, error, last)

    def _fail(self, wake: Wake, error: BaseException, last: bool) -> None:
        """Logs what went wrong and has the step run again after a pause that doubles with each try; gives up some time."""
        name = "/".join(wake.ref)
        if wake.tries >= GIVE_UP_TRIES and wake.kind in self._give_up and not last and not passes(error):
            log.error("The step of %s failed %d times: it is given up.", name, wake.tries, exc_info=error)
            self._run(wake, last=True)
            return
        first_s, longest_s = BACKOFF_S
        pause_s = min(longest_s, first_s * 2.0 ** min(wake.tries - 1, 30))
        log.error("The step of %s failed (try %d), again in %g s.", name, wake.tries, pause_s, exc_info=error)
        self._retry(wake, pause_s)

    def _leave(self, wake: Wake) -> None:
        """A kind that has no step: said once; the wake stays for a Penstock that has one."""
        if wake.kind not in self._unknown:
            self._unknown.add(wake.kind)
            log.error("There is no step for documents of kind %s.", wake.kind)
        self._retry(wake, UNKNOWN_S)

    def _retry(self, wake: Wake, pause_s: float, since: float | None = None) -> None:
        """Gives the wake back with its tries kept; where the store fails, once a second until its lease has run out."""
        lease, begun = self._lease(wake), time.monotonic() if since is None else since

        def landed(future: Future[None]) -> None:
            if (error := future.exception()) is None:
                self._land(lease)
            else:
                self._retry_later(wake, pause_s, begun, error)

        try:
            future = self._work.retry(lease, self._clock.now() + pause_s)
        except Exception as error:
            self._retry_later(wake, pause_s, begun, error)
        else:
            future.add_done_callback(landed)

    def _retry_later(self, wake: Wake, pause_s: float, since: float, error: BaseException) -> None:
        """Lets go of a wake when nobody waits for it any more: the next start, or the lease's end, has it run again."""
        over = time.monotonic() - since > LEASE_S
        log.error("The wake of %s could not be given back.", "/".join(wake.ref), exc_info=error)
        if self._stopping or over:
            self._land(self._lease(wake))
            return
        timer = threading.Timer(RETRY_S, self._retry, (wake, pause_s, since))
        timer.daemon = True
        timer.start()

    def _lease(self, wake: Wake) -> Wake:
        """The wake as it is leased now; a look without a claim does not end a claim that came since."""
        with self._lock:
            return self._held.get(wake.ref, wake) if wake.leased else wake

    def _land(self, lease: Wake) -> None:
        """The wake is given back: there is room for another. One that was claimed since is run now."""
        with self._lock:
            crowded = self._room() <= 0
            held = self._held.get(lease.ref)
            self._beside.discard(lease.ref)
            if held is lease:
                del self._held[lease.ref]
                if lease.ref in self._nudged and not self._stopping:
                    self._held[lease.ref] = held = _unclaimed(lease.ref)
            self._nudged.discard(lease.ref)
            self._landed.notify_all()
        if held is not None and held is not lease:
            self._start(held)
        if crowded:
            self._look.set()


def _unclaimed(ref: Ref) -> Wake:
    """A look at a document that nobody has claimed."""
    return Wake(kind=ref.kind, account=ref.account, region=ref.region, name=ref.name, tries=1)


def passes(error: BaseException) -> bool:
    """Whether an error is of the machine or the moment, so that the same step may do better later."""
    scarce = isinstance(error, OSError) and error.errno in SCARCE
    return scarce or isinstance(error, (Stale, StoreFailed, Unavailable, MemoryError, ConnectionError, TimeoutError))
