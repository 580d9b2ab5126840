"""Forms that a page in a browser posts to a bucket: one file, with a signed policy that says what it may be.

The front hands the body's pieces through `Post.pieces` into the blobs; what is before the file (the fields, and with them the
policy) is held against the policy before a byte of the file is taken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from penstock.kernel import postpolicy
from penstock.kernel.app import App
from penstock.kernel.errors import ServiceError
from penstock.wire import models, protocols, xmlbody
from penstock.wire.formdata import FormReader, TooLong
from penstock.wire.message import Reply, Request
from penstock.wire.values import Malformed

HEADERS = {"acl": "x-amz-acl"}
"""Fields whose header has another name; the others are named as PutObject's headers."""
NO_HEADERS = postpolicy.FREE | {
    "key", "bucket", "tagging", "success_action_status", "success_action_redirect", "redirect", "x-amz-algorithm",
    "x-amz-credential", "x-amz-date",
}  # fmt: skip


def is_post(request: Request) -> bool:
    """Whether the request is a form for a bucket."""
    if request.method != "POST" or request.query or "/" in request.path.strip("/"):
        return False
    return request.headers.get("content-type", "").startswith("multipart/form-data")


class Post:
    """One form: `allowed` and `fields` are known once `pieces` gave the first bytes of the file."""

    def __init__(self, app: App, request: Request, now: float):
        self._app, self._request, self._now = app, request, now
        self.bucket = request.path.strip("/")
        self.operation = models.service("s3").operations["PutObject"]
        self.fields: dict[str, str] = {}
        self.allowed: postpolicy.Allowed | None = None
        try:
            self._reader = FormReader(request.headers["content-type"])
        except Malformed as wrong:
            raise _malformed() from wrong

    async def pieces(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Gives the file's bytes. Raises: ServiceError, AuthError as soon as the form may not be."""
        size_bytes = 0
        async for data in body:
            try:
                piece = self._reader.feed(data)
            except TooLong as wrong:
                sentence = "Your POST request fields preceding the upload file were too large."
                raise ServiceError("MaxPostPreDataLengthExceeded", sentence) from wrong
            except Malformed as wrong:
                raise _malformed() from wrong
            if self._reader.began and self.allowed is None:
                self._begin()
            if piece and self.allowed is not None:
                size_bytes += len(piece)
                self.allowed.check_size(size_bytes, whole=False)
                yield piece
        if not self._reader.began:
            if not self._reader.done:
                raise _malformed()
            sentence = "POST requires exactly one file upload per request."
            raise ServiceError("InvalidArgument", sentence, 400, ArgumentName="file", ArgumentValue="0")
        if not self._reader.done:
            raise _malformed()
        if self.allowed is not None:
            self.allowed.check_size(size_bytes, whole=True)

    def _begin(self) -> None:
        """Looks at the fields: the file begins."""
        fields = self._reader.fields
        if "key" not in fields:
            raise postpolicy.needs("key")
        fields["key"] = fields["key"].replace("${filename}", self._reader.filename)
        if not fields["key"]:
            sentence = "User key must have a length greater than 0."
            raise ServiceError("InvalidArgument", sentence, 400, ArgumentName="key", ArgumentValue="")
        self.fields = fields
        self.allowed = postpolicy.allow(self._app.store, self.bucket, fields, self._now, self._request.run)

    def params(self, received: Any) -> dict[str, Any]:
        """PutObject's parameters, as its headers would have told them."""
        headers = {}
        for name, value in self.fields.items():
            if name in NO_HEADERS:
                continue
            if any(ord(char) < 32 or ord(char) == 127 for char in value):
                raise ServiceError(
                    "InvalidArgument", "Invalid field value.", 400, ArgumentName=name, ArgumentValue=value
                )
            told = value if name.startswith("x-amz-meta-") else value.encode().decode("latin-1")
            headers[HEADERS.get(name, name)] = told
        if "tagging" in self.fields:
            headers["x-amz-tagging"] = _tags(self.fields["tagging"])
        key = quote(self.fields["key"], safe="/")
        made = Request("PUT", f"/{self.bucket}/{key}", "", headers, upload=received)
        params = protocols.parse(self.operation, made)
        params.update({"Bucket": self.bucket, "Key": self.fields["key"], "Body": received, "_form": True})
        return params

    def reply(self, result: dict[str, Any], request_id: str) -> Reply:
        """The answer that the form asks for: a redirection, or one of three statuses."""
        key, etag = self.fields["key"], result["ETag"]
        location = f"http://{self._request.headers.get('host', '')}/{self.bucket}/{quote(key, safe='/~')}"
        headers = {"x-amz-request-id": request_id, "etag": etag, "location": location}
        for member, header in (
            ("VersionId", "x-amz-version-id"),
            ("ServerSideEncryption", "x-amz-server-side-encryption"),
        ):
            if result.get(member):
                headers[header] = str(result[member])
        target = self.fields.get("success_action_redirect") or self.fields.get("redirect") or ""
        if urlsplit(target).scheme in ("http", "https") and target.isascii() and target.isprintable():
            more = urlencode({"bucket": self.bucket, "key": key, "etag": etag})
            headers["location"] = f"{target}{'&' if urlsplit(target).query else '?'}{more}"
            return Reply(303, headers, b"")
        status = self.fields.get("success_action_status")
        if status == "201":
            told = {"Location": location, "Bucket": self.bucket, "Key": key, "ETag": etag}
            inner = "".join(f"<{name}>{xmlbody.escape(value)}</{name}>" for name, value in told.items())
            body = f'<?xml version="1.0" encoding="UTF-8"?>\n<PostResponse>{inner}</PostResponse>'
            return Reply(201, headers | {"content-type": "application/xml"}, body.encode())
        return Reply(200 if status == "200" else 204, headers, b"")


def _tags(text: str) -> str:
    """A Tagging document as the header has it."""
    try:
        root = xmlbody.parse_root(text.encode())
    except Malformed as wrong:
        raise ServiceError("MalformedXML", protocols.S3_MALFORMED) from wrong
    pairs = []
    for tag in root.iter():
        if xmlbody.local(tag.tag) == "Tag":
            held = {xmlbody.local(child.tag): child.text or "" for child in tag}
            pairs.append((held.get("Key", ""), held.get("Value", "")))
    return urlencode(pairs)


def _malformed() -> ServiceError:
    return ServiceError("MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data.")
