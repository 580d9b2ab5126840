"""Managed policies, wherever they come from: the account's own documents, and AWS's.

Every ARN of AWS's (`arn:aws:iam::aws:policy/…`) answers as existing and can be attached.
Differs: of AWS's managed policies only a few texts are here; another one's GetPolicyVersion says that it is not.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter

from penstock.kernel.call import Call
from penstock.services.iam.state import POLICY, ROLE, USER, nothing
from penstock.store.records import Document, Query

AWS = "arn:aws:iam::aws:policy"
NAMES = (
    "/AdministratorAccess",
    "/AmazonAthenaFullAccess",
    "/AmazonEC2ContainerRegistryFullAccess",
    "/AmazonEC2ContainerRegistryReadOnly",
    "/AmazonEventBridgeFullAccess",
    "/AmazonS3FullAccess",
    "/AmazonS3ReadOnlyAccess",
    "/AmazonSageMakerFullAccess",
    "/AmazonSageMakerFeatureStoreAccess",
    "/AmazonSageMakerModelRegistryFullAccess",
    "/AmazonSageMakerPipelinesIntegrations",
    "/AmazonSageMakerReadOnly",
    "/AmazonSNSFullAccess",
    "/AmazonSQSFullAccess",
    "/AWSCodeBuildAdminAccess",
    "/AWSCodeCommitFullAccess",
    "/AWSCodePipeline_FullAccess",
    "/AWSGlueConsoleFullAccess",
    "/AWSLambda_FullAccess",
    "/AWSStepFunctionsFullAccess",
    "/CloudWatchFullAccess",
    "/CloudWatchLogsFullAccess",
    "/IAMFullAccess",
    "/IAMReadOnlyAccess",
    "/PowerUserAccess",
    "/ReadOnlyAccess",
    "/service-role/AWSGlueServiceRole",
    "/service-role/AWSLambdaBasicExecutionRole",
    "/service-role/AWSLambdaRole",
)
"""What lists show of AWS's. Source: the AWS managed policy reference."""


def _all_of(*actions: str) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}
    )


TEXTS = {
    "/AdministratorAccess": json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    ),
    "/AmazonS3FullAccess": _all_of("s3:*", "s3-object-lambda:*"),
    "/AmazonSQSFullAccess": _all_of("sqs:*"),
    "/service-role/AWSLambdaBasicExecutionRole": _all_of(
        "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"
    ),
}


def find_policy(call: Call, arn: str, sentence: str = POLICY.missing[1]) -> Document:
    """The policy of an ARN; AWS's are documents with version 0, that nobody puts.

    Raises: ServiceError NoSuchEntity.
    """
    if arn.startswith(AWS + "/"):
        return aws_policy(arn.removeprefix(AWS))
    found = POLICY.find(call, arn)
    if found is None:
        raise nothing(sentence.format(name=arn))
    return found


def aws_policy(full_name: str) -> Document:
    """AWS's policy of that path and name."""
    path, _, name = full_name.rpartition("/")
    unique = "ANPA" + hashlib.sha256(full_name.encode()).hexdigest()[:17].upper()
    version = {
        "VersionId": "v1",
        "IsDefaultVersion": True,
        "CreateDate": 1_420_070_400.0,
        "Document": TEXTS.get(full_name),
    }
    body = {
        "PolicyName": name,
        "PolicyId": unique,
        "Arn": AWS + full_name,
        "Path": path + "/",
        "DefaultVersionId": "v1",
        "CreateDate": 1_420_070_400.0,
        "UpdateDate": 1_420_070_400.0,
        "_versions": [version],
    }
    return Document(
        kind=POLICY.kind, account="aws", region="", name=name, arn=AWS + full_name, label=path + "/", body=body
    )


def holders(call: Call) -> list[Document]:
    """All roles and users of the account."""
    return [
        document
        for resource in (ROLE, USER)
        for document in call.app.store.page(Query(kind=resource.kind, account=call.account, order="name", limit=10_000))
    ]


def attachments(call: Call) -> tuple[Counter[str], Counter[str]]:
    """How often each policy is attached, and how often it is a boundary, by ARN."""
    attached: Counter[str] = Counter()
    bounding: Counter[str] = Counter()
    for document in holders(call):
        attached.update(document.body["_attached"])
        if boundary := document.body.get("PermissionsBoundary"):
            bounding[boundary["PermissionsBoundaryArn"]] += 1
    return attached, bounding
