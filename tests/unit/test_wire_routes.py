"""Requests find their operation."""

from __future__ import annotations

import pytest

from penstock.wire.message import Request
from penstock.wire.models import coverage, metadata, service
from penstock.wire.routes import Router, Unroutable

NAMES = (
    "sagemaker",
    "sagemaker-runtime",
    "sagemaker-metrics",
    "s3",
    "sts",
    "iam",
    "lambda",
    "cloudwatch",
    "sqs",
    "ecr",
)
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}


@pytest.fixture(scope="module")
def router() -> Router:
    return Router(NAMES)


def found(router: Router, request: Request, signing: str | None, host: str | None = None) -> str:
    operation = router.find(request, signing, host)
    return f"{operation.service.name}.{operation.name}"


S3_CASES = [
    ("GET", "/", "", {}, "ListBuckets"),
    ("PUT", "/bucket", "", {}, "CreateBucket"),
    ("HEAD", "/bucket", "", {}, "HeadBucket"),
    ("HEAD", "/bucket/", "", {}, "HeadBucket"),
    ("GET", "/bucket", "", {}, "ListObjects"),
    ("GET", "/bucket/", "prefix=a&delimiter=%2F", {}, "ListObjects"),
    ("GET", "/bucket", "list-type=2&prefix=a", {}, "ListObjectsV2"),
    ("GET", "/bucket", "location", {}, "GetBucketLocation"),
    ("GET", "/bucket", "location=", {}, "GetBucketLocation"),
    ("GET", "/bucket", "versioning", {}, "GetBucketVersioning"),
    ("GET", "/bucket", "versions&prefix=a", {}, "ListObjectVersions"),
    ("GET", "/bucket", "uploads", {}, "ListMultipartUploads"),
    ("GET", "/bucket", "lifecycle", {}, "GetBucketLifecycleConfiguration"),
    ("GET", "/bucket", "notification", {}, "GetBucketNotificationConfiguration"),
    ("GET", "/bucket", "analytics", {}, "ListBucketAnalyticsConfigurations"),
    ("GET", "/bucket", "analytics&id=1", {}, "GetBucketAnalyticsConfiguration"),
    ("POST", "/bucket", "delete", {}, "DeleteObjects"),
    ("DELETE", "/bucket", "", {}, "DeleteBucket"),
    ("DELETE", "/bucket", "policy", {}, "DeleteBucketPolicy"),
    ("GET", "/bucket/key", "", {}, "GetObject"),
    ("GET", "/bucket/key/", "", {}, "GetObject"),
    ("GET", "/bucket//", "", {}, "GetObject"),
    ("GET", "/bucket/key", "versionId=1&X-Amz-Signature=x", {}, "GetObject"),
    ("GET", "/bucket/key", "uploadId=u", {}, "ListParts"),
    ("GET", "/bucket/key", "tagging", {}, "GetObjectTagging"),
    ("GET", "/bucket/key", "attributes", {"x-amz-object-attributes": "ETag"}, "GetObjectAttributes"),
    ("HEAD", "/bucket/a/b", "partNumber=1", {}, "HeadObject"),
    ("PUT", "/bucket/key", "", {}, "PutObject"),
    ("PUT", "/bucket/key", "", {"x-amz-copy-source": "a/b"}, "CopyObject"),
    ("PUT", "/bucket/key", "partNumber=1&uploadId=u", {}, "UploadPart"),
    ("PUT", "/bucket/key", "partNumber=1&uploadId=u", {"x-amz-copy-source": "a/b"}, "UploadPartCopy"),
    ("POST", "/bucket/key", "uploads", {}, "CreateMultipartUpload"),
    ("POST", "/bucket/key", "uploadId=u", {}, "CompleteMultipartUpload"),
    ("DELETE", "/bucket/key", "uploadId=u", {}, "AbortMultipartUpload"),
    ("DELETE", "/bucket/key", "", {}, "DeleteObject"),
    ("DELETE", "/bucket/key", "versionId=u", {}, "DeleteObject"),
]


@pytest.mark.parametrize(("method", "path", "query", "headers", "operation"), S3_CASES)
def test_s3_is_told_by_method_path_query_and_copy_source(
    router: Router, method: str, path: str, query: str, headers: dict[str, str], operation: str
) -> None:
    assert found(router, Request(method, path, query, headers), "s3") == f"s3.{operation}"


def test_services_of_one_signing_name_are_told_apart(router: Router) -> None:
    model = Request("POST", "/", "", {"x-amz-target": "SageMaker.DescribeModel"})
    invoke = Request("POST", "/endpoints/e/invocations", "", {})
    metrics = Request("PUT", "/BatchPutMetrics", "", {})
    assert found(router, model, "sagemaker") == "sagemaker.DescribeModel"
    assert found(router, invoke, "sagemaker") == "sagemaker-runtime.InvokeEndpoint"
    assert found(router, metrics, "sagemaker") == "sagemaker-metrics.BatchPutMetrics"


