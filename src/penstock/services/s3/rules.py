"""Pure rules of S3: names, ranges, conditions, ETags, copy sources, tags."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from penstock.kernel.errors import ServiceError

KEY_BYTES = 1024
PART_BYTES = 5 << 20
PUT_BYTES = 5 << 30
METADATA_BYTES = 2048
LIST_KEYS = 1000

_NAME = re.compile(r"(?=.{3,63}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_VERSION = re.compile(r"[A-Za-z0-9._-]{32}|null")
_WORD = re.compile(r"=\?([A-Za-z0-9_-]+)\?([BbQq])\?([!-~]*?)\?=")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSHOWABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


# --- names


def bucket_named_well(name: str) -> bool:
    """Tells whether S3 takes the name for a new bucket."""
    if not _NAME.fullmatch(name) or name.startswith(("xn--", "sthree-", "amzn-s3-demo-")):
        return False
    if name.endswith(("-s3alias", "--ol-s3", ".mrap", "--x-s3")):
        return False
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return True
    return False


def check_key(key: str) -> None:
    """Raises: ServiceError KeyTooLongError."""
    size_bytes = len(key.encode())
    if size_bytes > KEY_BYTES:
        raise ServiceError("KeyTooLongError", "Your key is too long", 400, Size=size_bytes, MaxSizeAllowed=KEY_BYTES)


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raises: ServiceError MetadataTooLarge; InvalidArgument for a name that no header can have (a form's can be anything)."""
    for name in metadata:
        if not _TOKEN.fullmatch(name):
            sentence = "The metadata name is not valid."
            raise ServiceError("InvalidArgument", sentence, 400, ArgumentName=f"x-amz-meta-{name}")
    size_bytes = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if size_bytes > METADATA_BYTES:
        sentence = "Your metadata headers exceed the maximum allowed metadata size"
        raise ServiceError("MetadataTooLarge", sentence, 400, Size=size_bytes, MaxSizeAllowed=METADATA_BYTES)


def is_version_id(text: str) -> bool:
    """Tells whether a version could have that id."""
    return _VERSION.fullmatch(text) is not None


def check_version_id(text: str) -> None:
    """Raises: ServiceError InvalidArgument for what can be no version's id."""
    if not is_version_id(text):
        known = {"ArgumentName": "versionId", "ArgumentValue": text}
        raise ServiceError("InvalidArgument", "Invalid version id specified", 400, **known)


# --- user metadata


def read_metadata(given: Mapping[str, str]) -> dict[str, str]:
    """Gives user metadata as it is kept: values in RFC 2047's form are decoded, names are lower case."""
    return {name.lower(): _decoded(value.strip()) for name, value in given.items()}


def _decoded(text: str) -> str:
    if "=?" not in text:
        return text
    try:
        return _WORD.sub(_decoded_word, re.sub(r"\?=\s+=\?", "?==?", text))  # blanks between two words mean nothing
    except (ValueError, LookupError, binascii.Error):
        return text


def _decoded_word(found: re.Match[str]) -> str:
    charset, form, text = found.groups()
    if form in "Bb":
        return base64.b64decode(text, validate=True).decode(charset)
    return binascii.a2b_qp(text.replace("_", " "), header=False).decode(charset)


def show_metadata(kept: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """Gives user metadata as headers can hold it, and how many of them none can.

    What is not US-ASCII comes in RFC 2047's form: base64 where most of it is not, else quoted-printable.
    """
    shown = {name: _encoded(value) for name, value in kept.items() if not _UNSHOWABLE.search(value)}
    return shown, len(kept) - len(shown)


def _encoded(text: str) -> str:
    if text.isascii():
        return text
    if 2 * sum(char.isascii() for char in text) < len(text):
        return f"=?UTF-8?B?{base64.b64encode(text.encode()).decode()}?="
    safe = quote(text, safe=" !*+-/").replace("%", "=").replace("_", "=5F").replace(" ", "_")
    return f"=?UTF-8?Q?{safe}?="


def check_header(value: str, name: str) -> str:
    """Gives a text that an answer's header can hold. Raises: ServiceError InvalidArgument."""
    if _UNSHOWABLE.search(value) or any(ord(char) > 255 for char in value):
        sentence = "Header value cannot be represented using ISO-8859-1."
        raise ServiceError("InvalidArgument", sentence, 400, ArgumentName=name, ArgumentValue=value)
    return value


def is_header_text(text: str) -> bool:
    """Tells whether a header can hold the text as it is."""
    return text.isascii() and text.isprintable()


def copy_source(text: str) -> tuple[str, str, str | None]:
    """Reads `bucket/key?versionId=…`, percent-encoded, with or without a leading slash.

    Raises: ServiceError InvalidArgument.
    """
    path, _, version_id = text.partition("?versionId=")
    bucket, _, key = unquote(path).removeprefix("/").partition("/")
    if not bucket or not key:
        sentence = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        raise ServiceError("InvalidArgument", sentence, 400, ArgumentName="x-amz-copy-source", ArgumentValue=text)
    return bucket, key, version_id or None


def url_encode(text: str | None) -> str | None:
    """Encodes a key as a listing with EncodingType=url shows it."""
    return None if text is None else quote(text, safe="/-_.~*")


# --- ETags and conditions


def etag_of_parts(etags: Sequence[str]) -> str:
    """Gives a multipart object's ETag: the MD5 of the parts' MD5s, and their number."""
    digest = hashlib.md5(b"".join(bytes.fromhex(etag) for etag in etags), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(etags)}"


def bare(etag: str) -> str:
    """Takes an ETag's quotes away."""
    return etag.strip().removeprefix("W/").strip('"')


def matches(condition: str, etag: str) -> bool:
    """Tells whether one of the condition's ETags is that ETag, or the condition is `*`."""
    return any(bare(one) in ("*", etag) for one in condition.split(","))


@dataclass(frozen=True, slots=True)
class Conditions:
    """The four conditions of a read."""

    match: str | None = None
    none_match: str | None = None
    modified_since: float | None = None
    unmodified_since: float | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any], prefix: str = "If") -> Conditions:
        names = ("Match", "NoneMatch", "ModifiedSince", "UnmodifiedSince")
        return cls(*(params.get(f"{prefix}{name}") for name in names))

    def fault(self, etag: str, modified: float) -> tuple[int, str] | None:
        """Gives (412 or 304, the failing condition's header), or None when all hold.

        If-Match wins over If-Unmodified-Since, If-None-Match over If-Modified-Since.
        """
        moment = math.floor(modified)
        if self.match is not None:
            if not matches(self.match, etag):
                return 412, "If-Match"
        elif self.unmodified_since is not None and moment > self.unmodified_since:
            return 412, "If-Unmodified-Since"
        if self.none_match is not None:
            if matches(self.none_match, etag):
                return 304, "If-None-Match"
        elif self.modified_since is not None and moment <= self.modified_since:
            return 304, "If-Modified-Since"
        return None


