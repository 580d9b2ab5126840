"""Files to answers: in order, so many requests at a time, a file's answers in its place only when it is whole."""

import gzip
import os
import queue
import threading
import zlib
from collections import deque
from concurrent.futures import Future
from typing import IO, Any, BinaryIO, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple

from . import records
from .filters import Processing, Unfit
from .servers import Broken, Pipeline, Refused

OUT = ".out"


class Plan(NamedTuple):
    """How the data is sent."""

    split: str
    single: bool
    payload_bytes: int
    """0: a whole object in chunks."""
    concurrent: int
    assemble: str
    compression: str


class Failure(NamedTuple):
    """What became of a file that has no answer. `client`: by the data's fault, not the model's."""

    uri: str
    sentence: str
    client: bool


class _Task(NamedTuple):
    file: int
    body: Any
    future: "Future[bytes]"


class Job:
    """One instance's files. `invoke` is asked from as many threads as `plan.concurrent` says, each with its lane."""

    def __init__(
        self, objects: List[Dict[str, str]], plan: Plan, processing: Optional[Processing], lanes: List[Pipeline],
        folder: str, say: Callable[[str], None],
    ):  # fmt: skip
        self._objects, self._plan, self._processing, self._lanes = objects, plan, processing, lanes
        self._folder, self._say = folder, say
        self.failures: List[Failure] = []
        self._failed: Dict[int, bool] = {}
        self._tasks: queue.Queue[Optional[_Task]] = queue.Queue()

    def run(self) -> List[Failure]:
        """Transforms every file; gives those that have no answer.

        Raises: Broken where a container is gone.
        """
        threads = [threading.Thread(target=self._ask, args=(lane,), daemon=True) for lane in self._lanes]
        for thread in threads:
            thread.start()
        try:
            self._flow()
        finally:
            for _ in threads:
                self._tasks.put(None)
        for thread in threads:
            thread.join()
        return self.failures

    # --- requests, in threads

    def _ask(self, lane: Pipeline) -> None:
        while True:
            task = self._tasks.get()
            if task is None:
                lane.close()
                return
            try:
                task.future.set_result(self._answer(lane, task.body))
            except BaseException as error:
                task.future.set_exception(error)

    def _answer(self, lane: Pipeline, body: Any) -> bytes:
        if self._processing is None:
            return lane.invoke(body)
        return self._processing.keep(body, lane.invoke(self._processing.send(body)))

    # --- the flow

    def _flow(self) -> None:
        """Reads ahead by as many bodies as there are lanes, and writes answers in the order of their bodies."""
        waiting: Deque[Tuple[int, Optional[_Task]]] = deque()
        open_file: Optional[IO[bytes]] = None
        under_way = 0
        try:
            for number, body in self._bodies():
                if body is None:
                    waiting.append((number, None))
                elif self._failed.get(number):
                    continue
                else:
                    task = _Task(number, body, Future())
                    self._tasks.put(task)
                    waiting.append((number, task))
                    under_way += 1
                while waiting and (
                    under_way > len(self._lanes) or waiting[0][1] is None or waiting[0][1].future.done()
                ):
                    under_way -= waiting[0][1] is not None
                    open_file = self._write(open_file, *waiting.popleft())
            while waiting:
                open_file = self._write(open_file, *waiting.popleft())
        finally:
            if open_file is not None:
                open_file.close()

    def _bodies(self) -> Iterator[Tuple[int, Any]]:
        """The bodies of all files, and None after a file's last."""
        for number, entry in enumerate(self._objects):
            try:
                yield from self._bodies_of(number, entry)
            except (records.Unsplittable, OSError, EOFError, zlib.error) as error:
                self._fail(number, f"ClientError: {error}", True)
            yield number, None

    def _bodies_of(self, number: int, entry: Dict[str, str]) -> Iterator[Tuple[int, Any]]:
        with self._open(entry["path"]) as file:
            if not self._plan.payload_bytes:
                if os.path.getsize(entry["path"]):
                    yield number, self._open(entry["path"])
                return
            for body in records.bodies(file, self._plan.split, self._plan.single, self._plan.payload_bytes):
                if self._failed.get(number):
                    return
                yield number, body

    def _open(self, path: str) -> BinaryIO:
        return gzip.open(path, "rb") if self._plan.compression == "Gzip" else open(path, "rb")  # type: ignore[return-value]

    def _write(self, file: Optional[IO[bytes]], number: int, task: Optional[_Task]) -> Optional[IO[bytes]]:
        """Writes one answer; at a file's end, puts it into its place. Gives the file that is being written."""
        if task is not None:
            try:
                answer = task.future.result()
            except Broken:
                raise
            except (Refused, Unfit, UnicodeDecodeError) as error:
                self._fail(number, *_told(error))
                return file
            if not self._failed.get(number):
                if file is None:
                    file = open(f"{self._folder}/{number}", "wb")  # noqa: SIM115 - written to by later calls
                file.write(records.joined(answer, self._plan.assemble))
            return file
        if file is not None:
            file.close()
        if not self._failed.get(number):
            self._place(number, file is not None)
        return None

    def _place(self, number: int, written: bool) -> None:
        target = self._objects[number]["target"]
        os.makedirs(os.path.dirname(target), exist_ok=True)
        source = f"{self._folder}/{number}"
        if not written:
            open(source, "wb").close()
        os.rename(source, target)

    def _fail(self, number: int, sentence: str, client: bool) -> None:
        if not self._failed.get(number):
            self._failed[number] = True
            uri = self._objects[number]["uri"]
            self._say(f"{uri[len('s3://') :]}: {sentence}")
            self.failures.append(Failure(uri, sentence, client))


def _told(error: Exception) -> Tuple[str, bool]:
    if isinstance(error, Refused):
        client = error.status < 500
        kind = "ClientError" if client else "AlgorithmError"
        return f"{kind}: Bad HTTP status received from algorithm: {error.status}. Message: {error}", client
    return f"ClientError: {error}", True
