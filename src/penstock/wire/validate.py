"""Parameters against the model: what is required, lengths, ranges, patterns and enumerations, in AWS's own sentences.

Shapes are compiled once: what has no constraint costs nothing, what has one costs a call.
Differs: where several constraints are hurt, AWS names them in an order of its own; here it is the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock.wire.models import Operation, Service
from penstock.wire.patterns import compiled

Complain = Callable[[Any, str, list[str]], None]
"""Takes a value, its path and the list that sentences are added to."""
Sentences = Callable[[Any], "list[str]"]

_CODES = {
    "cloudwatch": "ValidationError",
    "codebuild": "InvalidInputException",
    "ecr": "InvalidParameterException",
    "logs": "InvalidParameterException",
    "resourcegroupstaggingapi": "InvalidParameterException",
    "sagemaker-runtime": "ValidationError",
}
"""The error code, where it is neither ValidationException nor, for the query services, ValidationError."""
_NOT_NULL = frozenset(("ArchitecturesList", "CompatibleArchitectures", "LayerList"))
"""Lists of Lambda's whose sentences name one constraint more than the model has."""
_UNTOLD = frozenset(("LogGroupIdentifier", "LogGroupIdentifiers"))
_MATCHED_CHARS = 100_000
"""Longer texts are held against their length only: no pattern of a model is worth a stuck server."""
_SHOWN_CHARS = 4096
_MALFORMED_XML = "The XML you provided was not well-formed or did not validate against our published schema"


class Invalid(Exception):
    """Parameters that the model refuses."""

    def __init__(self, code: str, message: str, status: int = 400):
        self.code, self.message, self.status = code, message, status
        super().__init__(f"{code}: {message}")


def check(operation: Operation, params: Mapping[str, Any]) -> None:
    """Raises Invalid where the parameters are not as the operation's model asks."""
    complain = operation.codecs.get("check")
    if complain is None:
        complain = operation.codecs["check"] = _compile(operation)
    sentences: list[str] = []
    complain(params, "", sentences)
    if sentences:
        raise _refusal(operation, sentences)


def _compile(operation: Operation) -> Complain:
    if operation.input is None:
        return lambda params, path, sentences: None
    if operation.service.endpoint_prefix == "s3":
        return _s3(operation)
    return checks(operation.service).compile(operation.input) or (lambda params, path, sentences: None)


def _refusal(operation: Operation, sentences: list[str]) -> Invalid:
    service = operation.service
    default = "ValidationError" if service.protocol == "query" else "ValidationException"
    code = _CODES.get(service.name, default)
    if service.name == "ecr":
        where, _, constraint = sentences[0].partition(" failed to satisfy constraint: ")
        constraint = constraint.removeprefix("Member ").replace(" pattern: ", " ")
        member = where.rpartition(" at ")[2]
        return Invalid(code, f"Invalid parameter at {member} failed to satisfy constraint: '{constraint}'")
    if service.name == "sqs":
        return _sqs(sentences[0])
    if service.name == "lambda" and " at 'runtime' " in sentences[0]:
        where, _, constraint = sentences[0].replace("'", "", 2).partition(" at 'runtime' ")
        return Invalid("InvalidParameterValueException", f"{where} at 'runtime' {constraint} or be a valid ARN")
    plural = "" if len(sentences) == 1 else "s"
    return Invalid(code, f"{len(sentences)} validation error{plural} detected: {'; '.join(sentences)}")


def _sqs(sentence: str) -> Invalid:
    """SQS says in words of its own what is missing; its model has no other constraints."""
    member = sentence.partition(" failed to satisfy constraint: ")[0].rpartition(" at ")[2].strip("'").rpartition(".")[2]
    return Invalid("MissingParameter", f"The request must contain the parameter {member[:1].upper()}{member[1:]}.")


def _s3(operation: Operation) -> Complain:
    """S3 has no constraints in its model; what is missing, it says in other words."""
    members = operation.input.members
    payload = operation.input.serialization.get("payload")
    inner = _xml_body(members[payload]) if payload and members[payload].type_name == "structure" else None

    def complain(params: Any, path: str, sentences: list[str]) -> None:
        for name in operation.required:
            if params.get(name) is not None:
                continue
            where = members[name].serialization.get("location")
            if where is None:
                raise Invalid("MalformedXML", _MALFORMED_XML)
            wire = members[name].serialization.get("name", name)
            if where == "querystring":
                raise Invalid("InvalidArgument", f"Query parameter {wire} is required for this request")
            raise Invalid("InvalidRequest", f"Missing required header for this request: {wire}")
        if inner is not None and params.get(payload) is not None:
            inner(params[payload], path, sentences)

    return complain