def unmet(condition: str) -> ServiceError:
    """The answer to a condition that does not hold."""
    sentence = "At least one of the pre-conditions you specified did not hold"
    return ServiceError("PreconditionFailed", sentence, 412, Condition=condition)


# --- ranges


def find_range(text: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Reads a Range header into (start, length), None for the whole: where nothing is asked, or nothing S3 understands.

    Raises: ServiceError InvalidRange.
    """
    found = _RANGE.fullmatch(text.strip()) if text else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if first == "":
        start, end = max(0, size_bytes - int(last)), size_bytes - 1
    else:
        start, end = int(first), min(int(last or size_bytes), size_bytes - 1)
        if last and int(last) < start:
            return None
    if start > end:
        sentence = "The requested range is not satisfiable"
        raise ServiceError("InvalidRange", sentence, 416, RangeRequested=text, ActualObjectSize=size_bytes)
    return start, end - start + 1


def find_part(number: int, sizes: Sequence[int]) -> tuple[int, int]:
    """Gives (start, length) of a part by its number.

    Raises: ServiceError InvalidPartNumber.
    """
    if not 1 <= number <= len(sizes):
        sentence = "The requested partnumber is not satisfiable"
        raise ServiceError("InvalidPartNumber", sentence, 416, PartNumberRequested=number, ActualPartCount=len(sizes))
    return sum(sizes[: number - 1]), sizes[number - 1]


def cut(sizes: Sequence[int], start: int, length: int) -> list[tuple[int, int, int]]:
    """Cuts a range of pieces laid end to end: (index, start within, length within) of each piece touched."""
    touched = []
    for index, size_bytes in enumerate(sizes):
        if length <= 0:
            break
        if start < size_bytes:
            taken = min(size_bytes - start, length)
            touched.append((index, start, taken))
            length -= taken
            start = 0
        else:
            start -= size_bytes
    return touched


# --- tags


def tags_of(pairs: Sequence[Mapping[str, str]], limit: int) -> dict[str, str]:
    """Reads a TagSet.

    Raises: ServiceError InvalidTag, BadRequest.
    """
    tags = {pair["Key"]: pair["Value"] for pair in pairs}
    if len(tags) < len(pairs):
        raise ServiceError("InvalidTag", "Cannot provide multiple Tags with the same key")
    if len(tags) > limit:
        what = "Object" if limit == 10 else "Bucket"
        raise ServiceError("BadRequest", f"{what} tags cannot be greater than {limit}")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128:
            raise ServiceError("InvalidTag", "The TagKey you have provided is invalid", TagKey=key)
        if len(value) > 256:
            raise ServiceError("InvalidTag", "The TagValue you have provided is invalid", TagKey=key, TagValue=value)
        if key.startswith("aws:"):
            of_object, of_bucket = "Your TagKey cannot be prefixed with aws:", "System tags cannot be added/updated by requester"
            raise ServiceError("InvalidTag", of_object if limit == 10 else of_bucket, TagKey=key)
    return tags


def tags_of_query(text: str) -> dict[str, str]:
    """Reads the x-amz-tagging header (`a=b&c=d`)."""
    return tags_of([{"Key": key, "Value": value} for key, value in parse_qsl(text, keep_blank_values=True)], 10)
