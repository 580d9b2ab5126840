"""Services and operations, read from botocore's models when first asked for and kept.

What every request needs of an operation is computed once, here; the compiled codecs of a protocol and the compiled
checks hang on the operation too, so that there is no table beside it to keep in step.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Collection
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import msgspec
from botocore import xform_name
from botocore.exceptions import DataNotFoundError
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel

from penstock.wire import quirks

Compiler = TypeVar("Compiler")
PROTOCOLS = ("json", "rest-json", "rest-xml", "query", "smithy-rpc-v2-cbor")
"""What wire/ speaks, the one that botocore prefers first."""


class _Files:
    """Reads botocore's model files with msgspec (three times as fast), without their documentation."""

    def exists(self, path: str) -> bool:
        return os.path.isfile(path + ".json") or os.path.isfile(path + ".json.gz")

    def load_file(self, path: str) -> Any:
        if os.path.isfile(path + ".json"):
            with open(path + ".json", "rb") as file:
                return _undocumented(msgspec.json.decode(file.read()))
        if os.path.isfile(path + ".json.gz"):
            with gzip.open(path + ".json.gz", "rb") as file:
                return _undocumented(msgspec.json.decode(file.read()))
        return None


def _undocumented(model: Any) -> Any:
    if not isinstance(model, dict):
        return model
    for part in ("shapes", "operations"):
        for entry in model.get(part, {}).values():
            entry.pop("documentation", None)
            for member in entry.get("members", {}).values():
                member.pop("documentation", None)
    return model


@lru_cache(maxsize=1)
def _loader() -> Loader:
    # Only botocore's own data: what a user keeps in ~/.aws/models is the client's business.
    return Loader(
        extra_search_paths=[Loader.BUILTIN_DATA_PATH], file_loader=_Files(), include_default_search_paths=False
    )


@lru_cache(maxsize=256)
def metadata(name: str) -> dict[str, Any]:
    """Gives a service's metadata from the first bytes of its model, without reading the rest of it.

    Raises: KeyError where botocore has no such service.
    """
    folder = os.path.join(Loader.BUILTIN_DATA_PATH, name)
    versions = sorted(os.listdir(folder)) if os.path.isdir(folder) and name.replace("-", "").isalnum() else []
    for version in reversed(versions):
        path = os.path.join(folder, version, "service-2.json.gz")
        if os.path.isfile(path):
            with open(path, "rb") as file:
                head = zlib.decompressobj(31).decompress(file.read(16_384))
            found = re.search(rb'"metadata"\s*:\s*(\{.*?\n  \})', head, re.DOTALL)
            return dict(msgspec.json.decode(found.group(1))) if found else dict(service(name).model.metadata)
    return dict(service(name).model.metadata)


@lru_cache(maxsize=256)
def service(name: str) -> Service:
    """Gives a service by botocore's name for it. Raises: KeyError where botocore has no such service."""
    try:
        description = _loader().load_service_model(name, "service-2")
    except DataNotFoundError as error:
        raise KeyError(name) from error
    if name == "sqs":
        for shape, (code, status) in quirks.SQS_ERRORS.items():
            told = {"code": code, "httpStatusCode": status, "senderFault": True}
            description["shapes"].get(shape, {}).setdefault("error", told)
    return Service(name, ServiceModel(description, name))


def _sqs_of_old(description: Any) -> Any:
    """Gives SQS's model with the names of the query protocol, which it has forgotten."""
    model = msgspec.json.decode(msgspec.json.encode(description))
    model["metadata"]["xmlNamespace"] = quirks.SQS_NAMESPACE
    for name, shape in model["shapes"].items():
        if name in quirks.SQS_ITEMS:
            shape["member"]["locationName"] = quirks.SQS_ITEMS[name]
        if name in quirks.SQS_PAIRS:
            shape["key"]["locationName"], shape["value"]["locationName"] = quirks.SQS_PAIRS[name]
        for member in shape.get("members", {}).values():
            if member["shape"] in quirks.SQS_MAPS:
                member["locationName"] = quirks.SQS_MAPS[member["shape"]]
    return model


