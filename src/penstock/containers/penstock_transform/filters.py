"""DataProcessing: InputFilter, JoinSource and OutputFilter, over CSV rows and JSON documents. Pure functions.

JSONPath as batch transform has it: $ . * ['a','b'] [0,-1] [1:4]; a slice's end is part of it.
Source: docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html.
"""

import csv
import io
import json
import re
from typing import Any, Callable, List, NamedTuple, Optional, Tuple, Union

NAME = re.compile(r"\.?([A-Za-z_][A-Za-z0-9_\-]*)")
QUOTED = re.compile(r"\s*(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")\s*(,?)")
INDEX = re.compile(r"\s*(-?\d*)\s*(:?)\s*(-?\d*)\s*")

Slice = Tuple[Optional[int], Optional[int]]
Index = Union[int, Slice]


class Unfit(Exception):
    """A path that is none, a record that it does not match, or answers that cannot be joined."""


class Part(NamedTuple):
    """One step of a path: names, indices, or (both empty) everything."""

    names: List[str]
    indices: List[Index]

    @property
    def several(self) -> bool:
        return len(self.names) != 1 and not (len(self.indices) == 1 and isinstance(self.indices[0], int))


def parse(path: str) -> List[Part]:
    """The parts of a path; none for `$`.

    Raises: Unfit.
    """
    text = path.strip()
    if not text.startswith("$"):
        raise Unfit(f"{path} is no JSONPath: it must begin with $")
    at, parts = 1, []
    while at < len(text):
        if text[at] == "." and at + 1 < len(text) and text[at + 1] in "[*":
            at += 1
        if text[at] == "[":
            end = _closing(text, at, path)
            parts.append(_bracket(text[at + 1 : end], path))
            at = end + 1
        elif text[at] == "*":
            parts.append(Part([], []))
            at += 1
        else:
            match = NAME.match(text, at)
            if text[at] != "." or not match:
                raise Unfit(f"{path} is no JSONPath that batch transform knows: see {text[at:]!r}")
            parts.append(Part([match.group(1)], []))
            at = match.end()
    return parts


def _closing(text: str, at: int, path: str) -> int:
    quote = ""
    for place in range(at + 1, len(text)):
        if quote:
            quote = "" if text[place] == quote else quote
        elif text[place] in "'\"":
            quote = text[place]
        elif text[place] == "]":
            return place
    raise Unfit(f"{path} is no JSONPath: a bracket is not closed")


def _bracket(inner: str, path: str) -> Part:
    text = inner.strip()
    if text == "*":
        return Part([], [])
    if text[:1] in ("'", '"'):
        names, at = [], 0
        while at < len(text):
            match = QUOTED.match(text, at)
            if not match:
                raise Unfit(f"{path} is no JSONPath: [{inner}]")
            names.append(match.group(1) if match.group(1) is not None else match.group(2))
            at = match.end()
        return Part(names, [])
    indices: List[Index] = []
    for word in text.split(","):
        match = INDEX.fullmatch(word)
        if not match or (not match.group(2) and not match.group(1)):
            raise Unfit(f"{path} is no JSONPath: [{inner}]")
        first, colon, last = match.groups()
        indices.append((_number(first), _number(last)) if colon else int(first))
    return Part([], indices)


def _number(text: str) -> Optional[int]:
    return int(text) if text not in ("", "-") else None


def select(record: Any, parts: List[Part], path: str) -> Any:
    """What a path selects of a record.

    Raises: Unfit where it selects nothing.
    """
    found, many = record, False
    for part in parts:
        try:
            found = [_step(each, part) for each in found] if many else _step(found, part)
        except (KeyError, IndexError, TypeError):
            raise Unfit(f"{path} matches nothing in {_shown(record)}") from None
        many = many or (part.several and not part.names)
    if found == [] and parts:
        raise Unfit(f"{path} matches nothing in {_shown(record)}")
    return found


def _step(value: Any, part: Part) -> Any:
    if part.names:
        if not isinstance(value, dict):
            raise TypeError
        return value[part.names[0]] if len(part.names) == 1 else {name: value[name] for name in part.names}
    if not part.indices:
        if not isinstance(value, (dict, list)):
            raise TypeError
        return list(value.values()) if isinstance(value, dict) else value
    if not isinstance(value, list):
        raise TypeError
    first = part.indices[0]
    if len(part.indices) == 1 and isinstance(first, int):
        return value[first]
    chosen: List[Any] = []
    for index in part.indices:
        chosen += [value[index]] if isinstance(index, int) else value[bounds(index, len(value))]
    return chosen


