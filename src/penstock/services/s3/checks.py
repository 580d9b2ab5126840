"""What S3 says of the settings of a bucket that it does not take: one function a setting, which gives what is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.kernel import ids, notices
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import rules, state
from penstock.store.records import Document

Check = Callable[[Call, Document, Any], Any]

MAX_RULES = 1000
MAX_CORS = 100
METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")
_ARN = re.compile(r"arn:[a-z-]+:(sqs|sns|lambda):[a-z0-9-]+:\d{12}:.+")
_XML = "The XML you provided was not well-formed or did not validate against our published schema"


def malformed() -> ServiceError:
    """The answer to XML that says nothing S3 knows."""
    return ServiceError("MalformedXML", _XML)


def invalid(sentence: str, **members: Any) -> ServiceError:
    """The answer to an argument that S3 does not take."""
    return ServiceError("InvalidArgument", sentence, 400, **members)


def refused(sentence: str) -> ServiceError:
    """The answer to a request that S3 does not take."""
    return ServiceError("InvalidRequest", sentence)


def numbered(given: Sequence[dict[str, Any]], member: str, sentence: str) -> None:
    """Gives an id to each entry that has none. Raises: ServiceError InvalidArgument for one used twice, or too long."""
    known = [each[member] for each in given if each.get(member)]
    if len(set(known)) < len(known):
        raise invalid(sentence)
    for each in given:
        if not each.get(member):
            each[member] = ids.word(48, ids.MIXED)
        if len(each[member]) > 255:
            raise invalid("ID length should not exceed allowed limit of 255")


# --- versioning, encryption, ownership ---------------------------------------------------------------------------------


def versioning(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes Enabled and Suspended. Differs: MFA Delete is refused with S3's NotImplemented."""
    if value.get("MFADelete") == "Enabled":
        raise ServiceError("NotImplemented", state.UNIMPLEMENTED, 501, Header="x-amz-mfa")
    if value.get("Status") not in ("Enabled", "Suspended"):
        raise ServiceError("IllegalVersioningConfigurationException", "The Versioning element must be specified")
    return {"Status": value["Status"]}


