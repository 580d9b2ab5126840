"""What a call has put into its change, it reads back; however much that is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.kernel.errors import ServiceError
from penstock.store.records import Document, Ref
from tests.conftest import World


class Watched(list[Document]):
    """A list that counts how often it is looked through."""

    walks = 0

    def __iter__(self) -> Iterator[Document]:
        self.walks += 1
        return super().__iter__()

    def __reversed__(self) -> Iterator[Document]:
        self.walks += 1
        return super().__reversed__()


def doc(name: str, version: int = 0) -> Document:
    return Document(kind="k", account="a", region="r", name=name, version=version)


def test_a_change_of_many_is_not_looked_through_at_each_put(world: World) -> None:
    call = world.call()
    call.change.puts = puts = Watched()
    made = [call.put(doc(str(n))) for n in range(50)]
    assert all(call.find(one.ref) is one for one in made)
    assert call.find(Ref("k", "a", "r", "none")) is None
    assert (len(puts), puts.walks, call.change.puts is puts) == (50, 0, True)


def test_the_last_of_what_was_put_and_deleted_counts(world: World) -> None:
    call = world.call()
    first, second = call.put(doc("n", 1)), call.put(doc("n", 1))
    assert (call.find(first.ref) is second, len(call.change.puts)) == (True, 1)
    call.delete(second)
    assert (call.find(first.ref), call.change.puts, call.change.deletes) == (None, [], [second])
    anew = call.put(doc("n"))
    assert call.find(first.ref) is anew
    call.delete(anew)
    assert (call.find(first.ref), call.change.puts) == (None, [])


def test_nothing_of_a_failed_attempt_is_read_back(world: World) -> None:
    call = world.call()
    kept, gone = call.put(doc("kept")), doc("gone", 1)

    def refuse() -> None:
        with call.attempt():
            call.put(doc("lost"))
            call.delete(kept)
            call.delete(gone)
            raise ServiceError("Refused", "no")

    with pytest.raises(ServiceError):
        refuse()
    assert call.find(kept.ref) is kept
    assert not call.was_deleted(gone.ref)
    assert call.was_put(doc("lost").ref) is None
    assert call.put(doc("lost")) is call.find(doc("lost").ref)
