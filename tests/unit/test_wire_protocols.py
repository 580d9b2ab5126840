"""What the protocols say on the wire, where a round trip through botocore would not show it."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import pytest

from penstock.wire import cborbody
from penstock.wire.message import Reply, Request
from penstock.wire.models import Operation, service
from penstock.wire.protocols import BadRequest, error, parse, reply, spoken, status_of
from penstock.wire.values import Malformed, iso8601, read_moment, rfc822


def operation(name: str, which: str) -> Operation:
    return service(name).operations[which]


DESCRIBE = operation("sagemaker", "DescribeModel")
JSON = {"content-type": "application/x-amz-json-1.1"}


def refused(which: Operation, request: Request) -> tuple[str, int]:
    with pytest.raises(BadRequest) as caught:
        parse(which, request)
    return caught.value.code, caught.value.status


def body_of(answer: Reply) -> Any:
    assert isinstance(answer.body, bytes)
    return json.loads(answer.body)


# --- json


def test_members_that_the_model_does_not_have_are_dropped() -> None:
    assert parse(DESCRIBE, Request("POST", "/", "", JSON, b'{"ModelName":"m","Other":{"a":[1]},"_x":1}')) == {
        "ModelName": "m"
    }
    result = {"ModelName": "m", "Other": 1, "_private": 2, "PrimaryContainer": {"Image": "i", "_x": 1}}
    assert body_of(reply(DESCRIBE, result, "id")) == {"ModelName": "m", "PrimaryContainer": {"Image": "i"}}


def test_members_that_are_none_are_left_out() -> None:
    assert parse(DESCRIBE, Request("POST", "/", "", JSON, b'{"ModelName":null}')) == {}
    assert body_of(reply(DESCRIBE, {"ModelName": "m", "VpcConfig": None}, "id")) == {"ModelName": "m"}


def test_moments_are_seconds_in_json() -> None:
    assert body_of(reply(DESCRIBE, {"CreationTime": 1700000000.25}, "id")) == {"CreationTime": 1700000000.25}


def test_an_empty_body_is_no_parameters() -> None:
    assert parse(DESCRIBE, Request("POST", "/", "", JSON, b"")) == {}


def test_an_operation_without_output_has_an_empty_body() -> None:
    assert reply(operation("sagemaker", "DeleteModel"), {}, "id").body == b""


def test_a_result_may_name_status_and_headers() -> None:
    answer = reply(DESCRIBE, {"_status": 202, "_headers": {"x-a": "b"}}, "id")
    assert (answer.status, answer.headers["x-a"]) == (202, "b")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"\xff",
        b'{"ModelName":1}',
        b'{"ModelName":true}',
        b'{"ModelName":["a"]}',
        b'{"ModelName":{"a":1}}',
        b'{"ModelName":' + b"[" * 100_000,
    ],
)
def test_json_that_is_not_as_the_model_says_is_a_serialization_exception(body: bytes) -> None:
    assert refused(DESCRIBE, Request("POST", "/", "", JSON, body)) == ("SerializationException", 400)


def test_a_wrong_type_is_told_in_awss_words() -> None:
    request = Request("POST", "/", "", JSON, b'{"MaxResults":"ten"}')
    with pytest.raises(BadRequest, match="STRING_VALUE can not be converted to an Integer"):
        parse(operation("sagemaker", "ListModels"), request)


def test_a_compressed_body_is_inflated() -> None:
    body = gzip.compress(b'{"ModelName":"m"}')
    assert parse(DESCRIBE, Request("POST", "/", "", {**JSON, "content-encoding": "gzip"}, body)) == {"ModelName": "m"}
    assert refused(DESCRIBE, Request("POST", "/", "", {**JSON, "content-encoding": "gzip"}, body[:-9])) == (
        "SerializationException",
        400,
    )


def test_a_json_error_has_type_message_and_header() -> None:
    sagemaker = service("sagemaker")
    answer = error(sagemaker, DESCRIBE, "ValidationException", "Could not find model.", 400, {}, "the-id")
    assert body_of(answer) == {"__type": "ValidationException", "message": "Could not find model."}
    assert answer.headers["x-amzn-errortype"] == "ValidationException"
    assert answer.headers["x-amzn-requestid"] == "the-id"
    assert answer.headers["content-type"] == "application/x-amz-json-1.1"


def test_a_modelled_error_names_its_message_as_its_model_does() -> None:
    assert body_of(error(service("sagemaker"), DESCRIBE, "ResourceNotFound", "Gone.", 400, {}, "id")) == {
        "__type": "ResourceNotFound",
        "Message": "Gone.",
    }


# --- several protocols


def test_a_query_compatible_error_names_its_old_code() -> None:
    answer = error(service("cloudwatch"), None, "ResourceNotFound", "None.", 404, {}, "id", "json")
    assert answer.headers["x-amzn-query-error"] == "ResourceNotFound;Sender"
    assert status_of(service("cloudwatch"), "ResourceNotFound") == 404


def test_cloudwatch_is_answered_as_it_was_asked() -> None:
    cloudwatch, listing = service("cloudwatch"), operation("cloudwatch", "ListMetrics")
    form = {"content-type": "application/x-www-form-urlencoded"}
    asked = {
        "json": Request("POST", "/", "", {"x-amz-target": "GraniteServiceVersion20100801.ListMetrics"}, b"{}"),
        "query": Request("POST", "/", "", form, b"Action=ListMetrics&Version=2010-08-01&Namespace=n"),
        "smithy-rpc-v2-cbor": Request("POST", "/service/x", "", {"smithy-protocol": "rpc-v2-cbor"}, b"\xa0"),
    }
    for protocol, request in asked.items():
        assert spoken(cloudwatch, request) == protocol
        assert isinstance(parse(listing, request), dict)
    assert b"<ListMetricsResult>" in reply(listing, {"Metrics": []}, "id", "query").body  # type: ignore[operator]
    assert reply(listing, {}, "id", "smithy-rpc-v2-cbor").headers["smithy-protocol"] == "rpc-v2-cbor"


@pytest.mark.parametrize(
    "body", [b"", b"\xa1", b"\xbf\x61a", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", b"\xff", b"\xa0\x00", b"\x81" * 500]
)
def test_malformed_cbor_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        cborbody.decode(body)


def test_cbor_holds_what_json_cannot() -> None:
    value = {"a": [1, -1, 2**40, 0.5, True, None, b"bytes", "tëxt"], "b": {}, "inf": math.inf}
    assert cborbody.decode(cborbody.encode(value)) == value
    assert cborbody.decode(b"\xbf\x61a\x9f\x01\x02\xff\x61b\x7f\x61x\x61y\xff\xff") == {"a": [1, 2], "b": "xy"}
    assert cborbody.decode(b"\xc1\xfb\x41\xd9\x54\xfc\x40\x10\x00\x00") == 1700000000.25


def test_sqs_is_understood_and_answered_in_the_query_protocol_of_old_clients() -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    send = b"Action=SendMessage&MessageBody=b&MessageAttribute.1.Name=n&MessageAttribute.1.Value.DataType=String"
    batch = b"Action=DeleteMessageBatch&DeleteMessageBatchRequestEntry.1.Id=a&DeleteMessageBatchRequestEntry.2.Id=b"
    make = b"Action=CreateQueue&QueueName=q&Attribute.1.Name=Policy&Attribute.1.Value=9&Tag.1.Key=k&Tag.1.Value=v"
    ask = b"Action=GetQueueAttributes&AttributeName.1=All"
    read = {
        which: parse(operation("sqs", which), Request("POST", "/1/q", "", form, body), "query")
        for which, body in {
            "SendMessage": send,
            "DeleteMessageBatch": batch,
            "CreateQueue": make,
            "GetQueueAttributes": ask,
        }.items()
    }
    assert read == {
        "SendMessage": {"MessageBody": "b", "MessageAttributes": {"n": {"DataType": "String"}}},
        "DeleteMessageBatch": {"Entries": [{"Id": "a"}, {"Id": "b"}]},
        "CreateQueue": {"QueueName": "q", "Attributes": {"Policy": "9"}, "tags": {"k": "v"}},
        "GetQueueAttributes": {"AttributeNames": ["All"]},
    }
    message = {"MessageId": "m", "Body": "b", "Attributes": {"SentTimestamp": "1"}}
    body = reply(operation("sqs", "ReceiveMessage"), {"Messages": [message]}, "id", "query").body
    assert isinstance(body, bytes)
    assert (
        b"<Message><MessageId>m</MessageId><Body>b</Body><Attribute><Name>SentTimestamp</Name><Value>1</Value>"
        b"</Attribute></Message></ReceiveMessageResult>"
    ) in body


def test_sqs_tells_its_old_error_codes_beside_the_new() -> None:
    answer = error(service("sqs"), None, "QueueDoesNotExist", "None.", 400, {}, "id", "json")
    assert body_of(answer) == {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "None."}
    assert answer.headers["x-amzn-query-error"] == "AWS.SimpleQueueService.NonExistentQueue;Sender"
    old = error(service("sqs"), None, "QueueDoesNotExist", "None.", 400, {}, "id", "query").body
    assert isinstance(old, bytes)
    assert b"<Code>AWS.SimpleQueueService.NonExistentQueue</Code>" in old


# --- query


def test_a_query_answer_is_wrapped_and_named() -> None:
    answer = reply(operation("sts", "GetCallerIdentity"), {"Account": "1", "Arn": "a<b>&c"}, "the-id")
    assert answer.body == (
        b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        b"<Account>1</Account><Arn>a&lt;b&gt;&amp;c</Arn></GetCallerIdentityResult><ResponseMetadata><RequestId>the-id"
        b"</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    )


def test_a_query_error_is_xml() -> None:
    answer = error(service("iam"), None, "NoSuchEntity", "None.", 404, {}, "the-id")
    assert answer.status == 404
    assert answer.body == (
        b'<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type>'
        b"<Code>NoSuchEntity</Code><Message>None.</Message></Error><RequestId>the-id</RequestId></ErrorResponse>"
    )


def test_query_parameters_may_come_in_query_and_body() -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    request = Request("POST", "/", "Action=CreateRole", form, b"RoleName=r&Tags.member.2.Key=b&Tags.member.1.Key=a")
    assert parse(operation("iam", "CreateRole"), request) == {"RoleName": "r", "Tags": [{"Key": "a"}, {"Key": "b"}]}


@pytest.mark.parametrize(
    "body", [b"RoleName.x=1", b"MaxSessionDuration=ten", b"RoleName=%ff", b"a" + b".a" * 200 + b"=1"]
)
def test_a_malformed_query_is_refused(body: bytes) -> None:
    assert refused(operation("iam", "CreateRole"), Request("POST", "/", "", {}, body)) == ("MalformedInput", 400)


# --- rest


def s3_request(
    which: str, method: str, path: str, query: str = "", body: bytes = b"", **headers: str
) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse(operation("s3", which), Request(method, path, query, named, body))


def test_a_key_is_decoded_and_otherwise_as_sent() -> None:
    assert s3_request("GetObject", "GET", "/b/a%20b//..%2Fc/+%C3%BC/") == {"Bucket": "b", "Key": "a b//../c/+ü/"}


def test_prefixed_headers_are_metadata() -> None:
    found = s3_request("PutObject", "PUT", "/b/k", body=b"x", x_amz_meta_a="1", x_amz_meta_b_c="2", other="3")
    assert found == {"Bucket": "b", "Key": "k", "Metadata": {"a": "1", "b-c": "2"}, "Body": b"x"}


def test_an_upload_stands_for_the_body() -> None:
    upload = object()
    request = Request("PUT", "/b/k", "", {}, upload=upload)
    assert parse(operation("s3", "PutObject"), request)["Body"] is upload


def test_location_is_not_wrapped() -> None:
    answer = reply(operation("s3", "GetBucketLocation"), {"LocationConstraint": "eu-west-1"}, "id")
    assert answer.body == (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"eu-west-1</LocationConstraint>"
    )


def test_a_listing_has_s3s_own_root_and_dates() -> None:
    result = {
        "Name": "b",
        "Contents": [{"Key": "a\x01&", "LastModified": 1700000000.5, "Size": 3}],
        "IsTruncated": False,
    }
    body = reply(operation("s3", "ListObjectsV2"), result, "id").body
    assert isinstance(body, bytes)
    assert b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Contents>' in body
    assert b"<Key>a&#1;&amp;</Key><LastModified>2023-11-14T22:13:20.500Z</LastModified><Size>3</Size>" in body


def test_a_grantee_has_its_type_as_attribute() -> None:
    grants = [{"Grantee": {"Type": "Group", "URI": "u"}, "Permission": "READ"}]
    body = reply(operation("s3", "GetBucketAcl"), {"Grants": grants}, "id").body
    assert isinstance(body, bytes)
    assert b'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="Group"><URI>u</URI>' in body


def test_head_has_headers_and_no_body() -> None:
    answer = reply(
        operation("s3", "HeadObject"), {"ContentLength": 5, "LastModified": 1700000000.5, "ETag": '"e"'}, "id"
    )
    assert answer.body == b""
    assert answer.headers["content-length"] == "5"
    assert answer.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"


def test_a_body_of_many_pieces_stays_lazy() -> None:
    pieces = iter([b"a", b"b"])
    assert reply(operation("s3", "GetObject"), {"Body": pieces}, "id").body is pieces


def test_an_s3_error_has_its_own_form_and_none_for_head() -> None:
    s3 = service("s3")
    answer = error(s3, operation("s3", "GetObject"), "NoSuchKey", "Gone.", 404, {"Key": "a&b"}, "the-id")
    assert answer.body == (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code><Message>Gone.</Message>'
        b"<Key>a&amp;b</Key><RequestId>the-id</RequestId><HostId>penstock/the-id</HostId></Error>"
    )
    assert answer.headers["x-amz-request-id"] == "the-id"
    assert error(s3, operation("s3", "HeadObject"), "NoSuchKey", "Gone.", 404, {}, "id").body == b""


@pytest.mark.parametrize(
    "body",
    [
        b"<a",
        b"text",
        b"\xff",
        b'<!DOCTYPE a [<!ENTITY b "c">]><Tagging>&b;</Tagging>',
        '<!DOCTYPE a [<!ENTITY b "c">]><Delete><Object><Key>&b;</Key></Object></Delete>'.encode("utf-16"),
        b"<Delete><Quiet>maybe</Quiet></Delete>",
    ],
)
def test_malformed_xml_is_refused(body: bytes) -> None:
    request = Request("POST", "/b", "delete", {}, body)
    assert refused(operation("s3", "DeleteObjects"), request) == ("MalformedXML", 400)


def test_a_rest_json_error_has_its_code_in_a_header_and_members_where_they_belong() -> None:
    members = {"retryAfterSeconds": "3", "Reason": "CallerRateLimitExceeded"}
    answer = error(service("lambda"), None, "TooManyRequestsException", "Slow.", 429, members, "id")
    assert answer.headers["x-amzn-errortype"] == "TooManyRequestsException"
    assert answer.headers["retry-after"] == "3"
    assert body_of(answer) == {"message": "Slow.", "Reason": "CallerRateLimitExceeded"}


def test_an_invocation_carries_bytes_both_ways() -> None:
    invoke = operation("sagemaker-runtime", "InvokeEndpoint")
    headers = {"content-type": "text/csv", "x-amzn-sagemaker-target-variant": "v"}
    request = Request("POST", "/endpoints/my-e/invocations", "", headers, b"1,2")
    assert parse(invoke, request) == {
        "EndpointName": "my-e",
        "Body": b"1,2",
        "ContentType": "text/csv",
        "TargetVariant": "v",
    }
    answer = reply(invoke, {"Body": b"0.5", "ContentType": "text/csv", "InvokedProductionVariant": "v"}, "id")
    assert (answer.body, answer.headers["content-type"]) == (b"0.5", "text/csv")
    assert answer.headers["x-amzn-invoked-production-variant"] == "v"


# --- moments


@pytest.mark.parametrize(
    "text",
    [
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:20.000Z",
        "2023-11-14T23:13:20+01:00",
        "2023-11-14 22:13:20",
        "Tue, 14 Nov 2023 22:13:20 GMT",
        "1700000000",
        1700000000,
    ],
)
def test_a_moment_is_read_in_any_form(text: Any) -> None:
    assert read_moment(text) == 1700000000.0


@pytest.mark.parametrize("text", ["", "yesterday", "2023-13-01T00:00:00Z", "1e300", True, None, [], "2023-02-30"])
def test_what_is_no_moment_is_refused(text: Any) -> None:
    with pytest.raises(Malformed):
        read_moment(text)


def test_moments_have_as_many_digits_as_they_need() -> None:
    assert iso8601(1700000000.0) == "2023-11-14T22:13:20Z"
    assert iso8601(1700000000.123456) == "2023-11-14T22:13:20.123456Z"
    assert iso8601(-0.5) == "1969-12-31T23:59:59.500Z"
    assert rfc822(-0.5) == "Wed, 31 Dec 1969 23:59:59 GMT"
