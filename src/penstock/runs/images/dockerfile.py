"""A Dockerfile, read: the usual instructions, and a refusal by line for all others. Pure functions.

Source: docs.docker.com/reference/dockerfile (instructions, forms, words and variables).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from penstock.runs.base import ImageError

READ = ("FROM", "RUN", "COPY", "ADD", "ENV", "WORKDIR", "ARG", "ENTRYPOINT", "CMD")
NOTES = {
    "LABEL": "labels are kept nowhere",
    "MAINTAINER": "it is kept nowhere",
    "EXPOSE": "every port is open to the server, and none to anybody else",
}
"""What says nothing of how an image runs, and what becomes of it: it passes with a warning."""
SHELL = ["/bin/sh", "-c"]
_SYSTEM_PACKAGES = re.compile(r"(^|[\s;&|(])(apt-get|apt|yum|dnf|apk|microdnf|aptitude|conda|mamba)\s+(-\S+\s+)*"
                              r"(update|upgrade|install|add)\b")  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FLAG = re.compile(r"--([a-z]+)(?:=(\S+))?\s+")
_DIRECTIVE = re.compile(r"#\s*([a-z]+)\s*=\s*(\S+)\s*$")


class Refusal(ImageError):
    """A line that is not taken: its number, its text, and why."""

    def __init__(self, line: int, text: str, why: str):
        super().__init__(f"line {line}: {text}\n  {why}")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction as it stands there, its lines joined."""

    line: int
    name: str
    rest: str

    @property
    def text(self) -> str:
        return f"{self.name} {self.rest}".strip()

    def refuse(self, why: str) -> Refusal:
        return Refusal(self.line, self.text, why)

    def flags(self) -> tuple[dict[str, str], str]:
        """The flags at the head (`--chmod=755`), and what follows them."""
        found, rest = {}, self.rest
        while match := _FLAG.match(rest):
            found[match[1]] = match[2] or ""
            rest = rest[match.end() :].lstrip()
        return found, rest

    def command(self, rest: str | None = None) -> list[str]:
        """The words of a command: its JSON list, or the shell and its text."""
        text = self.rest if rest is None else rest
        return _json_words(text) or [*SHELL, text]


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, from FROM (or the ARGs before it) on.

    Raises: Refusal for an instruction that is not read, and for a second stage.
    """
    found = list(_instructions(text))
    stages = [one for one in found if one.name == "FROM"]
    for one in found:
        if one.name not in READ and one.name not in NOTES and one.name != "USER":
            raise one.refuse(f"Of a Dockerfile, {', '.join(READ[:-1])} and {READ[-1]} are read.")
        _check(one)
    if not stages:
        raise ImageError("the Dockerfile has no FROM")
    if len(stages) > 1:
        raise stages[1].refuse("One stage is read; a second FROM is not.")
    early = next((one for one in found if one.name not in ("ARG", "FROM")), None)
    if early is not None and early.line < stages[0].line:
        raise early.refuse("Only ARG may stand before FROM.")
    return [one for one in found if one.name in READ]


def warnings(text: str) -> list[str]:
    """What a person is told of the lines that have no say here. `USER root` is none of them: programs are root."""
    found = (one for one in _instructions(text) if one.name in NOTES)
    return [f"warning: line {one.line}: {one.text}: {NOTES[one.name]}" for one in found]


def _check(one: Instruction) -> None:
    """Refuses what could not do here what it does at Docker's."""
    flags, rest = one.flags() if one.name in ("FROM", "RUN", "COPY", "ADD") else ({}, one.rest)
    if not rest:
        raise one.refuse(f"{one.name} needs an argument.")
    if one.name == "USER" and one.rest.partition(":")[0] not in ("root", "0"):
        raise one.refuse("Programs are root in their sandbox (and nobody outside it); there are no other users.")
    if one.name in ("RUN", "COPY", "ADD") and "<<" in rest and re.search(r"<<-?['\"]?[A-Za-z_]+['\"]?\s*$", rest):
        raise one.refuse("Text of more lines (<<) is not read; put it into a file and COPY it.")
    if one.name == "RUN":
        if [name for name in flags if name != "mount"] or not flags.get("mount", "type=cache").startswith("type=cache"):
            raise one.refuse("Of RUN's flags, --mount=type=cache is read (and means nothing here).")
        if _SYSTEM_PACKAGES.search(rest):
            raise one.refuse("An image is a Python environment and files; the system's packages are the machine's own.")
    if one.name in ("COPY", "ADD"):
        if unknown := set(flags) - {"chown", "chmod", "link"}:
            raise one.refuse(f"The flag --{min(unknown)} is not read.")
        if flags.get("chown", "root").partition(":")[0] not in ("root", "0"):
            raise one.refuse("There are no other users than root in an image.")
        if "chmod" in flags and not re.fullmatch(r"[0-7]{3,4}", flags["chmod"]):
            raise one.refuse("--chmod takes an octal mode.")
    if one.name == "FROM" and set(flags) - {"platform"}:
        raise one.refuse("Of FROM's flags, --platform is read.")


