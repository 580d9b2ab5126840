"""What policy documents must look like to be kept."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from penstock.kernel import jsontext
from penstock.kernel.errors import ServiceError
from penstock.services.iam import grammar


def check_policy(text: str) -> str:
    """The text of an identity's policy, if it is one.

    Raises: ServiceError MalformedPolicyDocument.
    """
    try:
        document = jsontext.read(text)
    except ValueError:
        raise malformed("Syntax errors in policy.") from None
    grammar.check(document)
    return text


def check_trust(text: str) -> str:
    """The text of a role's trust policy, if it is one.

    Raises: ServiceError MalformedPolicyDocument.
    """
    for statement in _statements(text):
        if "Resource" in statement or "NotResource" in statement:
            raise malformed("Has prohibited field Resource")
        if "Principal" not in statement and "NotPrincipal" not in statement:
            raise malformed("Missing required field Principal")
        if "Action" not in statement and "NotAction" not in statement:
            raise malformed("Missing required field Action")
    return text


def encoded(text: str) -> str:
    """A policy as answers have it: percent-encoded (RFC 3986)."""
    return quote(text, safe="-_.~")


def malformed(sentence: str) -> ServiceError:
    return ServiceError("MalformedPolicyDocument", sentence)


def _statements(text: str) -> list[dict[str, Any]]:
    try:
        document = jsontext.read(text)
    except ValueError:
        raise malformed("This policy contains invalid Json") from None
    if not isinstance(document, dict) or "Statement" not in document:
        raise malformed("Syntax errors in policy.")
    if document.get("Version", "2008-10-17") not in ("2012-10-17", "2008-10-17"):
        raise malformed("The policy must contain a valid version string")
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    for statement in statements:
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            raise malformed("Syntax errors in policy.")
    return statements
