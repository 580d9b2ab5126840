"""What every store must keep to: drivers inherit StoreContract and say how to open one."""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.store.base import Store, Work
from penstock.store.records import (
    BucketEmpty,
    Change,
    Document,
    Event,
    ObjectDelete,
    ObjectMeta,
    ObjectPage,
    ObjectPut,
    ObjectQuery,
    ObjectRow,
    OldGone,
    Part,
    Points,
    Query,
    Ref,
    Seen,
    Stale,
    StoreFailed,
    TagsGone,
    TagsPut,
    Taken,
    Token,
    Unmet,
    UploadGone,
    UploadPart,
    Wake,
)
from penstock.store.remote import RemoteWriter, WriterServer
from penstock.store.sqlite import SqliteReads, SqliteStore, SqliteWork
from penstock.store.writer import Writer

NOW = 1_700_000_000.0


def doc(name: str = "a", **members: Any) -> Document:
    given = {"kind": "sagemaker.model", "account": "1", "region": "us-east-1", "created": NOW, "updated": NOW} | members
    return Document(name=name, **given)


def wake(name: str = "a", due: float = NOW) -> Wake:
    return Wake(kind="sagemaker.model", account="1", region="us-east-1", name=name, due=due)


def obj(key: str, version_id: str = "null", **members: Any) -> ObjectPut:
    conditions = {name: members.pop(name) for name in ("if_match", "if_none_match") if name in members}
    return ObjectPut(row=ObjectRow(bucket="b", key=key, version_id=version_id, **members), **conditions)


def names(documents: list[Document]) -> list[str]:
    return [document.name for document in documents]


