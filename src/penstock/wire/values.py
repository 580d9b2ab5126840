"""Scalars on the wire: moments, numbers and blobs, between their texts and Python's values.

Inside, a moment is float seconds since 1970 UTC; the three texts that AWS uses for it are made and read here only.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import time
from calendar import timegm
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?\s*([Zz]|[+-]\d\d:?\d\d)?)?\s*\Z")


class Malformed(ValueError):
    """A value on the wire is not of the type that the model says; the message is AWS's sentence for it."""


def iso8601(moment: float) -> str:
    """Gives "2026-01-31T12:00:00Z", with microseconds only where there are some."""
    whole, micros = _split(moment)
    text = _second(whole)
    if not micros:
        return text + "Z"
    return f"{text}.{micros // 1000:03d}Z" if micros % 1000 == 0 else f"{text}.{micros:06d}Z"


@lru_cache(maxsize=4096)
def _second(whole: int) -> str:
    """What is listed together was often made together."""
    t = time.gmtime(whole)
    return f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}"


def rfc822(moment: float) -> str:
    """Gives "Sat, 31 Jan 2026 12:00:00 GMT", the form of HTTP headers."""
    t = time.gmtime(math.floor(moment))
    return f"{_DAYS[t[6]]}, {t[2]:02d} {_MONTHS[t[1]]} {t[0]:04d} {t[3]:02d}:{t[4]:02d}:{t[5]:02d} GMT"


def epoch(moment: float) -> float | int:
    """Gives the number itself, whole where it is whole."""
    return int(moment) if moment == int(moment) else moment


def epoch_text(moment: float) -> str:
    return str(epoch(moment))


def _split(moment: float) -> tuple[int, int]:
    micros = round(moment * 1_000_000)
    return micros // 1_000_000, micros % 1_000_000


def read_moment(value: Any) -> float:
    """Reads any of the three forms, whichever one the model names: clients are not strict, and neither is AWS.

    Raises: Malformed.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        moment = float(min(max(value, -(10**15)), 10**15))  # whatever is beyond is out of range below
    elif isinstance(value, str):
        moment = _read_text(value.strip())
    else:
        raise Malformed("Unexpected value type in payload")
    if not -62_135_596_800 <= moment <= 253_402_300_800:
        raise Malformed(f"Timestamp is out of range: {value}")
    return moment


def _read_text(text: str) -> float:
    found = _ISO.match(text)
    try:
        if found:
            return _read_iso(found)
        return float(text) if text[-1:].isdigit() else parsedate_to_datetime(text).astimezone(UTC).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError) as error:
        raise Malformed(f"Invalid timestamp: {text}") from error


def _read_iso(found: re.Match[str]) -> float:
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), min(int(second or 0), 59))
    moment = float(timegm((int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))))
    if fraction:
        moment += float("0." + fraction)
    if zone and zone not in "Zz":
        sign = -1 if zone[0] == "+" else 1
        moment += sign * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
    return moment


def read_float(text: str) -> float:
    """Reads a number's text, with AWS's three words for what is none. Raises: Malformed."""
    try:
        return float(text)
    except ValueError as error:
        raise Malformed(f"Invalid number: {text}") from error


def read_integer(text: str) -> int:
    """Reads a whole number's text, of 64 bits at most. Raises: Malformed."""
    try:
        number = int(text)
    except ValueError as error:
        raise Malformed(f"Invalid integer: {text}") from error
    if not -(2**63) <= number < 2**63:
        raise Malformed(f"Invalid integer: {text}")
    return number


def read_boolean(text: str) -> bool:
    """Reads "true" or "false" in any case. Raises: Malformed."""
    lower = text.strip().lower()
    if lower in ("true", "1"):
        return True
    if lower in ("false", "0", ""):
        return False
    raise Malformed(f"Invalid boolean: {text}")


def float_text(number: float) -> str:
    """Gives the number as text; "Infinity", "-Infinity", "NaN" for what is none."""
    word = special(number)
    return word if word else repr(float(number)) if isinstance(number, float) else str(number)


def special(number: float) -> str:
    """Gives AWS's word for a float that is no number, empty for one that is."""
    if math.isfinite(number):
        return ""
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def read_base64(text: Any) -> bytes:
    """Reads a blob. Raises: Malformed."""
    if not isinstance(text, str):
        raise Malformed("Unexpected value type in payload")
    try:
        return base64.b64decode(text, validate=False)
    except (binascii.Error, ValueError) as error:
        raise Malformed("Invalid base64 value") from error


def base64_text(blob: bytes | str) -> str:
    """Gives a blob as base64; a str stands for its UTF-8 bytes."""
    return base64.b64encode(blob.encode() if isinstance(blob, str) else blob).decode()


def moment_text(style: str) -> Any:
    """Gives the function that makes text of a moment in a `timestampFormat`: iso8601, rfc822 or unixTimestamp."""
    return {"iso8601": iso8601, "rfc822": rfc822}.get(style.lower(), epoch_text)
