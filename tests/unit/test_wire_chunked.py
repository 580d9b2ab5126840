"""aws-chunked bodies: decoded as they come, refused when they are not what they say."""

from __future__ import annotations

import pytest

from penstock.wire.chunked import Malformed, Unchunker, decode

BODY = b"4\r\nabcd\r\n3;chunk-signature=ignored\r\nefg\r\n0\r\nx-amz-checksum-crc32:abc=\r\nX-Other: 1 \r\n\r\n"


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_body_is_the_same_however_it_is_cut(step: int) -> None:
    unchunker = Unchunker(length=7)
    pieces = [piece for at in range(0, len(BODY), step) for piece in unchunker.feed(BODY[at : at + step])]
    assert b"".join(pieces) == b"abcdefg"
    assert unchunker.finish() == {"x-amz-checksum-crc32": "abc=", "x-other": "1"}


def test_pieces_are_given_before_their_chunk_is_whole() -> None:
    assert Unchunker().feed(b"100000\r\nabc") == [b"abc"]


def test_an_empty_body_is_empty() -> None:
    assert decode(b"0\r\n\r\n", length=0) == (b"", {})


def test_the_last_empty_line_may_be_missing() -> None:
    assert decode(b"1\r\na\r\n0\r\n") == (b"a", {})


@pytest.mark.parametrize("cut", [1, 4, 8, 12, 40, 47])
def test_a_body_that_ends_early_is_refused(cut: int) -> None:
    with pytest.raises(Malformed) as caught:
        decode(BODY[:cut])
    assert caught.value.code == "IncompleteBody"


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\nab\r\n0\r\n\r\n",
        b"-1\r\na\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b"1_0\r\n",
        b"\r\n",
        b"1\r\nabc\r\n0\r\n\r\n",
        b"1\r\na\r\n0\r\n\r\nmore",
        b"1\r\na\r\n0\r\nno colon\r\n\r\n",
        b"f" * 20_000,
        b"11111111111111111\r\n",
    ],
)
def test_what_is_not_chunked_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode(body)


@pytest.mark.parametrize("length", [6, 8])
def test_another_length_than_declared_is_refused(length: int) -> None:
    with pytest.raises(Malformed, match="Content-Length"):
        decode(BODY, length=length)
