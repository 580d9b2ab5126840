"""Makes a role that SageMaker and the caller may assume, assumes it, and prints the credentials as JSON. Makes the default bucket.

The SDK's `get_execution_role()` wants a caller that is a role, not a user, so the suites run as this role. The bucket: with a
prefix set, as the suites have it, SDK v2 lists the default bucket before it would make it, and gives up on NoSuchBucket.
"""

from __future__ import annotations

import contextlib
import json
import sys

import boto3

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {
                "Service": [
                    "sagemaker.amazonaws.com",
                    "lambda.amazonaws.com",
                    "events.amazonaws.com",
                    "scheduler.amazonaws.com",
                ]
            },
        }
    ],
}
ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def main(name: str, region: str) -> None:
    account = boto3.client("sts", region).get_caller_identity()["Account"]
    iam = boto3.client("iam", region)
    try:
        arn = iam.get_role(RoleName=name)["Role"]["Arn"]
    except iam.exceptions.NoSuchEntityException:
        trust = json.loads(json.dumps(TRUST))
        trust["Statement"][0]["Principal"]["AWS"] = f"arn:aws:iam::{account}:root"
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        iam.put_role_policy(RoleName=name, PolicyName="everything", PolicyDocument=json.dumps(ALLOW))
    s3 = boto3.client("s3", region)
    for bucket in (f"sagemaker-{region}-{account}", f"sagemaker-custom-bucket-{region}-{account}"):
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
            s3.create_bucket(Bucket=bucket, **where)
    answer = boto3.client("sts", region).assume_role(RoleArn=arn, RoleSessionName="conformance")
    keys = answer["Credentials"]
    print(
        json.dumps(
            {
                "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
                "AWS_SESSION_TOKEN": keys["SessionToken"],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
