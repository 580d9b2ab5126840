"""Objects as files of a run, and results as objects."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.kernel import staging
from penstock.kernel.call import Call, Long
from penstock.kernel.errors import ServiceError
from penstock.runs.base import Result
from penstock.store.records import Change, ObjectPut, ObjectRow, Part

BUCKET = "data-bucket"
BIG = os.urandom(100_000)


@pytest.fixture
def put(world: Any) -> Any:
    def put(key: str, data: bytes = b"x") -> None:
        world("s3", "PutObject", Bucket=BUCKET, Key=key, Body=data)

    world("s3", "CreateBucket", Bucket=BUCKET)
    return put


def names(world: Any, prefix: str) -> list[str]:
    return [name for _, name in staging.find_objects(world.call(), f"s3://{BUCKET}/{prefix}")]


def patient(world: Any) -> Call:
    call: Call = world.call()
    call.patient = True
    return call


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


# --- which objects, and their names


@pytest.mark.parametrize("prefix", ["train", "train/"])
def test_files_are_named_below_the_prefix(world: Any, put: Any, prefix: str) -> None:
    for key in ("train/a.csv", "train/sub/b.csv", "test/c.csv"):
        put(key)
    assert names(world, prefix) == ["a.csv", "sub/b.csv"]


def test_an_object_named_whole_keeps_its_name(world: Any, put: Any) -> None:
    put("in/data.csv")
    assert names(world, "in/data.csv") == ["data.csv"]


def test_a_whole_bucket_can_be_meant(world: Any, put: Any) -> None:
    put("a/b")
    assert [name for _, name in staging.find_objects(world.call(), f"s3://{BUCKET}")] == ["a/b"]


def test_folder_markers_are_no_files(world: Any, put: Any) -> None:
    put("in/", b"")
    put("in/sub/", b"")
    put("in/sub/a")
    assert names(world, "in/") == ["sub/a"]


def test_keys_that_are_no_file_names_have_names(world: Any, put: Any) -> None:
    long = "l" * 300
    keys = {
        "in/a": f"a~{digest('in/a')[:8]}",
        "in/a/b": "a/b",
        "in/c//d": "c/%/d",
        "in/e/../f": "e/%2E%2E/f",
        "in/./g": "%2E/g",
        f"in/{long}/h": f"{'l' * 200}~{digest(long)[:16]}/h",
        "in/full/": "full/%",
    }
    for key in keys:
        put(key)
    found = staging.find_objects(world.call(), f"s3://{BUCKET}/in/")
    assert {row.key: name for row, name in found} == keys


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault of the keys
@given(st.sets(st.text("ab/.é%\0", min_size=1, max_size=6), max_size=12))
def test_any_keys_can_be_files_of_one_folder(keys: set[str]) -> None:
    rows = [ObjectRow(bucket=BUCKET, key=key, size_bytes=1) for key in sorted(keys)]
    found = [name for _, name in staging._named(rows, [row.key for row in rows])]
    folders = {name[:at] for name in found for at in range(len(name)) if name[at] == "/"}
    assert len(set(found)) == len(keys)
    assert not folders & set(found)
    for name in found:
        for segment in name.split("/"):
            assert segment not in ("", ".", "..")
            assert "\0" not in segment
            assert len(segment.encode()) <= 255


def test_nothing_under_a_prefix_is_told(world: Any, put: Any) -> None:
    with pytest.raises(ServiceError, match=f'No S3 objects found under S3 URL "s3://{BUCKET}/none"'):
        names(world, "none")
    with pytest.raises(ServiceError, match="NoSuchBucket"):
        staging.find_objects(world.call(), "s3://no-such-bucket/x")
    with pytest.raises(ServiceError, match="is no S3 URI"):
        staging.find_objects(world.call(), "/local/path")


def test_a_manifest_lists_objects(world: Any, put: Any) -> None:
    for key in ("data/a.csv", "data/sub/b.csv", "data/c.csv"):
        put(key)
    put("m.json", json.dumps([{"prefix": f"s3://{BUCKET}/data/"}, "sub/b.csv", "a.csv"]).encode())
    found = staging.find_objects(world.call(), f"s3://{BUCKET}/m.json", "ManifestFile")
    assert [(row.key, name) for row, name in found] == [("data/sub/b.csv", "sub/b.csv"), ("data/a.csv", "a.csv")]


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '[{"prefix": "s3://data-bucket/"}]', '["a"]'])
def test_a_manifest_of_another_form_is_told(world: Any, put: Any, text: str) -> None:
    put("m.json", text.encode())
    with pytest.raises(ServiceError, match="is not of the form"):
        staging.find_objects(world.call(), f"s3://{BUCKET}/m.json", "ManifestFile")


def test_a_manifest_of_what_is_not_there_is_told(world: Any, put: Any) -> None:
    put("m.json", json.dumps([{"prefix": f"s3://{BUCKET}/data/"}, "gone"]).encode())
    with pytest.raises(ServiceError, match="lists s3://data-bucket/data/gone, which is not there"):
        staging.find_objects(world.call(), f"s3://{BUCKET}/m.json", "ManifestFile")


def test_augmented_manifests_are_refused(world: Any, put: Any) -> None:
    with pytest.raises(ServiceError, match="AugmentedManifestFile"):
        staging.find_objects(world.call(), f"s3://{BUCKET}/m", "AugmentedManifestFile")


@given(st.integers(0, 20), st.integers(1, 5))
def test_shards_are_even_and_whole(count: int, instances: int) -> None:
    found = [staging.Found(ObjectRow(bucket="b", key=str(n)), str(n)) for n in range(count)]
    shares = [staging.shard(found, index, instances) for index in range(instances)]
    assert sorted(each.name for share in shares for each in share) == sorted(each.name for each in found)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# --- their bytes


def test_small_objects_are_bytes_and_large_ones_files(world: Any, put: Any) -> None:
    put("in/small", b"abc")
    put("in/large", BIG)
    large, small = staging.stage(world.call(), f"s3://{BUCKET}/in/", target="/opt/ml/input/data/train")
    assert small == ("/opt/ml/input/data/train/small", None, b"abc")
    assert large.target == "/opt/ml/input/data/train/large"
    assert Path(str(large.blob)).read_bytes() == BIG


def test_a_staged_blob_is_kept_from_the_collector(world: Any, put: Any) -> None:
    put("in/large", BIG)
    path = world.app.blobs.path(hashlib.sha256(BIG).hexdigest())
    os.utime(path, (1000, 1000))
    (staged,) = staging.stage(world.call(), f"s3://{BUCKET}/in/")
    world("s3", "DeleteObject", Bucket=BUCKET, Key="in/large")
    assert world.app.blobs.collect(world.app.clock.now() - 3600, world.app.store.blob_used) == 0
    assert Path(str(staged.blob)).read_bytes() == BIG


def test_many_small_objects_do_not_swell_the_specification(
    world: Any, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "IN_SPEC_BYTES", 1000)
    for number in range(3):
        put(f"in/{number}", b"%d" % number * 600)
    with pytest.raises(Long):  # files are made and synced: not in a step's 50 ms
        staging.stage(world.call(), f"s3://{BUCKET}/in/")
    staged = staging.stage(patient(world), f"s3://{BUCKET}/in/")
    assert [each.data is not None for each in staged] == [True, False, False]
    assert Path(str(staged[2].blob)).read_bytes() == b"2" * 600


def test_a_multipart_object_is_joined_once(world: Any, put: Any) -> None:
    s3 = lambda operation, **params: world("s3", operation, Bucket=BUCKET, Key="in/big", **params)  # noqa: E731
    pieces = [os.urandom(5 << 20), BIG]
    upload = s3("CreateMultipartUpload")["UploadId"]
    parts = [
        {"PartNumber": n, "ETag": s3("UploadPart", UploadId=upload, PartNumber=n, Body=piece)["ETag"]}
        for n, piece in enumerate(pieces, 1)
    ]
    s3("CompleteMultipartUpload", UploadId=upload, MultipartUpload={"Parts": parts})
    before = s3("HeadObject", ChecksumMode="ENABLED")
    with pytest.raises(Long):
        staging.stage(world.call(), f"s3://{BUCKET}/in/")
    call = patient(world)
    (staged,) = staging.stage(call, f"s3://{BUCKET}/in/")
    assert Path(str(staged.blob)).read_bytes() == b"".join(pieces)
    assert staging.stage(call, f"s3://{BUCKET}/in/big", target="/other")[0].blob == staged.blob
    assert not call.change.rows  # it is written already, whatever becomes of the step
    assert len(world.app.store.object(BUCKET, "in/big").parts) == 1
    assert s3("HeadObject", ChecksumMode="ENABLED") == before
    assert s3("GetObject", PartNumber=2)["PartsCount"] == 2
    again = world.call()
    assert staging.stage(again, f"s3://{BUCKET}/in/") == [staged]
    assert not again.change.rows


def test_an_object_that_was_overwritten_while_it_was_joined_keeps_what_came_later(
    world: Any, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [Part(world.app.blobs.put(piece).sha256, len(piece)) for piece in (b"one", b"two")]
    row = ObjectRow(bucket=BUCKET, key="in/big", size_bytes=6, etag="e-2", parts=parts)
    world.app.store.commit(Change(rows=[ObjectPut(row=row)]))
    join = world.app.blobs.join

    def meanwhile(given: Any) -> Any:
        put("in/big", b"later")
        return join(given)

    monkeypatch.setattr(world.app.blobs, "join", meanwhile)
    (staged,) = staging.stage(patient(world), f"s3://{BUCKET}/in/")
    assert Path(str(staged.blob)).read_bytes() == b"onetwo"
    assert world.app.store.object(BUCKET, "in/big").inline == b"later"


def test_tags_that_were_set_while_an_object_was_joined_are_kept(
    world: Any, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [Part(world.app.blobs.put(piece).sha256, len(piece)) for piece in (b"one", b"two")]
    row = ObjectRow(bucket=BUCKET, key="in/big", size_bytes=6, etag="e-2", parts=parts)
    world.app.store.commit(Change(rows=[ObjectPut(row=row)]))
    commit, tags = world.app.store.commit, [{"Key": "a", "Value": "b"}]

    def meanwhile(change: Change) -> None:
        monkeypatch.setattr(world.app.store, "commit", commit)
        world("s3", "PutObjectTagging", Bucket=BUCKET, Key="in/big", Tagging={"TagSet": tags})
        commit(change)

    monkeypatch.setattr(world.app.store, "commit", meanwhile)
    staging.stage(patient(world), f"s3://{BUCKET}/in/")
    assert world("s3", "GetObjectTagging", Bucket=BUCKET, Key="in/big")["TagSet"] == tags


@pytest.mark.parametrize("count", [999, 1001])
def test_thousands_of_objects_are_laid_out_beside_the_engines_steps(world: Any, put: Any, count: int) -> None:
    rows: list[Any] = [
        ObjectPut(row=ObjectRow(bucket=BUCKET, key=f"in/{n}", size_bytes=1, etag="e", inline=b"x"))
        for n in range(count)
    ]
    world.app.store.commit(Change(rows=rows))
    if count > staging.FEW:
        with pytest.raises(Long):
            staging.stage(world.call(), f"s3://{BUCKET}/in/")
    assert len(staging.stage(patient(world), f"s3://{BUCKET}/in/")) == count


def test_a_fingerprint_changes_with_the_bytes_only(world: Any, put: Any) -> None:
    uri = f"s3://{BUCKET}/in/"
    assert staging.fingerprint(world.call(), uri) == ""
    put("in/a", b"1")
    first = staging.fingerprint(world.call(), uri)
    put("in/a", b"1")
    assert staging.fingerprint(world.call(), uri) == first != ""
    put("in/a", b"2")
    assert staging.fingerprint(world.call(), uri) != first


# --- results


def test_results_become_objects(world: Any, put: Any) -> None:
    large = world.app.blobs.put(BIG)
    results = [
        Result("o", "model.tar.gz", large.sha256, hashlib.md5(BIG).hexdigest(), len(BIG)),
        Result("o", "sub/metrics.json", digest("{}"), hashlib.md5(b"{}").hexdigest(), 2, b"{}"),
    ]
    call = world.call()
    uris = staging.publish(call, f"s3://{BUCKET}/out/job", results)
    world.app.store.commit(call.change)
    assert uris == [f"s3://{BUCKET}/out/job/model.tar.gz", f"s3://{BUCKET}/out/job/sub/metrics.json"]
    got = world("s3", "GetObject", Bucket=BUCKET, Key="out/job/model.tar.gz")
    assert b"".join(got["Body"]) == BIG
    assert got["ETag"] == f'"{hashlib.md5(BIG).hexdigest()}"'
    assert world("s3", "GetObject", Bucket=BUCKET, Key="out/job/sub/metrics.json")["Body"] == b"{}"


def test_one_result_can_be_the_uri_itself(world: Any, put: Any) -> None:
    call = world.call()
    result = Result("o", "", digest("{}"), hashlib.md5(b"{}").hexdigest(), 2, b"{}")
    assert staging.publish(call, f"s3://{BUCKET}/out/model.tar.gz", [result]) == [f"s3://{BUCKET}/out/model.tar.gz"]


def test_results_need_a_bucket_of_the_account(world: Any, put: Any) -> None:
    with pytest.raises(ServiceError, match="NoSuchBucket"):
        staging.publish(world.call(), "s3://no-such-bucket/out", [])
    world.account = "999999999999"
    with pytest.raises(ServiceError, match="AccessDenied"):
        staging.publish(world.call(), f"s3://{BUCKET}/out", [])
