"""multipart/form-data as browsers post it to S3: fields first, then one file, whose bytes are handed on as they come."""

from __future__ import annotations

import re

from penstock.wire.values import Malformed

FIELDS_BYTES = 20 * 1024
"""What may come before the file."""
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,200})"|([^\s;,]{1,200}))', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name=(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))', re.IGNORECASE)
_FILENAME = re.compile(rb'[;\s]filename=(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))', re.IGNORECASE)


class TooLong(Malformed):
    """The fields before the file are larger than S3 takes."""


class FormReader:
    """Decodes one form in constant memory; `fields` are known (names in lower case) when `feed` first gives bytes.

    `began` tells that the file was reached, `done` that it came to its end. What comes after the file is ignored.
    """

    def __init__(self, content_type: str):
        found = _BOUNDARY.search(content_type)
        if found is None:
            raise Malformed("The form has no boundary")
        self._mark = b"\r\n--" + (found[1] or found[2]).encode("latin-1")
        self._buffer = b"\r\n"
        self._name: str | None = None
        self._seen_bytes = 0
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.file_type = ""
        self.began = self.done = False

    def feed(self, data: bytes) -> bytes:
        """Takes bytes of the form, gives those of the file among them. Raises: Malformed, TooLong."""
        if self.done:
            return b""
        self._buffer += data
        if not self.began:
            self._seen_bytes += len(data)
            while self._step():
                pass
            before = self._seen_bytes - (len(self._buffer) if self.began else 0)
            if before > FIELDS_BYTES:
                raise TooLong("The fields before the file are too large")
        return self._file_bytes() if self.began else b""

    def _step(self) -> bool:
        """Takes the next delimiter with its part's head, or a field's value; tells whether there was one."""
        if self.began or self.done:
            return False
        if self._name is not None:
            end = self._buffer.find(self._mark)
            if end < 0:
                return False
            self.fields.setdefault(self._name, self._text(self._buffer[:end]))
            self._buffer, self._name = self._buffer[end:], None
        return self._head()

    def _head(self) -> bool:
        start = self._buffer.find(self._mark)
        end = self._buffer.find(b"\r\n\r\n", start + len(self._mark)) if start >= 0 else -1
        if start >= 0 and self._buffer[start + len(self._mark) :].startswith(b"--"):
            self.done = True
            return False
        if end < 0:
            return False
        head = self._buffer[start + len(self._mark) : end]
        self._buffer = self._buffer[end + 4 :]
        self._begin_part(head)
        return True

    def _begin_part(self, head: bytes) -> None:
        lines = {}
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            lines[name.strip().lower()] = b" " + value.strip()
        given = lines.get(b"content-disposition", b"")
        found = _NAME.search(given)
        if found is None:
            raise Malformed("A part of the form has no name")
        field = self._text(found[1] or found[2] or b"").lower()
        if field != "file":
            self._name = field
            return
        self.began = True
        if named := _FILENAME.search(given):
            whole = self._text((named[1] or named[2] or b"").replace(b'\\"', b'"'))
            self.filename = re.split(r"[\\/]", whole)[-1]  # old browsers send the whole path
        self.file_type = self._text(lines.get(b"content-type", b"")).strip()

    def _file_bytes(self) -> bytes:
        end = self._buffer.find(self._mark)
        if end >= 0:
            given, self._buffer, self.done = self._buffer[:end], b"", True
            return given
        keep = len(self._mark) - 1
        given, self._buffer = self._buffer[:-keep], self._buffer[-keep:]
        return given

    @staticmethod
    def _text(data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data.decode("latin-1")
