"""What every blob driver promises; `BlobsContract` is inherited by one class a driver."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.blobs.base import INLINE_BYTES, Blobs, Received
from penstock.blobs.files import CHUNK_BYTES, FileBlobs

BIG = os.urandom(3 * CHUNK_BYTES + 7)
SHA = hashlib.sha256(BIG).hexdigest()


def give(blobs: Blobs, data: bytes, algorithms: tuple[str, ...] = (), piece_bytes: int = 65_536) -> Received:
    receiver = blobs.receive(algorithms)
    for start in range(0, len(data), piece_bytes):
        receiver.write(memoryview(data)[start : start + piece_bytes])
    return receiver.finish()


def nobody(_: str) -> bool:
    return False


class BlobsContract:
    """Inherit it, and give the driver by a fixture `blobs`, which makes a blob look older by `age`."""

    def test_a_body_comes_back_byte_for_byte(self, blobs: Blobs) -> None:
        received = give(blobs, BIG)
        assert (received.size_bytes, received.sha256, received.inline) == (len(BIG), SHA, None)
        assert received.md5 == hashlib.md5(BIG).hexdigest()
        chunks = list(blobs.read(SHA))
        assert b"".join(chunks) == BIG
        assert max(map(len, chunks)) <= CHUNK_BYTES

    def test_large_pieces_are_hashed_as_small_ones(self, blobs: Blobs) -> None:
        received = give(blobs, BIG, ("SHA256", "CRC32"), piece_bytes=CHUNK_BYTES)
        assert received == give(blobs, BIG, ("SHA256", "CRC32"))

    @pytest.mark.parametrize("size_bytes", [0, 1, INLINE_BYTES])
    def test_a_small_body_stays_in_memory(self, blobs: Blobs, size_bytes: int) -> None:
        received = give(blobs, BIG[:size_bytes], piece_bytes=1000)
        assert received.inline == BIG[:size_bytes]
        assert blobs.path(received.sha256) is None

    def test_one_byte_more_is_a_blob(self, blobs: Blobs) -> None:
        received = give(blobs, BIG[: INLINE_BYTES + 1], piece_bytes=1000)
        assert received.inline is None
        assert b"".join(blobs.read(received.sha256)) == BIG[: INLINE_BYTES + 1]

    @pytest.mark.parametrize(("start", "length"), [(0, 10), (CHUNK_BYTES - 1, 2), (len(BIG) - 3, 3), (5, None), (9, 0)])
    def test_a_range_is_read_alone(self, blobs: Blobs, start: int, length: int | None) -> None:
        give(blobs, BIG)
        end = len(BIG) if length is None else start + length
        assert b"".join(blobs.read(SHA, start, length)) == BIG[start:end]

    def test_reading_what_is_not_there_raises_at_once(self, blobs: Blobs) -> None:
        with pytest.raises(FileNotFoundError):
            blobs.read("0" * 64)

    def test_the_checksums_asked_for_are_computed(self, blobs: Blobs) -> None:
        received = give(blobs, BIG, ("CRC32", "SHA256", "SHA1", "MD5", "CRC64NVME"))
        assert received.checksums["CRC32"] == base64.b64encode(zlib.crc32(BIG).to_bytes(4, "big")).decode()
        assert received.checksums["SHA256"] == base64.b64encode(hashlib.sha256(BIG).digest()).decode()
        assert received.checksums["SHA1"] == base64.b64encode(hashlib.sha1(BIG).digest()).decode()
        assert received.checksums["MD5"] == base64.b64encode(hashlib.md5(BIG).digest()).decode()
        assert set(received.checksums) == {"CRC32", "SHA256", "SHA1", "MD5", "CRC64NVME"}

    def test_what_is_abandoned_is_gone(self, blobs: Blobs) -> None:
        receiver = blobs.receive()
        receiver.write(BIG)
        receiver.abandon()
        receiver.abandon()
        assert blobs.path(SHA) is None

    def test_abandoning_after_finish_keeps_the_blob(self, blobs: Blobs) -> None:
        receiver = blobs.receive()
        receiver.write(BIG)
        receiver.finish()
        receiver.abandon()
        assert b"".join(blobs.read(SHA)) == BIG

    def test_the_same_bytes_twice_are_one_blob(self, blobs: Blobs) -> None:
        assert give(blobs, BIG).sha256 == give(blobs, BIG).sha256
        assert blobs.collect(time.time() + 10, nobody) == len(BIG)

    def test_the_same_bytes_at_once_are_one_blob(self, blobs: Blobs) -> None:
        threads = [threading.Thread(target=give, args=(blobs, BIG)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert b"".join(blobs.read(SHA)) == BIG
        assert blobs.collect(time.time() + 10, nobody) == len(BIG)

    def test_few_bytes_can_be_a_blob(self, blobs: Blobs) -> None:
        blob = blobs.put(b"tail")
        assert b"".join(blobs.read(blob.sha256)) == b"tail"
        assert (blob.sha256, blob.size_bytes) == (hashlib.sha256(b"tail").hexdigest(), 4)

    def test_the_collector_can_work_in_slices(self, blobs: Blobs) -> None:
        give(blobs, BIG)
        other = f"{(int(SHA[0], 16) + 1) % 16:x}"
        assert blobs.collect(time.time() + 10, nobody, prefix=other) == 0
        assert blobs.collect(time.time() + 10, nobody, prefix=SHA[:2]) == len(BIG)

    def test_parts_join_in_order(self, blobs: Blobs) -> None:
        cut = 2 * CHUNK_BYTES + 100_000
        first, second = give(blobs, BIG[:cut]), give(blobs, BIG[cut:])
        whole = blobs.join([(first.sha256, first.size_bytes), (second.sha256, second.size_bytes)])
        assert (whole.sha256, whole.size_bytes) == (SHA, len(BIG))
        assert b"".join(blobs.read(whole.sha256)) == BIG

    def test_joining_a_missing_part_raises(self, blobs: Blobs) -> None:
        with pytest.raises(FileNotFoundError):
            blobs.join([("0" * 64, 5)])

    def test_the_collector_leaves_what_is_used(self, blobs: Blobs) -> None:
        give(blobs, BIG)
        assert blobs.collect(time.time() + 10, lambda sha256: sha256 == SHA) == 0
        assert b"".join(blobs.read(SHA)) == BIG

    def test_the_collector_deletes_what_nobody_uses(self, blobs: Blobs) -> None:
        give(blobs, BIG)
        assert blobs.collect(time.time() + 10, nobody) == len(BIG)
        with pytest.raises(FileNotFoundError):
            blobs.read(SHA)

    def test_the_collector_leaves_what_is_young(self, blobs: Blobs) -> None:
        give(blobs, BIG)
        assert blobs.collect(time.time() - 10, nobody) == 0
        assert b"".join(blobs.read(SHA)) == BIG

    @pytest.mark.parametrize("again", ["put", "touch"])
    def test_finding_a_blob_makes_it_young(self, blobs: Blobs, age: Callable[[str], None], again: str) -> None:
        give(blobs, BIG)
        age(SHA)
        if again == "put":
            give(blobs, BIG)
        else:
            blobs.touch(SHA)
        assert blobs.collect(time.time() - 10, nobody) == 0
        assert b"".join(blobs.read(SHA)) == BIG

    def test_touching_what_is_not_there_raises(self, blobs: Blobs) -> None:
        with pytest.raises(FileNotFoundError):
            blobs.touch("0" * 64)

    def test_a_blob_used_between_the_two_looks_is_put_back(self, blobs: Blobs) -> None:
        give(blobs, BIG)
        looks: list[bytes] = []

        def used(sha256: str) -> bool:
            looks.append(b"".join(blobs.read(sha256)))  # readable at both looks
            return len(looks) == 2

        assert blobs.collect(time.time() + 10, used) == 0
        assert looks == [BIG, BIG]
        assert b"".join(blobs.read(SHA)) == BIG

    def test_a_blob_put_again_while_collected_stays(self, blobs: Blobs) -> None:
        give(blobs, BIG)
        looks: list[str] = []

        def used(sha256: str) -> bool:
            looks.append(sha256)
            if len(looks) == 2:
                give(blobs, BIG)
            return False

        blobs.collect(time.time() + 10, used)
        assert b"".join(blobs.read(SHA)) == BIG


class TestFileBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> FileBlobs:
        return FileBlobs(tmp_path / "blobs")

    @pytest.fixture
    def age(self, tmp_path: Path) -> Callable[[str], None]:
        return lambda sha256: os.utime(tmp_path / "blobs" / sha256[:2] / sha256, (1000, 1000))

    def test_a_blob_is_a_file_named_by_its_hash_that_others_can_only_read(self, blobs: FileBlobs) -> None:
        give(blobs, BIG)
        path = Path(blobs.root) / SHA[:2] / SHA
        assert blobs.path(SHA) == str(path)
        assert path.stat().st_mode & 0o777 == 0o644

    def test_no_temporary_file_stays(self, blobs: FileBlobs) -> None:
        give(blobs, BIG)
        receiver = blobs.receive()
        receiver.write(BIG)
        receiver.abandon()
        blobs.join([(SHA, len(BIG))])
        with pytest.raises(FileNotFoundError):
            blobs.join([(SHA, len(BIG)), ("0" * 64, 5)])
        assert os.listdir(Path(blobs.root) / "tmp") == []

    def test_opening_removes_old_leftovers_only(self, blobs: FileBlobs) -> None:
        old, young = (Path(blobs.root) / "tmp" / name for name in ("old", "young"))
        old.touch()
        young.touch()
        os.utime(old, (1000, 1000))
        FileBlobs(blobs.root)
        assert (old.exists(), young.exists()) == (False, True)

    def test_what_a_dead_collector_left_away_is_found_and_put_back(self, blobs: FileBlobs) -> None:
        give(blobs, BIG)
        os.rename(Path(blobs.root) / SHA[:2] / SHA, Path(blobs.root) / "away" / SHA)
        assert b"".join(blobs.read(SHA)) == BIG
        blobs.collect(0, nobody)
        assert (Path(blobs.root) / SHA[:2] / SHA).exists()
        os.rename(Path(blobs.root) / SHA[:2] / SHA, Path(blobs.root) / "away" / SHA)
        assert blobs.path(SHA) == str(Path(blobs.root) / SHA[:2] / SHA)

    def test_a_shortened_blob_is_replaced_when_its_bytes_come_again(self, blobs: FileBlobs) -> None:
        give(blobs, BIG)
        path = Path(blobs.root) / SHA[:2] / SHA
        path.chmod(0o644)
        path.write_bytes(b"lost")
        give(blobs, BIG)
        assert path.read_bytes() == BIG

    def test_a_job_that_holds_a_link_costs_no_bytes_to_free(self, blobs: FileBlobs, tmp_path: Path) -> None:
        give(blobs, BIG)
        os.link(Path(blobs.root) / SHA[:2] / SHA, tmp_path / "input")
        assert blobs.collect(time.time() + 10, nobody) == 0
        assert (tmp_path / "input").read_bytes() == BIG
        assert blobs.path(SHA) is None

    def test_reads_close_their_files(self, blobs: FileBlobs) -> None:
        give(blobs, BIG)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            next(blobs.read(SHA))
            blobs.read(SHA)
        assert len(os.listdir("/proc/self/fd")) == before
