"""Checksums, held against published check values and against the whole computed at once."""

from __future__ import annotations

import itertools
import os

import pytest

from penstock.blobs import checksums

CHECK = b"123456789"
DATA = os.urandom(300_000)
CUTS = (0, 100_000, 100_001, 300_000)
PIECES = [DATA[start:end] for start, end in itertools.pairwise(CUTS)]


@pytest.mark.parametrize(
    ("algorithm", "value"), [("CRC32", 0xCBF43926), ("CRC32C", 0xE3069283), ("CRC64NVME", 0xAE8B14860A799888)]
)
def test_crcs_give_their_check_values(algorithm: str, value: int) -> None:
    width_bytes = 8 if algorithm == "CRC64NVME" else 4
    assert checksums.compute(algorithm, [CHECK]) == checksums.encode(value.to_bytes(width_bytes, "big"))


@pytest.mark.parametrize("algorithm", checksums.ALGORITHMS)
def test_pieces_give_what_the_whole_gives(algorithm: str) -> None:
    assert checksums.compute(algorithm, PIECES) == checksums.compute(algorithm, [DATA])


@pytest.mark.parametrize("algorithm", checksums.FULL_OBJECT)
def test_crcs_of_parts_combine_to_that_of_the_whole(algorithm: str) -> None:
    parts = [(checksums.compute(algorithm, [piece]), len(piece)) for piece in PIECES]
    assert checksums.combine(algorithm, parts) == checksums.compute(algorithm, [DATA])


def test_a_composite_is_the_checksum_of_the_digests_and_their_number() -> None:
    parts = [checksums.compute("SHA256", [piece]) for piece in (b"a", b"b")]
    digests = b"".join(checksums.base64.b64decode(part) for part in parts)
    assert checksums.composite("SHA256", parts) == checksums.compute("SHA256", [digests]) + "-2"


def test_an_unknown_algorithm_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        checksums.start("ADLER32")


@pytest.mark.parametrize(("text", "good"), [("y/Q5Jg==", True), ("y/Q5", False), ("not base64!", False), ("", False)])
def test_a_checksum_has_its_length(text: str, good: bool) -> None:
    assert checksums.valid("CRC32", text) is good


@pytest.mark.parametrize(
    ("headers", "algorithms"),
    [
        ({}, ("CRC64NVME",)),
        ({"x-amz-checksum-sha256": "…"}, ("CRC64NVME", "SHA256")),
        ({"x-amz-trailer": "x-amz-checksum-crc32", "x-amz-sdk-checksum-algorithm": "CRC32"}, ("CRC32", "CRC64NVME")),
        ({"x-amz-sdk-checksum-algorithm": "SHA1"}, ("CRC64NVME", "SHA1")),
        ({"x-amz-checksum-type": "FULL_OBJECT", "x-amz-checksum-algorithm": "crc32"}, ("CRC64NVME",)),
    ],
)
def test_headers_name_the_algorithms(headers: dict[str, str], algorithms: tuple[str, ...]) -> None:
    assert checksums.asked(headers) == algorithms
