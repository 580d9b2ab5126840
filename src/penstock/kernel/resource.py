"""A resource: the declaration of a noun, from which creating, finding, listing and moving it follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.kernel import pages, tags
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.store.records import GLOBAL, Document, Query, Ref, TagsGone, TagsPut

Sentence = tuple[str, str] | tuple[str, str, int]
"""An error's code, its sentence, and its status where that is not 400."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A noun of a service.

    Takes:
        kind: "sagemaker.model".
        key: the member that names it ("ModelName").
        path: the end of its ARN, with {name} ("model/{name}").
        arn: the member that holds its ARN ("ModelArn").
        status: the member that holds its status, "" for none.
        moves: the legal moves between statuses.
        missing, exists: (code, sentence[, status]) of the errors; {name} and {arn} are filled in.
        elsewhere: that of an ARN of another region; {region} is the call's.
    """

    kind: str
    key: str
    path: str
    arn: str
    status: str = ""
    moves: Mapping[str, frozenset[str] | set[str]] = field(default_factory=dict)
    missing: Sentence = ("ValidationException", 'Could not find "{arn}".')
    exists: Sentence = ("ValidationException", 'Cannot create already existing "{arn}".')
    elsewhere: Sentence = ("ValidationException", "ARN should be scoped to correct region: {region}")
    created: str = "CreationTime"
    updated: str = "LastModifiedTime"
    regional: bool = True
    service: str = ""
    """The ARN's service, when it is not the kind's first word."""
    paging: pages.Paging = pages.TOKENS
    without: frozenset[str] = frozenset({"Tags", "ClientRequestToken", "ClientToken"})
    """Create's members that Describe does not show."""
    tags_code: str = "ValidationException"
    """The error of tags that cannot be."""
    tags_folded: bool = False
    """Whether keys of tags that differ in case only are the same."""
    folded: bool = False
    """Whether names that differ in case only are the same: a document has its own in small letters, its body as it was given."""

    # --- identity
    def ref(self, call: Call, name: str) -> Ref:
        return Ref(self.kind, call.account, call.region if self.regional else GLOBAL, self.fold(name))

    def fold(self, name: str) -> str:
        """A name as documents have it."""
        return name.lower() if self.folded else name

    def arn_of(self, call: Call, name: str, **fills: str) -> str:
        name = self.fold(name)
        service = self.service or self.kind.partition(".")[0]
        region = call.region if self.regional else ""
        return f"arn:aws:{service}:{region}:{call.account}:{self.path.format(name=name, **fills)}"

    def error(self, which: Sentence, call: Call, name: str) -> ServiceError:
        arn = name if name.startswith("arn:") else self.arn_of(call, name)
        sentence = which[1].format(name=name, arn=arn, region=call.region)
        return ServiceError(which[0], sentence, which[2] if len(which) > 2 else 400)

    # --- reading
    def find(self, call: Call, name: str) -> Document | None:
        """By name, or by ARN where one is given: of the call's account and, where the noun has one, region."""
        region = call.region if self.regional else GLOBAL
        if name.startswith("arn:"):
            named = next((put for put in call.change.puts if put.arn == name and put.kind == self.kind), None)
            found = named or call.app.store.by_arn(name)
            place = (self.kind, call.account, region)
            return found if found and (found.kind, found.account, found.region) == place else None
        found = call.find(self.ref(call, name))
        if found is None and self.folded and name != self.fold(name):  # from before names were folded
            found = call.find(Ref(self.kind, call.account, region, name))
        return found

    def get(self, call: Call, name: str | None = None) -> Document:
        """The document named, by default by the call's own key member.

        Raises: ServiceError `missing`; the same code where the member, which the model does not demand, is not given;
            `elsewhere` for an ARN of another region.
        """
        wanted = call.params.get(self.key) if name is None else name
        if wanted is None:
            raise ServiceError(
                self.missing[0],
                f"1 validation error detected: Value null at '{self.key[:1].lower()}{self.key[1:]}' failed to satisfy "
                "constraint: Member must not be null",
            )
        document = self.find(call, wanted)
        if document is None:
            stray = self.regional and wanted.startswith("arn:") and wanted.split(":", 4)[3:4] != [call.region]
            raise self.error(self.elsewhere if stray else self.missing, call, wanted)
        return document

    def describe(self, document: Document) -> dict[str, Any]:
        """The Describe answer: the body without Penstock's own members."""
        return {name: value for name, value in document.body.items() if name[0] != "_"}

    def page(
        self,
        call: Call,
        output: str,
        *,
        order: str = "created",
        descending: bool = True,
        parent: str | None = None,
        label: str | None = None,
        show: Callable[[Document], dict[str, Any]] | None = None,
        status: str | None = None,
        keep: Callable[[Document], bool] | None = None,
    ) -> dict[str, Any]:
        """The answer of a List operation: filters, order and paging by the members that the call's input has.

        Takes:
            output: the member that holds the list ("Models").
            show: a function from a document to its summary (default: the Describe answer; the wire leaves out what the
                summary's shape does not have).
            keep: a filter that the store does not have.
        """
        return pages.answer(
            call,
            self,
            output,
            order=order,
            descending=descending,
            parent=parent,
            label=label,
            show=show or self.describe,
            status=status,
            keep=keep,
        )

    # --- writing
    def create(
        self,
        call: Call,
        name: str | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        status: str = "",
        parent: str = "",
        label: str = "",
        rank: float = 0.0,
        arn: str = "",
        tagged: bool = True,
    ) -> Document:
        """A new document with Create's members as its body, in the call's change.

        Takes: `tagged`, whether it has the call's tags: not where it is made beside what the call is for.
        Raises: ServiceError `exists`.
        """
        name = call.params[self.key] if name is None else name
        if self.find(call, name) is not None:
            raise self.error(self.exists, call, name)
        given = call.params if body is None else body
        arn = arn or self.arn_of(call, name)
        shown = {member: value for member, value in given.items() if member not in self.without}
        shown |= {self.key: name, self.arn: arn, self.created: call.now}
        if self.updated:
            shown[self.updated] = call.now
        if self.status:
            shown[self.status] = status
        document = Document(
            kind=self.kind,
            account=call.account,
            region=call.region if self.regional else GLOBAL,
            name=self.fold(name),
            arn=arn,
            parent=parent,
            status=status,
            label=label,
            rank=rank,
            created=call.now,
            updated=call.now,
            body=shown,
        )
        if tagged and (given_tags := call.params.get("Tags")):
            call.row(TagsPut(arn=arn, tags=tags.parse(given_tags, self.tags_code, self.tags_folded)))
        return call.put(document)

    def save(self, call: Call, document: Document, **members: Any) -> Document:
        """Puts a document back, with these members of its body changed (None takes a member away)."""
        for member, value in members.items():
            if value is None:
                document.body.pop(member, None)
            else:
                document.body[member] = value
        if self.updated:
            document.body[self.updated] = call.now
        return call.put(document)

    def move(self, call: Call, document: Document, status: str, **members: Any) -> Document:
        """Moves a document to another status, if that is legal.

        Raises: ValueError for an illegal move: a bug of the caller's, which checks first what a client may ask.
        """
        if status != document.status:
            if status not in self.moves.get(document.status, ()):
                raise ValueError(f"{self.kind} {document.name} cannot move from {document.status} to {status}")
            document.status = document.body[self.status] = status
        return self.save(call, document, **members)

    def delete(self, call: Call, name: str | None = None) -> Document:
        """Deletes the document and its tags.

        Raises: ServiceError `missing`.
        """
        document = self.get(call, name)
        call.delete(document)
        if document.arn:
            call.row(TagsGone(arn=document.arn))
        return document

    def all(self, call: Call, parent: str | None = None, limit: int = 1000) -> Sequence[Document]:
        """The stored documents of the call's account and region, oldest first."""
        return call.app.store.page(
            Query(
                kind=self.kind,
                account=call.account,
                region=call.region if self.regional else GLOBAL,
                parent=parent,
                limit=limit,
            )
        )
