"""The grammar of identity policies."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.kernel.errors import ServiceError
from penstock.services.iam import grammar


def policy(**parts: Any) -> dict[str, Any]:
    """A policy of one statement; a part that is None is not there."""
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*", **parts}
    return {"Version": "2012-10-17", "Statement": {name: each for name, each in statement.items() if each is not None}}


@pytest.mark.parametrize(
    "given",
    [
        policy(),
        policy(Action=["s3:*", "*"], Resource="*"),
        policy(Action=None, NotAction="iam:*", Resource=None, NotResource=["arn:aws:iam::123456789012:role/*"]),
        policy(Condition={"StringLike": {"s3:prefix": ["a", "b"]}, "Bool": {"aws:SecureTransport": True}}),
        policy(Condition={"ForAllValues:StringEquals": {"aws:TagKeys": "a"}, "NumericLessThanIfExists": {"a:b": 1}}),
        policy(Condition={"DateLessThan": {"aws:CurrentTime": "2026-01-31T12:00:00Z"}}),
        policy(Condition={"DateLessThan": {"aws:CurrentTime": ["01T", "2026-01-31t2:00:00.593194+23"]}, "Unknown": {}}),
        policy(Resource="arn:aws-cn:sagemaker:*:*:model/*"),
        policy(Action="s3.s:GetObject", Resource=["arn:aws:anything", None]),
        policy(Resource="arn:aws:s3:us-west-2:123456789012:accesspoint/own/object/*"),
        {"Version": "2012-10-17", "Id": "x", "Statement": [policy(Sid="a")["Statement"], policy(Sid="b")["Statement"]]},
    ],
)
def test_what_is_a_policy_is_taken(given: dict[str, Any]) -> None:
    grammar.check(given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "Syntax errors"),
        (policy(Extra=1), "Syntax errors"),
        (policy(Action=[1]), "Syntax errors"),
        (policy(Condition={"StringSortOf": {"a": "b"}}), "Syntax errors"),
        (policy(NotAction="s3:*"), "Syntax errors"),
        ({"Statement": policy()["Statement"]}, "must be version"),
        (policy(Effect="allow"), "legacy parsing"),
        (policy(Condition={"DateLessThan": {"a": "soon"}}), "legacy parsing"),
        (policy(Resource="arn:aws:s3::b"), "legacy parsing"),
        (policy(Action=None), "must contain actions"),
        (policy(Action="GetObject"), "prefaced by a vendor"),
        (policy(Action="s3:Get:Object"), "only one colon"),
        (policy(Resource=None), "must contain resources"),
        (policy(Resource="bucket"), "ARN format"),
        (policy(Resource="arn:mine:s3:::b"), 'Partition "mine"'),
        (policy(Resource="arn:aws:s3:eu-west-1::b"), "region information"),
        (policy(Resource="arn:aws:iam:::thing"), "IAM resource path"),
        ({"Version": "2012-10-17", "Statement": [policy(Sid="a")["Statement"]] * 2}, "must be unique"),
    ],
)
def test_what_is_none_is_refused_in_iams_words(given: Any, sentence: str) -> None:
    with pytest.raises(ServiceError, match=sentence) as fault:
        grammar.check(given)
    assert fault.value.code == "MalformedPolicyDocument"