def encryption(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes one rule; a key goes with a KMS algorithm only."""
    given = value.get("Rules") or []
    if len(given) != 1:
        raise malformed()
    default = given[0].get("ApplyServerSideEncryptionByDefault") or {}
    if default.get("KMSMasterKeyID") and not str(default.get("SSEAlgorithm", "")).startswith("aws:kms"):
        sentence = "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse"
        raise invalid(sentence, ArgumentName="ApplyServerSideEncryptionByDefault")
    if not rules.is_header_text(default.get("KMSMasterKeyID") or ""):
        raise invalid("Invalid KMS key id", ArgumentName="KMSMasterKeyID")
    given[0].setdefault("BucketKeyEnabled", False)
    return value


def ownership(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes one rule; BucketOwnerEnforced only where the ACL gives nobody else anything."""
    given = value.get("Rules") or []
    if len(given) != 1:
        raise malformed()
    if given[0].get("ObjectOwnership") == "BucketOwnerEnforced" and bucket.body.get("_acl"):
        sentence = "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
        raise ServiceError("InvalidBucketAclWithObjectOwnership", sentence)
    return value


def tagging(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes at most fifty tags; none is to have none."""
    return value if rules.tags_of(value.get("TagSet") or [], 50) else {}


# --- who may read and what happens when --------------------------------------------------------------------------------


def cors(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes up to a hundred rules of methods that S3 has, with one wildcard in each origin and header."""
    given = value.get("CORSRules") or []
    if not 1 <= len(given) <= MAX_CORS:
        raise malformed()
    for rule in given:
        if not rule.get("AllowedMethods") or not rule.get("AllowedOrigins"):
            raise malformed()
        for method in rule["AllowedMethods"]:
            if method not in METHODS:
                raise refused(f"Found unsupported HTTP method in CORS config. Unsupported method is {method}")
        for member, word in (("AllowedOrigins", "AllowedOrigin"), ("AllowedHeaders", "AllowedHeader")):
            for text in rule.get(member) or []:
                if text.count("*") > 1:
                    raise refused(f'{word} "{text}" can not have more than one wildcard.')
        told = [*rule["AllowedOrigins"], *(rule.get("AllowedHeaders") or []), *(rule.get("ExposeHeaders") or [])]
        if not all(rules.is_header_text(text) for text in told):
            raise malformed()
        for text in rule.get("ExposeHeaders") or []:
            if "*" in text:
                raise refused(
                    f'ExposeHeader "{text}" contains wildcard. We currently do not support wildcard for ExposeHeader.'
                )
    return value


ACTIONS = (
    "Expiration", "Transitions", "NoncurrentVersionTransitions", "NoncurrentVersionExpiration",
    "AbortIncompleteMultipartUpload",
)  # fmt: skip


def lifecycle(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes rules with a filter, an action and moments that can be."""
    given = value.get("Rules") or []
    if not 1 <= len(given) <= MAX_RULES:
        raise malformed()
    numbered(given, "ID", "Rule ID must be unique. Found same ID for more than one rule")
    for rule in given:
        if rule.get("Status") not in ("Enabled", "Disabled") or ("Filter" in rule) == ("Prefix" in rule):
            raise malformed()
        if len(rule.get("Filter") or {}) > 1:  # several conditions stand in its And
            raise malformed()
        if not any(rule.get(action) for action in ACTIONS):
            raise refused("At least one action needs to be specified in a rule")
        _check_expiration(rule.get("Expiration") or {})
        for transition in rule.get("Transitions") or []:
            if "StorageClass" not in transition or ("Days" in transition) == ("Date" in transition):
                raise malformed()
            _check_moment("Transition", transition, least=0)
        for transition in rule.get("NoncurrentVersionTransitions") or []:
            if not {"NoncurrentDays", "StorageClass"} <= set(transition):
                raise malformed()
        _check_days("NoncurrentVersionExpiration", rule.get("NoncurrentVersionExpiration") or {}, "NoncurrentDays")
        _check_days(
            "AbortIncompleteMultipartUpload", rule.get("AbortIncompleteMultipartUpload") or {}, "DaysAfterInitiation"
        )
    return value


def _check_expiration(given: Mapping[str, Any]) -> None:
    if not given:
        return
    if len([name for name in ("Days", "Date", "ExpiredObjectDeleteMarker") if given.get(name) is not None]) != 1:
        raise malformed()
    _check_moment("Expiration", given, least=1)


def _check_moment(action: str, given: Mapping[str, Any], least: int) -> None:
    days, date = given.get("Days"), given.get("Date")
    if days is not None and days < least:
        kind = "positive" if least else "nonnegative"
        raise invalid(f"'Days' for {action} action must be a {kind} integer")
    if date is not None and date % 86400:
        raise invalid("'Date' must be at midnight GMT")


def _check_days(action: str, given: Mapping[str, Any], member: str) -> None:
    if given.get(member) is not None and given[member] < 1:
        raise invalid(f"'{member}' for {action} action must be a positive integer")


def notification(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes configurations whose events do not overlap, and sends their queues and topics a test message.

    Differs: whether a destination exists and may be written to is not looked at.
    """
    given = list(notices.destinations(value))
    numbered([each for each, _ in given], "Id", "Same ID used for multiple configurations. IDs must be unique")
    for each, arn in given:
        if not _ARN.fullmatch(arn):
            raise invalid("The ARN could not be parsed", ArgumentName="arn", ArgumentValue=arn)
        if not each.get("Events"):
            raise malformed()
        for event in each["Events"]:
            if not event.startswith("s3:"):
                raise invalid("A specified event is not supported for notifications.")
        _check_filter(((each.get("Filter") or {}).get("Key") or {}).get("FilterRules") or [])
    for at, (each, _) in enumerate(given):
        if any(_overlap(each, other) for other, _ in given[:at]):
            sentence = (
                "Configurations overlap. Configurations on the same bucket cannot share a common event type."
                if notices.affixes(each) == ("", "")
                else "Configuration is ambiguously defined. Cannot have overlapping suffixes in two rules if the "
                "prefixes are overlapping for the same event type."
            )
            raise invalid(sentence)
    for _, arn in given:
        if ":lambda:" not in arn:
            notices.test_message(call, bucket, arn)
    return value


def _check_filter(given: Sequence[Mapping[str, Any]]) -> None:
    names = [str(rule.get("Name", "")).lower() for rule in given]
    if any(name not in ("prefix", "suffix") for name in names):
        raise invalid("filter rule name must be either prefix or suffix")
    if len(set(names)) < len(names):
        raise invalid(f"Cannot specify more than one {names[0]} rule in a filter.")


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tells whether one object's event could be asked for by both."""
    if not any(_same_event(a, b) for a in one["Events"] for b in other["Events"]):
        return False
    (prefix, suffix), (other_prefix, other_suffix) = notices.affixes(one), notices.affixes(other)
    begins = prefix.startswith(other_prefix) or other_prefix.startswith(prefix)
    return begins and (suffix.endswith(other_suffix) or other_suffix.endswith(suffix))


def _same_event(one: str, other: str) -> bool:
    return one == other or any(
        wide.endswith(":*") and narrow.startswith(wide[:-1]) for wide, narrow in ((one, other), (other, one))
    )


# --- the rest ----------------------------------------------------------------------------------------------------------


def website(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes either an index document or a redirection of everything."""
    everything, index = value.get("RedirectAllRequestsTo"), value.get("IndexDocument")
    if everything:
        if index or value.get("ErrorDocument") or value.get("RoutingRules"):
            raise invalid("RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules.")
        return value
    if not index:
        sentence = "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty"
        raise invalid(sentence, ArgumentName="IndexDocument", ArgumentValue="null")
    if not index.get("Suffix") or "/" in index["Suffix"]:
        sentence = "The IndexDocument Suffix is not well formed"
        raise invalid(sentence, ArgumentName="IndexDocument", ArgumentValue=index.get("Suffix") or "")
    return value


def logging(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes a target bucket that is there and the same owner's."""
    if not (wanted := value.get("LoggingEnabled")):
        return {}
    target = call.find(state.ref_of(wanted.get("TargetBucket") or ""))
    sentence = ""
    if target is None:
        sentence = "The target bucket for logging does not exist"
    elif target.parent != bucket.parent:
        sentence = "The owner for the bucket to be logged and the target bucket must be the same."
    elif target.body["BucketRegion"] != bucket.body["BucketRegion"]:
        raise ServiceError(
            "CrossLocationLoggingProhibitted", "Cross S3 location logging not allowed. ", 403,
            TargetBucketLocation=target.body["BucketRegion"],
        )  # fmt: skip
    if sentence:
        raise ServiceError("InvalidTargetBucketForLogging", sentence, 400, TargetBucket=wanted.get("TargetBucket"))
    return value


def acceleration(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes a status; no bucket with a dot in its name can be accelerated."""
    if value.get("Status") not in ("Enabled", "Suspended"):
        raise malformed()
    if "." in bucket.name:
        raise refused("S3 Transfer Acceleration is not supported for buckets with periods (.) in their names")
    return value


def payment(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes who pays."""
    if value.get("Payer") not in ("Requester", "BucketOwner"):
        raise malformed()
    return value


def replication(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    """Takes rules for a bucket with versions, into others that are there and have them too."""
    if state.versioning(bucket) != "Enabled":
        raise refused("Versioning must be 'Enabled' on the bucket to apply a replication configuration")
    if not value.get("Role") or not value.get("Rules"):
        raise malformed()
    numbered(value["Rules"], "ID", "Rule ID must be unique. Found same ID for more than one rule")
    for rule in value["Rules"]:
        arn = (rule.get("Destination") or {}).get("Bucket") or ""
        target = call.find(state.ref_of(arn.removeprefix("arn:aws:s3:::")))
        if target is None:
            raise refused("Destination bucket must exist.")
        if state.versioning(target) != "Enabled":
            raise refused("Destination bucket must have versioning enabled.")
    return value