class StoreContract:
    """Inherit, and give the fixtures `store` and `work` (None where the driver has none)."""

    # --- documents
    def test_the_newest_below_each_parent_is_found_by_one_look(self, store: Store) -> None:
        puts = [doc(f"{parent}{n}", parent=parent, created=NOW + n) for parent in "ab" for n in range(3)]
        store.commit(Change(puts=[*puts, doc("other", kind="sagemaker.trial", parent="a", created=NOW + 9)]))
        found = store.latest("sagemaker.model", "1", "us-east-1", ["a", "b", "none", "a"])
        assert found == {"a": NOW + 2, "b": NOW + 2}
        assert store.latest("sagemaker.model", "1", "us-east-1", []) == {}

    def test_statuses_of_many_documents_are_found_by_one_look(self, store: Store) -> None:
        puts = [doc(f"j{n}", status="Completed" if n % 2 else "InProgress") for n in range(5)]
        store.commit(Change(puts=[*puts, doc("j0", kind="sagemaker.trial", status="of another kind")]))
        found = store.statuses("sagemaker.model", "1", "us-east-1", ["j0", "j1", "j4", "none", "j0"])
        assert found == {"j0": "InProgress", "j1": "Completed", "j4": "InProgress"}
        assert store.statuses("sagemaker.model", "1", "eu-west-1", ["j0"]) == {}
        assert store.statuses("sagemaker.model", "1", "us-east-1", []) == {}

    def test_documents_are_listed_without_their_bodies(self, store: Store) -> None:
        store.commit(Change(puts=[doc("a", label="l", rank=2.5, body={"large": "x" * 10_000})]))
        (found,) = store.page(Query(kind="sagemaker.model", bodies=False))
        assert (found.name, found.label, found.rank, found.version, found.body) == ("a", "l", 2.5, 1, {})
        store.commit(Change(deletes=[found]))
        assert not store.page(Query(kind="sagemaker.model"))

    def test_what_is_listed_may_leave_out_labels_of_which_one_has_a_rank_in_the_future(self, store: Store) -> None:
        def of(name: str, label: str, rank: float, parent: str = "p") -> Document:
            return doc(name, parent=parent, label=label, rank=rank)

        store.commit(Change(puts=[of("1", "busy", 5), of("2", "busy", 1), of("3", "free", 1), of("4", "free", 2), of("5", "free", 1, "q")]))
        store.commit(Change(puts=[of("6", "free", 9, "q"), doc("7", kind="sagemaker.trial", parent="p", label="free", rank=9)]))
        query = Query(kind="sagemaker.model", account="1", region="us-east-1", parent="p", order="name", free_at=2, limit=1)
        query.rank_before = 2.5
        assert names(store.page(query)) == ["3"]
        query.after = ("3", "3")
        assert names(store.page(query)) == ["4"]
        query.after, query.free_at, query.limit = None, 5, 9  # one whose time has just come is free
        assert names(store.page(query)) == ["2", "3", "4"]

    def test_a_document_comes_back_as_it_was_put(self, store: Store) -> None:
        given = doc(
            "a",
            arn="arn:1",
            parent="p",
            status="S",
            label="l",
            rank=2.5,
            body={"A": [1, 2.5, None, {"ü": "\u2028"}], "_x": True},
        )
        store.commit(Change(puts=[given]))
        assert store.get(given.ref) == given
        assert store.by_arn("arn:1") == given

    def test_what_is_not_there_is_none(self, store: Store) -> None:
        assert store.get(Ref("k", "1", "r", "n")) is None
        assert store.by_arn("") is None
        assert store.object("b", "k") is None

    def test_a_commit_counts_the_version_up_in_the_record(self, store: Store) -> None:
        given = doc()
        store.commit(Change(puts=[given]))
        given.status = "Done"
        store.commit(Change(puts=[given]))
        assert given.version == 2
        found = store.get(given.ref)
        assert found is not None
        assert (found.version, found.status) == (2, "Done")

    def test_a_new_document_under_a_taken_name_is_taken(self, store: Store) -> None:
        store.commit(Change(puts=[doc(body={"first": True})]))
        with pytest.raises(Taken) as caught:
            store.commit(Change(puts=[doc(body={"first": False})]))
        assert caught.value.ref == doc().ref
        found = store.get(doc().ref)
        assert found is not None
        assert found.body == {"first": True}

    def test_a_taken_arn_is_taken(self, store: Store) -> None:
        store.commit(Change(puts=[doc("a", arn="arn:x")]))
        with pytest.raises(Taken):
            store.commit(Change(puts=[doc("b", arn="arn:x")]))

    def test_documents_without_arn_do_not_clash(self, store: Store) -> None:
        store.commit(Change(puts=[doc("a"), doc("b")]))
        assert store.count(Query(kind="sagemaker.model")) == 2

    def test_a_put_over_an_older_version_is_stale(self, store: Store) -> None:
        given = doc()
        store.commit(Change(puts=[given]))
        old = store.get(given.ref)
        assert old is not None
        store.commit(Change(puts=[given]))
        with pytest.raises(Stale) as caught:
            store.commit(Change(puts=[old]))
        assert caught.value.ref == given.ref
        assert old.version == 1

    def test_every_member_can_change(self, store: Store) -> None:
        given = doc()
        store.commit(Change(puts=[given]))
        given.arn, given.parent, given.label, given.rank, given.created = "arn:new", "p", "l", 3.0, NOW + 1
        store.commit(Change(puts=[given]))
        assert store.by_arn("arn:new") == given

    def test_a_change_is_written_whole_or_not_at_all(self, store: Store) -> None:
        store.commit(Change(puts=[doc("there")]))
        change = Change(
            puts=[doc("new"), doc("there")], rows=[obj("k"), TagsPut(arn="arn:1", tags={"k": "v"})],
            events=[Event(id="e", source="s", detail_type="d", account="1", region="r", time=NOW)],
        )  # fmt: skip
        with pytest.raises(Taken):
            store.commit(change)
        assert store.get(doc("new").ref) is None
        assert change.puts[0].version == 0
        assert (store.object("b", "k"), store.tags("arn:1"), store.events(0)) == (None, {}, [])

    def test_a_delete_is_compare_and_set(self, store: Store) -> None:
        given = doc()
        store.commit(Change(puts=[given]))
        old = store.get(given.ref)
        assert old is not None
        store.commit(Change(puts=[given]))
        with pytest.raises(Stale):
            store.commit(Change(deletes=[old]))
        store.commit(Change(deletes=[given]))
        assert store.get(given.ref) is None

    def test_a_name_can_be_given_anew_in_the_change_that_deletes_it(self, store: Store) -> None:
        given = doc(arn="arn:1", body={"n": 1})
        store.commit(Change(puts=[given]))
        store.commit(Change(deletes=[given], puts=[doc(arn="arn:1", body={"n": 2})]))
        found = store.by_arn("arn:1")
        assert found is not None
        assert (found.body, found.version) == ({"n": 2}, 1)

    def test_a_document_that_was_read_and_changed_since_makes_the_change_stale(self, store: Store) -> None:
        group = doc("group")
        store.commit(Change(puts=[group]))
        seen = store.get(group.ref)
        assert seen is not None
        store.commit(Change(reads=[seen], puts=[doc("one")]))
        store.commit(Change(puts=[group]))
        with pytest.raises(Stale):
            store.commit(Change(reads=[seen], puts=[doc("two")]))
        store.commit(Change(deletes=[group]))
        with pytest.raises(Stale):
            store.commit(Change(reads=[group], puts=[doc("three")]))
        assert names(store.page(Query(kind="sagemaker.model"))) == ["one"]

    def test_of_many_writers_of_one_version_one_wins(self, store: Store) -> None:
        given = doc(body={"n": 0})
        store.commit(Change(puts=[given]))
        copies = [store.get(given.ref) for _ in range(20)]
        futures = [store.submit(Change(puts=[copy])) for copy in copies if copy]
        outcomes = [future.exception(10) for future in futures]
        assert [type(outcome) for outcome in outcomes].count(type(None)) == 1
        assert [type(outcome) for outcome in outcomes].count(Stale) == 19

    def test_threads_that_read_and_write_again_when_stale_lose_no_update(self, store: Store) -> None:
        store.commit(Change(puts=[doc(body={"n": 0})]))

        def add_ten() -> None:
            done = 0
            while done < 10:
                found = store.get(doc().ref)
                assert found is not None
                found.body["n"] += 1
                try:
                    store.commit(Change(puts=[found]))
                    done += 1
                except Stale:
                    pass

        threads = [threading.Thread(target=add_ten) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = store.get(doc().ref)
        assert found is not None
        assert found.body == {"n": 40}

    def test_a_body_that_is_no_json_fails_alone(self, store: Store) -> None:
        with pytest.raises((TypeError, ValueError, StoreFailed)):
            store.commit(Change(puts=[doc("bad", body={"x": object()})]))
        store.commit(Change(puts=[doc("good")]))
        assert names(store.page(Query(kind="sagemaker.model"))) == ["good"]

    # --- pages
    @pytest.mark.parametrize("order", ["created", "updated", "name", "status", "label", "rank"])
    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("parent", [None, "p"])
    def test_pages_joined_are_the_whole_list(
        self, store: Store, order: str, descending: bool, parent: str | None
    ) -> None:
        documents = [
            doc(
                f"n{i:02}",
                parent="p",
                created=NOW + i % 3,
                updated=NOW + i % 4,
                status="AB"[i % 2],
                label="xyz"[i % 3],
                rank=i % 5,
            )
            for i in range(20)
        ]
        store.commit(Change(puts=[*documents, doc("other", kind="sagemaker.other", parent="p")]))
        query = Query(
            kind="sagemaker.model",
            account="1",
            region="us-east-1",
            parent=parent,
            order=order,
            descending=descending,
            limit=3,
        )
        seen: list[Document] = []
        while page := store.page(query):
            seen += page
            query.after = (getattr(page[-1], order), page[-1].name)
        wanted = sorted(documents, key=lambda d: (getattr(d, order), d.name), reverse=descending)
        assert names(seen) == names(wanted)

    @pytest.mark.parametrize(
        ("filters", "wanted"),
        [
            ({"account": "2"}, ["c"]),
            ({"region": "eu-west-1"}, ["b"]),
            ({"parent": "p"}, ["a"]),
            ({"parent": ""}, ["b", "c"]),
            ({"status": "Failed"}, ["b"]),
            ({"status": ""}, ["a", "c"]),
            ({"label": "Approved"}, ["c"]),
            ({"parent": "p", "label": ""}, ["a"]),
            ({"name_prefix": "a"}, ["a"]),
            ({"created_after": NOW}, ["b", "c"]),
            ({"created_before": NOW + 2}, ["a", "b"]),
            ({"updated_after": NOW, "updated_before": NOW + 10}, ["b"]),
        ],
    )
    def test_filters(self, store: Store, filters: dict[str, Any], wanted: list[str]) -> None:
        store.commit(
            Change(
                puts=[
                    doc("a", parent="p"),
                    doc("b", region="eu-west-1", status="Failed", created=NOW + 1, updated=NOW + 1),
                    doc("c", account="2", label="Approved", created=NOW + 2, updated=NOW + 10),
                ]
            )
        )
        query = Query(kind="sagemaker.model", order="name", **filters)
        assert names(store.page(query)) == wanted
        assert store.count(query) == len(wanted)

    def test_names_are_matched_literally_and_in_case(self, store: Store) -> None:
        store.commit(Change(puts=[doc("a%b_c"), doc("A%B_C"), doc("axbxc")]))
        for text, wanted in (("%", ["A%B_C", "a%b_c"]), ("b_c", ["a%b_c"]), ("xb", ["axbxc"])):
            assert names(store.page(Query(kind="sagemaker.model", name_contains=text, order="name"))) == wanted
        assert names(store.page(Query(kind="sagemaker.model", name_prefix="a%"))) == ["a%b_c"]

    def test_an_unknown_order_is_refused(self, store: Store) -> None:
        with pytest.raises(ValueError, match="order"):
            store.page(Query(kind="k", order="body; DROP TABLE documents"))

    # --- tags, tokens, events, points
    def test_tags_are_found_by_the_account_and_region_of_their_arn(self, store: Store) -> None:
        mine, other = "arn:aws:a:eu-1:111:x/1", "arn:aws:a:eu-1:222:x/1"
        tricky = "arn:aws:a:eu-2:222:x:eu-1:111:y"
        rows = [TagsPut(arn=arn, tags={"k": arn[-1], "l": ""}) for arn in (mine, other, tricky, "arn:aws:iam::111:r")]
        store.commit(Change(rows=list(rows)))
        assert store.tagged("111", "eu-1") == {mine: {"k": "1", "l": ""}}
        assert store.tagged("111", "") == {"arn:aws:iam::111:r": {"k": "r", "l": ""}}
        assert store.tagged("111", "eu-2") == {}

    def test_tags_are_set_replaced_and_removed(self, store: Store) -> None:
        store.commit(
            Change(rows=[TagsPut(arn="arn:1", tags={"a": "1", "b": "2"}), TagsPut(arn="arn:2", tags={"z": "9"})])
        )
        store.commit(Change(rows=[TagsPut(arn="arn:1", tags={"b": "3", "c": "4"}), TagsGone(arn="arn:1", keys=["a"])]))
        assert store.tags("arn:1") == {"b": "3", "c": "4"}
        store.commit(Change(rows=[TagsGone(arn="arn:1")]))
        assert (store.tags("arn:1"), store.tags("arn:2")) == ({}, {"z": "9"})

    def token(self, expires: float, **members: Any) -> Token:
        given = {
            "account": "1",
            "region": "r",
            "operation": "s:Op",
            "token": "t",
            "digest": "d",
            "result": {"Arn": "x"},
        }
        return Token(**(given | members), expires=expires)

    def test_a_token_answers_until_it_expires(self, store: Store) -> None:
        store.commit(Change(rows=[self.token(4e9), self.token(1.0, token="old")]))
        assert store.token("1", "r", "s:Op", "t") == ("d", {"Arn": "x"})
        assert store.token("1", "r", "s:Op", "old") is None
        assert store.token("2", "r", "s:Op", "t") is None

    def test_a_token_is_taken_while_it_lives(self, store: Store) -> None:
        store.commit(Change(rows=[self.token(4e9), self.token(1.0, token="old")]))
        with pytest.raises(Taken):
            store.commit(Change(puts=[doc()], rows=[self.token(4e9)]))
        assert store.get(doc().ref) is None
        store.commit(Change(rows=[self.token(4e9, token="old", digest="new")]))
        assert store.token("1", "r", "s:Op", "old") == ("new", {"Arn": "x"})

    def test_events_come_in_the_order_of_their_commits(self, store: Store) -> None:
        def event(i: int) -> Event:
            return Event(
                id=f"e{i}",
                source="aws.s3",
                detail_type="T",
                account="1",
                region="r",
                time=NOW,
                resources=["x"],
                detail={"i": i},
            )

        for i in range(0, 6, 2):
            store.commit(Change(events=[event(i), event(i + 1)]))
        first = store.events(0, limit=4)
        assert [e.detail["i"] for e in first] == [0, 1, 2, 3]
        rest = store.events(first[-1].seq)
        assert [e.id for e in rest] == ["e4", "e5"]
        assert rest[0].resources == ["x"]

    def test_points_come_in_order_of_time(self, store: Store) -> None:
        store.commit(Change(rows=[Points(series="job/loss", points=[(3.0, 0.3, 3.0), (1.0, 0.1, 1.0)])]))
        store.commit(
            Change(
                rows=[
                    Points(series="job/loss", points=[(2.0, 0.2, 2.0)]),
                    Points(series="job/auc", points=[(9.0, 1.0, 0.0)]),
                ]
            )
        )
        store.commit(Change(rows=[Points(series="other", points=[(9.0, 1.0, 0.0)])]))
        assert store.points("job/loss") == [(1.0, 0.1, 1.0), (2.0, 0.2, 2.0), (3.0, 0.3, 3.0)]
        assert store.points("job/loss", after=1.0, limit=1) == [(2.0, 0.2, 2.0)]
        assert store.series("job/") == ["job/auc", "job/loss"]
        assert store.series("") == ["job/auc", "job/loss", "other"]

    def test_the_oldest_points_go_up_to_a_moment_and_a_number(self, store: Store) -> None:
        store.commit(Change(rows=[Points(series="s", points=[(float(n), 0.0, 0.0) for n in range(1, 6)])]))
        store.commit(Change(rows=[OldGone(what="points", before=4.0, limit=2)]))
        assert [moment for moment, _, _ in store.points("s")] == [3.0, 4.0, 5.0]
        store.commit(Change(rows=[OldGone(what="points", before=4.0)]))
        assert [moment for moment, _, _ in store.points("s")] == [4.0, 5.0]
        assert (store.oldest("points"), store.oldest("events")) == (4.0, None)

    def test_a_point_may_be_no_number(self, store: Store) -> None:
        store.commit(Change(rows=[Points(series="s", points=[(1.0, math.nan, 0.0), (2.0, math.inf, 1.0)])]))
        (_, first, _), (_, second, _) = store.points("s")
        assert math.isnan(first)
        assert second == math.inf

    # --- objects
    def test_an_object_comes_back_as_it_was_put(self, store: Store) -> None:
        parts = [Part("aa", 5), Part("bb", 6)]
        small = obj("small", inline=b"\x00\xff", size_bytes=2, etag="e", modified=NOW, meta={"ContentType": "t"})
        big = obj("big", parts=parts, size_bytes=11, etag="f-2", modified=NOW)
        store.commit(Change(rows=[small, big]))
        assert store.object("b", "small") == small.row
        assert store.object("b", "big") == big.row
        assert store.object("b", "big", "null") == big.row

    def test_a_put_of_the_same_version_id_replaces_it(self, store: Store) -> None:
        store.commit(Change(rows=[obj("k", etag="1"), obj("k", etag="2")]))
        assert [row.etag for row in self.versions(store).rows] == ["2"]

    def test_a_put_of_another_version_id_keeps_the_older_ones(self, store: Store) -> None:
        for version in ("v1", "v2", "v3"):
            store.commit(Change(rows=[obj("k", version, etag=version)]))
        rows = self.versions(store).rows
        assert [(row.version_id, row.latest) for row in rows] == [("v3", True), ("v2", False), ("v1", False)]
        old = store.object("b", "k", "v1")
        assert old is not None
        assert (old.etag, old.latest) == ("v1", False)

    def test_an_old_version_put_again_becomes_the_latest(self, store: Store) -> None:
        store.commit(Change(rows=[obj("k", "null", etag="1"), obj("k", "v2", etag="2"), obj("k", "null", etag="3")]))
        assert [row.etag for row in self.versions(store).rows] == ["3", "2"]
        found = store.object("b", "k")
        assert found is not None
        assert found.etag == "3"

    def test_deleting_the_latest_makes_the_newest_that_remains_the_latest(self, store: Store) -> None:
        store.commit(Change(rows=[obj("k", "v1"), obj("k", "v2"), obj("k", "v3", marker=True)]))
        assert store.objects(ObjectQuery(bucket="b")).rows == []
        store.commit(Change(rows=[ObjectDelete(bucket="b", key="k", version_id="v3")]))
        assert [row.version_id for row in store.objects(ObjectQuery(bucket="b")).rows] == ["v2"]
        store.commit(Change(rows=[ObjectDelete(bucket="b", key="k", version_id="v1")]))
        store.commit(Change(rows=[ObjectDelete(bucket="b", key="k", version_id="v1")]))
        assert [row.version_id for row in self.versions(store).rows] == ["v2"]
        store.commit(Change(rows=[ObjectDelete(bucket="b", key="k", version_id="v2")]))
        assert store.object("b", "k") is None

    def test_what_is_said_of_a_version_changes_in_its_place(self, store: Store) -> None:
        store.commit(Change(rows=[obj("k", "v1", etag="1"), obj("k", "v2", etag="2")]))
        old = store.object("b", "k", "v1")
        assert old is not None
        said = ObjectMeta(bucket="b", key="k", seen=Seen.of(old), meta={"a": "b"})
        store.commit(Change(rows=[said]))
        assert [(row.version_id, row.meta) for row in self.versions(store).rows] == [("v2", {}), ("v1", {"a": "b"})]

    def test_of_two_who_say_something_of_one_version_the_later_is_stale(self, store: Store) -> None:
        store.commit(Change(rows=[obj("k", "v1", etag="1")]))
        row = store.object("b", "k", "v1")
        assert row is not None
        first, later = (
            ObjectMeta(bucket="b", key="k", seen=Seen.of(row), meta=meta) for meta in ({"tags": "t"}, {"acl": "a"})
        )
        store.commit(Change(rows=[first]))
        with pytest.raises(Stale):
            store.commit(Change(rows=[later]))
        with pytest.raises(Stale):
            store.commit(Change(rows=[ObjectPut(row=row, seen=Seen.of(row))]))
        found = store.object("b", "k")
        assert found is not None
        assert found.meta == {"tags": "t"}

    def test_what_was_seen_of_an_object_holds_its_deletion(self, store: Store) -> None:
        store.commit(Change(rows=[obj("k", etag="1")]))
        row = store.object("b", "k")
        assert row is not None
        deletion = ObjectDelete(bucket="b", key="k", seen=Seen.of(row))
        store.commit(Change(rows=[obj("k", etag="2")]))
        with pytest.raises(Stale):
            store.commit(Change(rows=[deletion]))
        row = store.object("b", "k")
        assert row is not None
        store.commit(Change(rows=[msgspec.structs.replace(deletion, seen=Seen.of(row))]))
        assert store.object("b", "k") is None
        with pytest.raises(Stale):
            store.commit(Change(rows=[msgspec.structs.replace(deletion, seen=Seen.of(row))]))

    def test_a_bucket_is_held_to_be_empty(self, store: Store) -> None:
        store.commit(Change(rows=[BucketEmpty(bucket="b")]))
        store.commit(Change(rows=[ObjectPut(row=ObjectRow(bucket="b", key="k", marker=True))]))
        with pytest.raises(Stale):
            store.commit(Change(rows=[BucketEmpty(bucket="b")]))
        store.commit(Change(rows=[BucketEmpty(bucket="c")]))

    def test_if_none_match_puts_only_where_no_object_is(self, store: Store) -> None:
        store.commit(Change(rows=[obj("k", "v1", if_none_match=True)]))
        with pytest.raises(Unmet) as caught:
            store.commit(Change(rows=[obj("k", "v2", if_none_match=True)]))
        assert (caught.value.bucket, caught.value.key) == ("b", "k")
        store.commit(Change(rows=[obj("k", "v3", marker=True)]))
        store.commit(Change(rows=[obj("k", "v4", if_none_match=True)]))

    def test_if_match_puts_only_over_that_etag(self, store: Store) -> None:
        with pytest.raises(Unmet):
            store.commit(Change(rows=[obj("k", if_match="1")]))
        store.commit(Change(rows=[obj("k", etag="1")]))
        with pytest.raises(Unmet):
            store.commit(Change(rows=[obj("k", if_match="2", etag="3")]))
        store.commit(Change(rows=[obj("k", if_match="1", etag="3")]))
        store.commit(Change(rows=[obj("k", "v2", marker=True, etag="3")]))
        with pytest.raises(Unmet):
            store.commit(Change(rows=[obj("k", if_match="3")]))

    def test_a_blob_is_used_while_an_object_or_an_upload_points_at_it(self, store: Store) -> None:
        part = UploadPart(upload_id="u", number=1, etag="e", modified=NOW, part=Part("p1", 5))
        store.commit(
            Change(
                rows=[
                    obj("k", parts=[Part("s1", 1), Part("s2", 2), Part("s1", 1)]),
                    obj("copy", parts=[Part("s2", 2)]),
                    part,
                ]
            )
        )
        assert [store.blob_used(sha) for sha in ("s1", "s2", "p1", "none")] == [True, True, True, False]
        store.commit(Change(rows=[obj("k", parts=[Part("s3", 1)]), UploadGone(upload_id="u")]))
        assert [store.blob_used(sha) for sha in ("s1", "s2", "s3", "p1")] == [False, True, True, False]
        store.commit(Change(rows=[ObjectDelete(bucket="b", key="k"), ObjectDelete(bucket="b", key="copy")]))
        assert [store.blob_used(sha) for sha in ("s2", "s3")] == [False, False]

    def test_upload_parts_are_replaced_by_number_and_paged(self, store: Store) -> None:
        def part(number: int, etag: str) -> UploadPart:
            return UploadPart(
                upload_id="u", number=number, etag=etag, modified=NOW, part=Part(etag, 5), meta={"n": number}
            )

        store.commit(Change(rows=[part(10, "a"), part(2, "b"), part(10, "c"), part(3, "d")]))
        assert store.upload_parts("u", limit=2) == [part(2, "b"), part(3, "d")]
        assert store.upload_parts("u", after=3) == [part(10, "c")]
        assert store.upload_parts("other") == []

    # --- listings
    def versions(self, store: Store, **members: Any) -> ObjectPage:
        return store.objects(ObjectQuery(bucket="b", versions=True, **members))

    def walk(self, store: Store, **members: Any) -> list[str]:
        """All pages of a listing, as keys and prefixes in order."""
        query, found = ObjectQuery(bucket="b", **members), list[str]()
        while True:
            page = store.objects(query)
            assert len(page.rows) + len(page.prefixes) <= query.limit
            found += sorted([row.key for row in page.rows] + page.prefixes)
            if not page.next:
                return found
            query.after, query.after_version = page.next, page.next_version

    KEYS = ("a", "a/", "a/b", "a/b/c", "a/d", "a0", "b/1", "b/2", "c", "d/", "e//x", "ä", "é/1", "\U0001f600", "\uffff")

    @pytest.mark.parametrize("limit", [1, 2, 3, 1000])
    @pytest.mark.parametrize(
        ("prefix", "delimiter"),
        [
            *(("", d) for d in ("", "/", "/1")),
            *(("a", d) for d in ("/", "b/")),
            *((p, "/") for p in ("a/", "a/b", "a/b/", "e/", "zz")),
            ("b/", ""),
        ],
    )  # fmt: skip
    def test_a_listing_is_what_the_keys_say(self, store: Store, limit: int, prefix: str, delimiter: str) -> None:
        store.commit(Change(rows=[obj(key) for key in self.KEYS]))
        wanted: list[str] = []
        for key in sorted(self.KEYS, key=str.encode):
            if key.startswith(prefix):
                head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                shown = prefix + head + found if found else key
                if shown not in wanted:
                    wanted.append(shown)
        for versions in (False, True):
            assert self.walk(store, prefix=prefix, delimiter=delimiter, limit=limit, versions=versions) == wanted

    def test_after_starts_behind_a_key_that_need_not_exist(self, store: Store) -> None:
        store.commit(Change(rows=[obj(key) for key in ("a", "c", "d/1", "d/2", "e")]))
        assert [row.key for row in store.objects(ObjectQuery(bucket="b", after="b")).rows] == ["c", "d/1", "d/2", "e"]
        page = store.objects(ObjectQuery(bucket="b", after="d/", delimiter="/"))
        assert ([row.key for row in page.rows], page.prefixes) == (["e"], [])
        page = store.objects(ObjectQuery(bucket="b", after="d/1", delimiter="/"))
        assert page.prefixes == ["d/"]

    def test_a_listing_shows_neither_markers_nor_old_versions_nor_other_buckets(self, store: Store) -> None:
        other = ObjectPut(row=ObjectRow(bucket="other", key="x"))
        store.commit(
            Change(rows=[obj("k", "v1"), obj("k", "v2"), obj("gone/x", "v1"), obj("gone/x", "v2", marker=True), other])
        )
        page = store.objects(ObjectQuery(bucket="b", delimiter="/"))
        assert [(row.key, row.version_id) for row in page.rows] == [("k", "v2")]
        assert page.prefixes == []
        assert self.versions(store, delimiter="/").prefixes == ["gone/"]

    def test_a_listing_leaves_the_bytes_out(self, store: Store) -> None:
        store.commit(Change(rows=[obj("k", inline=b"abc", size_bytes=3)]))
        (row,) = store.objects(ObjectQuery(bucket="b")).rows
        assert (row.inline, row.size_bytes) == (None, 3)

    def test_a_limit_of_none_gives_an_empty_last_page(self, store: Store) -> None:
        store.commit(Change(rows=[obj("k")]))
        assert store.objects(ObjectQuery(bucket="b", limit=0)) == ObjectPage()

    @pytest.mark.parametrize("limit", [1, 2, 3, 5])
    def test_versions_are_paged_newest_first_within_a_key(self, store: Store, limit: int) -> None:
        for key, version in (("a", "z"), ("b", "y"), ("a", "x"), ("a", "w"), ("b", "v"), ("c", "null")):
            store.commit(Change(rows=[obj(key, version)]))
        query, found = ObjectQuery(bucket="b", versions=True, limit=limit), list[tuple[str, str]]()
        while True:
            page = store.objects(query)
            found += [(row.key, row.version_id) for row in page.rows]
            query.after, query.after_version = page.next, page.next_version
            if not page.next:
                break
        assert found == [("a", "w"), ("a", "x"), ("a", "z"), ("b", "v"), ("b", "y"), ("c", "null")]

    def test_versions_deleted_page_by_page_are_all_found(self, store: Store) -> None:
        store.commit(Change(rows=[obj("k", f"v{i}") for i in range(7)]))
        query, deleted = ObjectQuery(bucket="b", versions=True, limit=2), 0
        while True:
            page = store.objects(query)
            store.commit(
                Change(rows=[ObjectDelete(bucket="b", key=row.key, version_id=row.version_id) for row in page.rows])
            )
            deleted += len(page.rows)
            query.after, query.after_version = page.next, page.next_version
            if not page.next:
                break
        assert (deleted, self.versions(store).rows) == (7, [])

    @pytest.mark.parametrize("seed", range(5))
    def test_listings_agree_with_a_plain_model_after_random_writes(self, store: Store, seed: int) -> None:
        chance = random.Random(seed)
        keys = ["".join(chance.choices("ab/é", k=chance.randint(1, 5))) for _ in range(25)]
        model: dict[str, list[tuple[str, bool]]] = {key: [] for key in keys}  # newest first: version, whether a marker
        for _ in range(200):
            key, version = chance.choice(keys), chance.choice(["null", "v1", "v2"])
            model[key] = [kept for kept in model[key] if kept[0] != version]
            if chance.random() < 0.4:
                store.submit(Change(rows=[ObjectDelete(bucket="b", key=key, version_id=version)]))
            else:
                marker = chance.random() < 0.3
                model[key].insert(0, (version, marker))
                store.submit(Change(rows=[obj(key, version, marker=marker)]))
        store.commit(Change(rows=[]))
        live = {key for key, kept in model.items() if kept and not kept[0][1]}
        there = {key for key, kept in model.items() if kept}
        for prefix, delimiter, limit in itertools.product(("", "a", "a/", "é"), ("", "/", "a"), (1, 3, 100)):
            for shown, versions in ((live, False), (there, True)):
                wanted = set()
                for key in shown:
                    if key.startswith(prefix):
                        head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                        wanted.add(prefix + head + found if found else key)
                members = {"prefix": prefix, "delimiter": delimiter, "limit": limit, "versions": versions}
                assert sorted(set(self.walk(store, **members)), key=str.encode) == sorted(wanted, key=str.encode)
        rows = self.versions(store, limit=10_000).rows
        assert [(r.key, r.version_id, r.marker) for r in rows] == [
            (key, *kept) for key in sorted(there, key=str.encode) for kept in model[key]
        ]
        assert [r.latest for r in rows] == [i == 0 or rows[i - 1].key != r.key for i, r in enumerate(rows)]

    # --- work
    def test_a_due_wake_is_claimed_once(self, store: Store, work: Work) -> None:
        store.commit(Change(wakes=[wake("late", NOW + 5), wake("b", NOW - 1), wake("a", NOW - 2)]))
        assert [w.name for w in work.claim(NOW, 10, 10)] == ["a", "b"]
        assert work.claim(NOW, 10, 10) == []
        assert work.next_due() == NOW + 5

    def test_a_claim_takes_the_longest_due_first(self, store: Store, work: Work) -> None:
        store.commit(Change(wakes=[wake(f"n{i}", NOW - i) for i in range(5)]))
        assert [w.name for w in work.claim(NOW, 10, 2)] == ["n4", "n3"]
        assert [w.name for w in work.claim(NOW, 10, 2)] == ["n2", "n1"]

    def test_the_earliest_due_wins(self, store: Store, work: Work) -> None:
        store.commit(Change(wakes=[wake(due=NOW + 5)]))
        store.commit(Change(wakes=[wake(due=NOW + 2)]))
        store.commit(Change(wakes=[wake(due=NOW + 9)]))
        assert work.next_due() == NOW + 2

    def test_a_finished_wake_is_gone(self, store: Store, work: Work) -> None:
        store.commit(Change(wakes=[wake()]))
        (held,) = work.claim(NOW, 10, 10)
        given = doc()
        work.finish(held, None, Change(puts=[given])).result(10)
        assert (store.get(given.ref), work.next_due(), given.version) == (given, None, 1)

    def test_a_wake_given_back_is_due_again_then(self, store: Store, work: Work) -> None:
        store.commit(Change(wakes=[wake()]))
        (held,) = work.claim(NOW, 10, 10)
        work.finish(held, NOW + 3, Change()).result(10)
        assert work.claim(NOW + 2, 10, 10) == []
        (again,) = work.claim(NOW + 3, 10, 10)
        assert again.tries == 1

    @pytest.mark.parametrize("again", [None, NOW + 100])
    def test_a_wake_that_comes_while_the_step_runs_is_not_lost(
        self, store: Store, work: Work, again: float | None
    ) -> None:
        store.commit(Change(wakes=[wake(due=NOW - 50)]))
        (held,) = work.claim(NOW, 10, 10)
        store.commit(Change(wakes=[wake(due=NOW + 7)]))
        store.commit(Change(wakes=[wake(due=NOW)]))
        store.commit(Change(wakes=[wake(due=NOW + 9)]))
        assert work.claim(NOW, 10, 10) == []
        work.finish(held, again, Change()).result(10)
        assert work.next_due() == NOW
        assert len(work.claim(NOW, 10, 10)) == 1

    def test_of_a_later_wake_and_again_the_earlier_counts(self, store: Store, work: Work) -> None:
        store.commit(Change(wakes=[wake()]))
        (held,) = work.claim(NOW, 10, 10)
        store.commit(Change(wakes=[wake(due=NOW + 50)]))
        work.finish(held, NOW + 3, Change()).result(10)
        assert work.next_due() == NOW + 3

    def test_a_step_may_wake_itself_in_its_own_change(self, store: Store, work: Work) -> None:
        store.commit(Change(wakes=[wake()]))
        (held,) = work.claim(NOW, 10, 10)
        work.finish(held, None, Change(wakes=[wake(due=NOW + 1)])).result(10)
        assert work.next_due() == NOW + 1

    def test_a_stale_change_leaves_the_wake_leased(self, store: Store, work: Work) -> None:
        given = doc()
        store.commit(Change(puts=[given], wakes=[wake()]))
        (held,) = work.claim(NOW, 10, 10)
        old = doc()
        old.version = 7
        with pytest.raises(Stale):
            work.finish(held, None, Change(puts=[old], wakes=[wake("b")])).result(10)
        assert work.claim(NOW, 10, 10) == []
        work.finish(held, None, Change(puts=[given])).result(10)
        assert work.next_due() is None

    def test_a_lease_that_ran_out_is_claimed_again_and_the_first_holder_is_stale(
        self, store: Store, work: Work
    ) -> None:
        store.commit(Change(wakes=[wake()]))
        (first,) = work.claim(NOW, 10, 10)
        assert work.next_due() == NOW + 10
        (second,) = work.claim(NOW + 10, 10, 10)
        assert second.tries == 2
        with pytest.raises(Stale):
            work.finish(first, None, Change(puts=[doc()])).result(10)
        assert store.get(doc().ref) is None
        work.finish(second, None, Change()).result(10)
        assert work.next_due() is None

    def test_tries_count_up_until_a_step_returns(self, store: Store, work: Work) -> None:
        store.commit(Change(wakes=[wake()]))
        for tries in (1, 2, 3):
            (held,) = work.claim(NOW, 10, 10)
            assert held.tries == tries
            work.retry(held, NOW).result(10)
        (held,) = work.claim(NOW, 10, 10)
        work.finish(held, NOW, Change()).result(10)
        (held,) = work.claim(NOW, 10, 10)
        assert held.tries == 1

    def test_release_all_gives_every_lease_back(self, store: Store, work: Work) -> None:
        store.commit(Change(wakes=[wake("a", NOW), wake("b", NOW + 1)]))
        assert len(work.claim(NOW + 1, 1000, 10)) == 2
        store.commit(Change(wakes=[wake("b", NOW - 5)]))
        work.release_all()
        assert [(w.name, w.due) for w in work.claim(NOW + 1, 10, 10)] == [("b", NOW - 5), ("a", NOW)]

    def test_a_look_without_a_claim_ends_the_wake_that_it_saw(self, store: Store, work: Work) -> None:
        store.commit(Change(wakes=[wake("a", NOW + 20), wake("b", NOW + 20)]))
        assert (work.due(wake("a").ref), work.due(wake("c").ref)) == (NOW + 20, None)
        work.finish(wake("a", NOW + 20), None, Change()).result(10)
        work.finish(wake("b", NOW + 20), NOW + 3, Change()).result(10)
        work.finish(wake("c", math.inf), NOW + 4, Change()).result(10)
        assert [work.due(wake(name).ref) for name in "abc"] == [None, NOW + 3, NOW + 4]

    @pytest.mark.parametrize(("again", "due"), [(None, NOW + 5), (NOW + 9, NOW + 5), (NOW + 2, NOW + 2)])
    def test_a_wake_that_was_moved_stays_after_a_look_without_a_claim(
        self, store: Store, work: Work, again: float | None, due: float
    ) -> None:
        store.commit(Change(wakes=[wake("a", NOW + 20)]))
        store.commit(Change(wakes=[wake("a", NOW + 5)]))
        work.finish(wake("a", NOW + 20), again, Change()).result(10)
        assert work.due(wake("a").ref) == due

    def test_a_wake_that_was_claimed_stays_claimed_after_a_look_without_a_claim(self, store: Store, work: Work) -> None:
        store.commit(Change(wakes=[wake("a", NOW)]))
        (held,) = work.claim(NOW, 10, 10)
        assert work.due(held.ref) is None
        work.finish(wake("a", NOW), None, Change()).result(10)
        work.finish(wake("a", NOW), NOW + 3, Change()).result(10)  # noted beside the step that runs
        work.finish(held, None, Change()).result(10)
        assert work.due(held.ref) == NOW + 3

    def test_what_a_commit_makes_due_is_claimed_in_it(self, store: Store, work: Work) -> None:
        taken: list[tuple[list[str], float | None]] = []
        room = [1]
        work.attend(lambda: (NOW, 10.0, room[0]), lambda wakes, due: taken.append(([w.name for w in wakes], due)))
        store.commit(Change(puts=[doc()]))
        store.commit(Change(wakes=[wake("later", NOW + 5)]))
        store.commit(Change(wakes=[wake("a", NOW), wake("b", NOW - 1)]))
        room[0] = 0
        store.commit(Change(wakes=[wake("c", NOW)]))
        store.commit(Change())  # the one before has been told by now
        assert taken == [([], NOW + 5), (["b"], NOW), ([], NOW)]
        assert [w.name for w in work.claim(NOW, 10, 10)] == ["a", "c"]

    def test_what_a_finish_makes_due_is_claimed_in_it(self, store: Store, work: Work) -> None:
        store.commit(Change(puts=[doc()], wakes=[wake("a", NOW), wake("b", NOW)]))
        first, second = work.claim(NOW, 10, 10)
        store.commit(Change(wakes=[wake("a", NOW)]))  # noted, since it is leased
        taken: list[Wake] = []
        work.attend(lambda: (NOW, 20.0, 5), lambda wakes, due: taken.extend(wakes))
        work.finish(first, None, Change()).result(10)
        work.finish(second, NOW, Change(wakes=[wake("x", NOW)])).result(10)
        store.commit(Change())
        assert [(w.name, w.leased) for w in taken] == [("a", NOW + 20), ("b", NOW + 20), ("x", NOW + 20)]

    def test_a_commit_that_fails_claims_nothing_of_its_own(self, store: Store, work: Work) -> None:
        store.commit(Change(puts=[doc()]))
        taken: list[Wake] = []
        work.attend(lambda: (NOW, 10.0, 5), lambda wakes, due: taken.extend(wakes))
        with pytest.raises(Taken):
            store.commit(Change(puts=[doc()], wakes=[wake()]))
        store.commit(Change())
        assert (taken, work.next_due()) == ([], None)


class TestSqlite(StoreContract):
    """SQLite, with the writer in the same process."""

    @pytest.fixture
    def writer(self, tmp_path: Path) -> Iterator[Writer]:
        writer = Writer(tmp_path / "state.db")
        yield writer
        writer.close()

    @pytest.fixture
    def store(self, tmp_path: Path, writer: Writer) -> Iterator[Store]:
        store = SqliteStore(tmp_path / "state.db", writer)
        yield store
        store.close()

    @pytest.fixture
    def work(self, tmp_path: Path, writer: Writer) -> Iterator[Work]:
        reads = SqliteReads(tmp_path / "state.db")
        yield SqliteWork(reads, writer)
        reads.close()


class TestSqliteThroughTheSocket(TestSqlite):
    """SQLite, as a front has it: reads of its own, changes over the socket to the engine's writer."""

    @pytest.fixture
    def store(self, tmp_path: Path, writer: Writer) -> Iterator[Store]:
        serving = WriterServer(writer, tmp_path / "writer.sock")
        serving.start()
        store = SqliteStore(tmp_path / "state.db", RemoteWriter(tmp_path / "writer.sock"))
        yield store
        store.close()
        serving.close()