def _instructions(text: str) -> Iterator[Instruction]:
    begun, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not begun and (match := _DIRECTIVE.match(stripped)) and match[1] == "escape" and match[2] != "\\":
            raise Refusal(number, stripped, "The escape character is the backslash.")
        if not stripped or stripped.startswith("#"):
            continue
        start = start or number
        if stripped.endswith("\\"):
            begun += stripped[:-1] + " "
            continue
        yield _instruction(start, begun + stripped)
        begun, start = "", 0
    if begun:
        yield _instruction(start, begun)


def _instruction(line: int, text: str) -> Instruction:
    name, _, rest = text.strip().partition(" ")
    return Instruction(line, name.upper(), rest.strip())


# --- words and variables


def expand(one: Instruction, text: str, variables: Mapping[str, str], split: bool = True) -> list[str]:
    """The words of a text with quotes taken off and variables put in; `split`: at blanks, else one word.

    Raises: Refusal for a quote or a brace that is not closed.
    """
    words: list[str] = []
    word, quote, at, begun = "", "", 0, False
    while at < len(text):
        letter = text[at]
        if letter == "\\" and quote != "'" and at + 1 < len(text):
            following = text[at + 1]
            word += following if not quote or following in '"\\$' else letter + following
            at, begun = at + 2, True
            continue
        if letter in "'\"" and quote in ("", letter):
            quote, begun = ("" if quote else letter), True
        elif letter == "$" and quote != "'":
            value, at = _variable(one, text, at, variables)
            word, begun = word + value, True
            continue
        elif letter.isspace() and not quote and split:
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word, begun = word + letter, True
        at += 1
    if quote:
        raise one.refuse("A quote is not closed.")
    return [*words, word] if begun else words


def _variable(one: Instruction, text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    """The value of the variable at a `$`, and where the text goes on."""
    if text[at + 1 : at + 2] == "{":
        end = text.find("}", at)
        inner = text[at + 2 : end]
        match = _NAME.match(inner)
        if end < 0 or not match:
            raise one.refuse("A ${ is not closed, or names nothing.")
        name, rest = match[0], inner[match.end() :]
        value = variables.get(name, "")
        if rest.startswith(":-"):
            value = value or "".join(expand(one, rest[2:], variables, split=False))
        elif rest.startswith(":+"):
            value = "".join(expand(one, rest[2:], variables, split=False)) if value else ""
        elif rest:
            raise one.refuse(f"Of ${{{name}…}}, the forms :- and :+ are read.")
        return value, end + 1
    match = _NAME.match(text, at + 1)
    return (variables.get(match[0], ""), match.end()) if match else ("$", at + 1)


def pairs(one: Instruction, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that an ENV sets.

    Raises: Refusal.
    """
    name, blank, value = one.rest.partition(" ")
    if "=" not in name:
        if not blank:
            raise one.refuse("ENV needs a name and a value.")
        return {name: "".join(expand(one, value.strip(), variables, split=False))}
    found = {}
    for word in expand(one, one.rest, variables):
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise one.refuse(f"{word!r} is no NAME=value.")
        found[name] = value
    return found


def arguments(one: Instruction, variables: Mapping[str, str]) -> dict[str, str | None]:
    """The names that an ARG declares, with their defaults."""
    found: dict[str, str | None] = {}
    for word in expand(one, one.rest, variables):
        name, sign, value = word.partition("=")
        if not _NAME.fullmatch(name):
            raise one.refuse(f"{name!r} is no name.")
        found[name] = value if sign else None
    return found


def paths(one: Instruction, variables: Mapping[str, str]) -> tuple[dict[str, str], list[str], str]:
    """What COPY and ADD name: flags, sources, and where they go.

    Raises: Refusal where there are less than two paths, and for an address.
    """
    flags, rest = one.flags()
    given = _json_words(rest)
    words = [w for word in given for w in expand(one, word, variables, split=False)] if given else None
    words = expand(one, rest, variables) if words is None else words
    if len(words) < 2:
        raise one.refuse(f"{one.name} needs a source and a destination.")
    for source in words[:-1]:
        if re.match(r"[a-z+]+://|git@", source):
            raise one.refuse("Only what lies in the folder is put into an image; fetch addresses by RUN.")
    if len(words) > 2 and not words[-1].endswith("/"):
        raise one.refuse("With more than one source the destination is a folder, and ends with /.")
    return flags, words[:-1], words[-1]


def _json_words(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        return None
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        return words
    return None