class Service:
    """A service as botocore models it: `operations` by name, and by what a request names it."""

    def __init__(self, name: str, model: ServiceModel):
        self.name = name
        self.model = model
        meta = model.metadata
        self.protocols: tuple[str, ...] = _spoken(meta)
        self.protocol: str = self.protocols[0]
        self.signing_name: str = model.signing_name
        self.endpoint_prefix: str = meta["endpointPrefix"]
        self.target_prefix: str = meta.get("targetPrefix", "")
        self.json_version: str = meta.get("jsonVersion", "1.1")
        self.api_version: str = meta.get("apiVersion", "")
        self.xml_namespace: str = meta.get("xmlNamespace", "")
        self.query_compatible: bool = "awsQueryCompatible" in meta
        self.operations: dict[str, Operation] = {each: Operation(self, each) for each in model.operation_names}
        self._compilers: dict[type, Any] = {}
        """Compilers of codecs and checks, with the shapes that they have compiled."""

    def __repr__(self) -> str:
        return f"Service({self.name!r})"

    def compiler(self, kind: type[Compiler]) -> Compiler:
        """The service's compiler of a kind, made when first asked for."""
        found: Compiler | None = self._compilers.get(kind)
        if found is None:
            found = self._compilers[kind] = kind()
        return found

    @cached_property
    def paginators(self) -> dict[str, dict[str, Any]]:
        """Paginator configurations by operation name."""
        try:
            return dict(_loader().load_service_model(self.name, "paginators-1").get("pagination", {}))
        except DataNotFoundError:  # botocore has no paginators for this service
            return {}

    @cached_property
    def query_face(self) -> Service:
        """The service with the names of its query protocol: itself, except for SQS, whose model has forgotten them."""
        if self.name != "sqs":
            return self
        old = _sqs_of_old(_loader().load_service_model("sqs", "service-2"))
        return Service(self.name, ServiceModel(old, self.name))

    @cached_property
    def errors(self) -> dict[str, Any]:
        """Error shapes by shape name and by the code that goes over the wire."""
        found: dict[str, Any] = {}
        for shape in self.model.error_shapes:
            found.setdefault(shape.error_code, shape)
            found[shape.name] = shape
        return found


def _spoken(meta: dict[str, Any]) -> tuple[str, ...]:
    given = meta.get("protocols") or [meta["protocol"]]
    spoken = [each for each in PROTOCOLS if each in given]
    if meta.get("awsQueryCompatible") is not None and "query" not in spoken:
        # It spoke query once, and clients from before the change (in old images) still do.
        spoken.append("query")
    return tuple(spoken) or (meta["protocol"],)


class Operation:
    """One operation of a service, with all that a request needs of it computed once."""

    def __init__(self, owner: Service, name: str):
        self.service = owner
        self.name = name
        self.python_name: str = xform_name(name)
        """As boto3 names the method: create_model."""
        self.codecs: dict[str, Any] = {}
        """The compiled codec of each protocol; filled by `protocols`."""

    def __repr__(self) -> str:
        return f"Operation({self.service.name!r}, {self.name!r})"

    @cached_property
    def model(self) -> OperationModel:
        return self.service.model.operation_model(self.name)

    @cached_property
    def input(self) -> Any:
        """The input's shape, or None."""
        return self.model.input_shape

    @cached_property
    def output(self) -> Any:
        """The output's shape, or None."""
        return self.model.output_shape

    @cached_property
    def method(self) -> str:
        return str(self.model.http.get("method", "POST"))

    @cached_property
    def status(self) -> int:
        return int(self.model.http.get("responseCode", 200))

    @cached_property
    def required(self) -> tuple[str, ...]:
        return tuple(self.input.required_members) if self.input is not None else ()

    @cached_property
    def streaming_input(self) -> str | None:
        """The member whose bytes are the whole request body, where it is a blob."""
        return _payload(self.input, "blob")

    @cached_property
    def streaming_output(self) -> str | None:
        """The member whose bytes are the whole reply body, where it is a blob."""
        return _payload(self.output, "blob")

    @cached_property
    def paginator(self) -> dict[str, Any] | None:
        """Its paginator configuration (input_token, output_token, limit_key, result_key, more_results), if it pages."""
        return self.service.paginators.get(self.name)

    @cached_property
    def idempotency_member(self) -> str | None:
        """The member that carries the client's idempotency token."""
        members = self.model.idempotent_members
        return members[0] if members else None

    @cached_property
    def errors(self) -> dict[str, Any]:
        """The errors modelled for this operation, by shape name."""
        return {shape.name: shape for shape in self.model.error_shapes}

    @cached_property
    def event_stream(self) -> str | None:
        """The output member that is a stream of events, if there is one."""
        return self.output.event_stream_name if self.output is not None else None

    @cached_property
    def event_input(self) -> str | None:
        """The input member that is a stream of events, if there is one: not served."""
        return self.input.event_stream_name if self.input is not None else None


def _payload(shape: Any, type_name: str) -> str | None:
    member = shape.serialization.get("payload") if shape is not None else None
    return member if member is not None and shape.members[member].type_name == type_name else None


def coverage(name: str, implemented: Collection[str]) -> tuple[list[str], list[str]]:
    """Gives the operations that are there and all that the model has, each sorted by name."""
    every = sorted(service(name).operations)
    return [each for each in every if each in implemented], every