def _xml_body(shape: Any) -> Complain | None:
    """Checks what XML holds as S3's schema does: what is required is there, what is one of a few words is one of them."""
    known: dict[str, Complain | None] = {}

    def compile_shape(shape: Any) -> Complain | None:
        kind = shape.type_name
        if kind == "list":
            return each_of(compile_shape(shape.member))
        if kind == "string" and shape.enum and shape.name not in _OPEN_WORDS:
            words = frozenset(shape.enum)
            return lambda value, path, sentences: _must(value in words)
        if kind != "structure":
            return None
        if shape.name not in known:
            known[shape.name] = None  # a shape within itself is checked once
            known[shape.name] = structure(shape)
        return known[shape.name]

    def each_of(check_item: Complain | None) -> Complain | None:
        if check_item is None:
            return None

        def check_list(value: Any, path: str, sentences: list[str]) -> None:
            for item in value:
                check_item(item, path, sentences)

        return check_list

    def structure(shape: Any) -> Complain | None:
        required = tuple(shape.required_members)
        members = {name: made for name, member in shape.members.items() if (made := compile_shape(member)) is not None}
        if not required and not members:
            return None

        def check_structure(value: Any, path: str, sentences: list[str]) -> None:
            for name in required:
                _must(value.get(name) is not None)
            for name, check_member in members.items():
                if value.get(name) is not None:
                    check_member(value[name], path, sentences)

        return check_structure

    return compile_shape(shape)


_OPEN_WORDS = frozenset(("Event", "BucketLocationConstraint", "FilterRuleName", "Permission"))
"""Words of which S3 knows more than the model, or says more than that they are unknown."""
_SQS_WORDS = frozenset(("QueueAttributeName", "MessageSystemAttributeName", "MessageSystemAttributeNameForSends"))
"""Names of attributes: the model has a queue's where a message's may stand, too; SQS says itself which it does not know."""


def _must(holds: bool) -> None:
    if not holds:
        raise Invalid("MalformedXML", _MALFORMED_XML)


def lower_first(name: str) -> str:
    """Gives a member's name as AWS's sentences have it: ModelName is 'modelName'."""
    return name[:1].lower() + name[1:]


class Checks:
    """Compiles the shapes of one service; None stands for a shape that refuses nothing."""

    def __init__(self) -> None:
        self._kept: dict[str, Complain | None] = {}
        self._bare: dict[str, bool] = {}

    def compile(self, shape: Any) -> Complain | None:
        kind = shape.type_name
        if kind == "structure":
            return self._structure(shape)
        if kind in ("list", "map"):
            return self._list(shape) if kind == "list" else self._map(shape)
        return _scalar(shape)

    def _structure(self, shape: Any) -> Complain | None:
        if getattr(shape, "is_document_type", False) or self._is_bare(shape, set()):
            return None
        if shape.name in self._kept:
            return self._kept[shape.name]
        required = [(name, lower_first(name)) for name in shape.required_members]
        table: dict[str, tuple[str, Complain]] = {}

        def complain(value: Any, path: str, sentences: list[str]) -> None:
            if not isinstance(value, Mapping):
                return
            start = path + "." if path else ""
            for name, lower in required:
                if value.get(name) is None:
                    sentences.append(
                        f"Value null at '{start}{lower}' failed to satisfy constraint: Member must not be null"
                    )
            for name, each in value.items():
                entry = table.get(name)
                if entry is not None and each is not None:
                    entry[1](each, start + entry[0], sentences)

        self._kept[shape.name] = complain
        for name, member in shape.members.items():
            below = self.compile(member)
            if below is not None:
                table[name] = (lower_first(name), below)
        return complain

    def _is_bare(self, shape: Any, seen: set[str]) -> bool:
        """Whether nothing within a shape has a constraint."""
        if shape.name in self._bare:
            return self._bare[shape.name]
        if shape.name in seen:
            return True
        seen.add(shape.name)
        kind = shape.type_name
        if kind == "structure":
            bare = not shape.required_members and all(self._is_bare(each, seen) for each in shape.members.values())
        elif kind in ("list", "map"):
            parts = [shape.member] if kind == "list" else [shape.key, shape.value]
            bare = not _constraints(shape) and all(self._is_bare(each, seen) for each in parts)
        else:
            bare = not _constraints(shape)
        if not bare:
            self._bare[shape.name] = False
        return bare

    def _list(self, shape: Any) -> Complain | None:
        length = _lengths(shape)
        member = shape.member
        scalar = _sentences(member) if member.type_name not in ("structure", "list", "map") else None
        held = [*_constraints(member), *(["Member must not be null"] if shape.name in _NOT_NULL else [])]
        every = f"Member must satisfy constraint: [{', '.join(held)}]"
        below = self.compile(member) if scalar is None else None
        if length is None and scalar is None and below is None:
            return None
        sensitive = _untold(shape, member)

        def complain(value: Any, path: str, sentences: list[str]) -> None:
            if not isinstance(value, (list, tuple)):
                return
            hurt = length(value) if length is not None else []
            if scalar is not None and any(scalar(each) for each in value if each is not None):
                hurt.append(every)
            _say(hurt, value, path, sentences, sensitive)
            if below is not None:
                for number, each in enumerate(value, 1):
                    below(each, f"{path}.{number}.member", sentences)

        return complain

    def _map(self, shape: Any) -> Complain | None:
        length, keys = _lengths(shape), _sentences(shape.key)
        held = shape.value
        scalar = _sentences(held) if held.type_name not in ("structure", "list", "map") else None
        below = self.compile(held) if scalar is None else None
        if length is None and keys is None and scalar is None and below is None:
            return None
        every_key = f"Map keys must satisfy constraint: [{', '.join(_constraints(shape.key))}]"
        every_value = f"Map value must satisfy constraint: [{', '.join(_constraints(held))}]"
        sensitive = _untold(shape, held)

        def complain(value: Any, path: str, sentences: list[str]) -> None:
            if not isinstance(value, Mapping):
                return
            hurt = length(value) if length is not None else []
            if scalar is not None and any(scalar(each) for each in value.values() if each is not None):
                hurt.append(every_value)
            if keys is not None and any(keys(each) for each in value):
                hurt.append(every_key)
            _say(hurt, value, path, sentences, sensitive)
            if below is not None:
                for key, each in value.items():
                    below(each, f"{path}.{key}.member", sentences)

        return complain