def test_a_target_of_another_service_than_the_signature_is_refused(router: Router) -> None:
    with pytest.raises(Unroutable):
        router.find(Request("POST", "/", "", {"x-amz-target": "SageMaker.DescribeModel"}), "ecr")


def test_query_services_are_told_by_action_in_body_or_query(router: Router) -> None:
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    assert found(router, Request("POST", "/", "", FORM, body), "sts") == "sts.GetCallerIdentity"
    assert found(router, Request("GET", "/", body.decode(), {}), "sts") == "sts.GetCallerIdentity"


def test_an_unsigned_query_is_told_by_its_version(router: Router) -> None:
    body = b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=x"
    assert found(router, Request("POST", "/", "", FORM, body), None) == "sts.AssumeRoleWithWebIdentity"


def test_what_is_unsigned_and_unknown_is_meant_for_s3(router: Router) -> None:
    assert found(router, Request("GET", "/bucket/key", "", {}), None) == "s3.GetObject"
    assert found(router, Request("GET", "/bucket", "", {}), None, "s3") == "s3.ListObjects"


def test_cloudwatch_is_found_by_each_of_its_protocols(router: Router) -> None:
    cbor = Request("POST", "/service/GraniteServiceVersion20100801/operation/ListMetrics", "", {})
    json = Request("POST", "/", "", {"x-amz-target": "GraniteServiceVersion20100801.ListMetrics"})
    query = Request("POST", "/", "", FORM, b"Action=ListMetrics&Version=2010-08-01")
    for request in (cbor, json, query):
        assert found(router, request, "monitoring") == "cloudwatch.ListMetrics"


@pytest.mark.parametrize(
    ("request_", "signing", "answer"),
    [
        (Request("POST", "/", "", {"x-amz-target": "SageMaker.Nope"}), "sagemaker", ("UnknownOperationException", 400)),
        (Request("POST", "/", "", {"x-amz-target": "Nope.Nope"}), "sagemaker", ("UnknownOperationException", 400)),
        (Request("POST", "/", "", FORM, b"Action=Nope&Version=2011-06-15"), "sts", ("InvalidAction", 400)),
        (Request("POST", "/", "", FORM, b"Version=2011-06-15"), "sts", ("MissingAction", 400)),
        (Request("POST", "/bucket", "", {}), "s3", ("MethodNotAllowed", 405)),
        (Request("GET", "/nowhere", "", {}), "lambda", ("UnknownOperationException", 404)),
        (Request("GET", "/", "", {}), "ec2", ("UnknownService", 501)),
        (
            Request("POST", "/", "", {"x-amz-target": "DynamoDB_20120810.ListTables"}),
            "dynamodb",
            ("UnknownService", 501),
        ),
    ],
)
def test_what_no_operation_answers_is_told_as_aws_tells_it(
    router: Router, request_: Request, signing: str, answer: tuple[str, int]
) -> None:
    with pytest.raises(Unroutable) as caught:
        router.find(request_, signing)
    assert (caught.value.code, caught.value.status) == answer


def test_a_router_reads_no_model_before_it_is_asked() -> None:
    service.cache_clear()
    Router(NAMES)
    assert service.cache_info().currsize == 0


def test_metadata_is_the_models_own() -> None:
    assert metadata("cloudwatch")["endpointPrefix"] == "monitoring"
    assert metadata("sagemaker")["targetPrefix"] == "SageMaker"


@pytest.mark.parametrize("name", ["nope", "../s3", ""])
def test_a_service_that_botocore_does_not_know_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        service(name)
    with pytest.raises(KeyError):
        metadata(name)


def test_an_operation_knows_what_requests_need() -> None:
    s3, sagemaker = service("s3"), service("sagemaker")
    put, pipeline = s3.operations["PutObject"], sagemaker.operations["CreatePipeline"]
    assert (put.streaming_input, put.method, put.required) == ("Body", "PUT", ("Bucket", "Key"))
    assert s3.operations["GetObject"].streaming_output == "Body"
    assert s3.operations["DeleteObject"].status == 204
    assert (pipeline.python_name, pipeline.idempotency_member) == ("create_pipeline", "ClientRequestToken")
    assert sagemaker.operations["ListModels"].paginator == {
        "input_token": "NextToken",
        "output_token": "NextToken",
        "limit_key": "MaxResults",
        "result_key": "Models",
    }
    assert sagemaker.operations["DescribeModel"].paginator is None


def test_coverage_counts_against_the_model() -> None:
    have, every = coverage("sts", {"GetCallerIdentity", "NotAnOperation"})
    assert have == ["GetCallerIdentity"]
    assert "AssumeRole" in every