def bounds(index: Slice, length: int) -> slice:
    """A slice whose end is part of it."""
    first, last = index
    if last is None or last == -1:
        return slice(first, None)
    return slice(first, last + 1)


def _shown(record: Any) -> str:
    text = json.dumps(record)
    return text if len(text) <= 120 else text[:117] + "..."


# --- forms of records


def form_of(content_type: str, split: str) -> str:
    """How the records of a body are told apart: "rows" of CSV, "lines" of JSON, or one "document".

    Raises: Unfit for other content types.
    """
    kind = content_type.split(";")[0].strip().lower()
    if kind == "text/csv":
        return "rows"
    if kind in ("application/jsonlines", "application/x-jsonlines"):
        return "lines"
    if kind == "application/json":
        return "lines" if split == "Line" else "document"
    raise Unfit(
        f"DataProcessing needs the content type text/csv, application/json or application/jsonlines, not {content_type}"
    )


def read(body: bytes, form: str, whose: str) -> List[Any]:
    """The records of a body.

    Raises: Unfit where it is not of that form.
    """
    text = bytes(body).decode("utf-8")
    if form == "rows":
        if '"' not in text:
            return [line.split(",") for line in text.replace("\r", "").split("\n") if line]
        return [row for row in csv.reader(io.StringIO(text)) if row]
    try:
        if form == "document":
            return [json.loads(text)]
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise Unfit(f"{whose} is no JSON: {error}") from None


def write(records: List[Any], form: str) -> bytes:
    """Records as a body."""
    if form == "rows":
        rows = [row if isinstance(row, list) else [row] for row in records]
        text = "\n".join([",".join(row) for row in rows]) + "\n"
        if '"' in text or text.count("\n") != len(rows) or any("," in field for row in rows for field in row):
            buffer = io.StringIO()
            csv.writer(buffer, lineterminator="\n").writerows(rows)
            text = buffer.getvalue()
        return text.encode("utf-8")
    ending = "\n" if form == "lines" else ""
    return "".join(json.dumps(record) + ending for record in records).encode("utf-8")


class Processing(NamedTuple):
    """The DataProcessing of a job: what is sent of each record, and what is kept of it and its prediction."""

    taking: str
    joining: bool
    keeping: str
    form: str
    answers: str
    """The form of the answers."""

    def send(self, body: bytes) -> bytes:
        """What of a body the model sees."""
        if self.taking == "$":
            return body
        return write(self._each(read(body, self.form, "the input"), self.taking), self.form)

    def keep(self, body: bytes, answer: bytes) -> bytes:
        """What the file gets of a body and the model's answer to it."""
        if not self.joining and self.keeping == "$":
            return answer
        predictions = self._predictions(body, answer)
        if self.joining:
            given = read(body, self.form, "the input")
            if len(given) != len(predictions):
                raise Unfit(
                    f"the model answered {len(predictions)} records for {len(given)}: joining needs one for each"
                )
            predictions = list(map(self._joiner(), given, predictions))
        form = "lines" if self.form == "lines" else self.answers
        return write(self._each(predictions, self.keeping), form)

    def _predictions(self, body: bytes, answer: bytes) -> List[Any]:
        if self.form != "lines":
            return read(answer, self.answers, "the model's answer")
        given = len(read(body, self.form, "the input"))
        try:
            found = [json.loads(answer.decode("utf-8"))]
        except ValueError:
            return read(answer, "lines", "the model's answer")
        whole = found[0]
        if given == 1:
            return found
        if isinstance(whole, dict) and len(whole) == 1:
            whole = next(iter(whole.values()))
        return whole if isinstance(whole, list) else found

    def _joiner(self) -> Callable[[Any, Any], Any]:
        if self.form == "rows":
            return lambda given, found: given + found
        return _join_json

    def _each(self, found: List[Any], path: str) -> List[Any]:
        parts = parse(path)
        return [select(record, parts, path) for record in found] if parts else found


def _join_json(given: Any, found: Any) -> Any:
    if isinstance(given, dict):
        return {**given, "SageMakerOutput": found}
    return {"SageMakerInput": given, "SageMakerOutput": found}


def processing(config: Any, content_type: str, accept: str, split: str) -> Optional[Processing]:
    """The DataProcessing of a job, None where it changes nothing.

    Raises: Unfit.
    """
    taking, keeping = config.get("InputFilter") or "$", config.get("OutputFilter") or "$"
    joining = config.get("JoinSource") == "Input"
    if (taking, keeping, joining) == ("$", "$", False):
        return None
    parse(taking)
    parse(keeping)
    form = form_of(content_type, split)
    return Processing(taking, joining, keeping, form, form_of(accept, split) if accept else form)