def _scalar(shape: Any) -> Complain | None:
    find = _sentences(shape)
    if find is None:
        return None
    sensitive = _untold(shape)

    def complain(value: Any, path: str, sentences: list[str]) -> None:
        hurt = find(value)
        if hurt:
            _say(hurt, value, path, sentences, sensitive)

    return complain


def _untold(*shapes: Any) -> bool:
    """Whether no sentence shows a value: the model says so, or AWS was seen to leave it out."""
    return any(shape.metadata.get("sensitive") or shape.name in _UNTOLD for shape in shapes)


def _say(hurt: list[str], value: Any, path: str, sentences: list[str], sensitive: bool) -> None:
    for constraint in hurt:
        shown = "" if sensitive else f" '{shown_as(value)[:_SHOWN_CHARS]}'"
        sentences.append(f"Value{shown} at '{path}' failed to satisfy constraint: {constraint}")


def shown_as(value: Any) -> str:
    """Gives a value as AWS's sentences show it: a list as [a, b], a map as {k=v}."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={shown_as(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(shown_as(each) for each in value) + "]"
    return str(value)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _constraints(shape: Any) -> list[str]:
    """Gives every constraint of a shape as a sentence, in the order that AWS lists them."""
    found = []
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    noun = "value" if shape.type_name in ("integer", "long", "float", "double") else "length"
    if most is not None:
        found.append(f"Member must have {noun} less than or equal to {_number(most)}")
    if least is not None:
        found.append(f"Member must have {noun} greater than or equal to {_number(least)}")
    if shape.metadata.get("pattern"):
        found.append(f"Member must satisfy regular expression pattern: {shape.metadata['pattern']}")
    if getattr(shape, "enum", None):
        found.append(f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    return found


def _lengths(shape: Any) -> Sentences | None:
    least, most = shape.metadata.get("min") or 0, shape.metadata.get("max")
    if not least and most is None:
        return None

    def find(value: Any) -> list[str]:
        if most is not None and len(value) > most:
            return [f"Member must have length less than or equal to {most}"]
        if len(value) < least:
            return [f"Member must have length greater than or equal to {least}"]
        return []

    return find


def _sentences(shape: Any) -> Sentences | None:
    """Compiles a scalar's constraints into a function that gives those a value hurts; None where there are none."""
    if shape.type_name in ("string", "character"):
        return _texts(shape)
    if shape.type_name in ("integer", "long", "float", "double"):
        return _numbers(shape)
    length = _lengths(shape) if shape.type_name == "blob" else None
    if length is None:
        return None
    return lambda value: length(value) if isinstance(value, (bytes, bytearray)) else []


def _texts(shape: Any) -> Sentences | None:
    length, pattern = _lengths(shape), shape.metadata.get("pattern")
    if getattr(shape, "enum", None) and shape.name not in _SQS_WORDS:
        allowed = frozenset(shape.enum)
        sentence = f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
        return lambda value: [] if value in allowed or not isinstance(value, str) else [sentence]
    if pattern in (".*", "[\\s\\S]*", "[\\S\\s]*", "(?s).*"):
        pattern = None
    if length is None and not pattern:
        return None
    expression = compiled(pattern) if pattern else None
    match = expression.fullmatch if expression is not None else None

    def find(value: Any) -> list[str]:
        if not isinstance(value, str):
            return []
        hurt = length(value) if length is not None else []
        if match is not None and (not hurt or len(value) < _MATCHED_CHARS) and match(value) is None:
            hurt.append(f"Member must satisfy regular expression pattern: {pattern}")
        return hurt

    return find


def _numbers(shape: Any) -> Sentences | None:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is None and most is None:
        return None

    def find(value: Any) -> list[str]:
        if not isinstance(value, (int, float)):
            return []
        if most is not None and value > most:
            return [f"Member must have value less than or equal to {_number(most)}"]
        if least is not None and value < least:
            return [f"Member must have value greater than or equal to {_number(least)}"]
        return []

    return find


def checks(service: Service) -> Checks:
    """Gives the service's compiled checks, made when first asked for."""
    return service.compiler(Checks)
