"""What there is before the first hostile request: something of each kind, in two accounts; and every text seen in it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tests.conftest import ROOT, Boto

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Sid": "a", "Effect": "Allow", "Action": ["s3:*"], "Resource": "*", "Condition": {}}],
}
FAIL = {"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}
SMALL = {"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": [FAIL]}
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
FEW = 12
"""Texts of one member's name that are kept."""


def definitions() -> list[Any]:
    """Pipeline definitions to begin with."""
    data = ROOT / "tests" / "data"
    return [SMALL, *(json.loads(path.read_text()) for path in sorted(data.glob("pipeline_*.json")))]


@dataclass
class Stage:
    """A server under attack."""

    url: str
    front: int
    keys: dict[str, str]
    other: dict[str, str]
    folder: Path
    pool: dict[str, list[str]] = field(default_factory=dict)
    """Texts that answers held, by the member's name."""
    _botos: list[tuple[Boto, str]] = field(default_factory=list)

    @property
    def errors(self) -> Path:
        """The server's own log: it holds nothing but what must not happen."""
        return self.folder / "errors.log"

    def set(self) -> None:
        """Makes what is not there (hostile requests may have deleted it), and looks at all of it."""
        if not self._botos:
            self._botos = [(Boto(self.url, self.keys), ""), (Boto(self.url, self.other), "-other")]
        for boto, tail in self._botos:
            found = furnish(boto, tail)
            for name, texts in found.items():
                kept = self.pool.setdefault(name, [])
                kept += [text for text in sorted(texts) if text not in kept][: FEW - len(kept)]

    def close(self) -> None:
        for boto, _ in self._botos:
            boto.close()


@contextmanager
def raised(patience_s: float = 60.0) -> Iterator[Stage]:
    """A server of its own in a folder of its own, furnished."""
    with tempfile.TemporaryDirectory(prefix="penstock-fuzz-") as name:
        command = [sys.executable, "-m", "tests.fuzz.server", name, str(patience_s)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, env=dict(os.environ))
        assert process.stdin
        assert process.stdout
        try:
            about = json.loads(process.stdout.readline())
            stage = Stage(about["url"], about["front"], about["keys"], about["other"], Path(name))
            stage.set()
            yield stage
            stage.close()
        finally:
            process.stdin.close()
            process.wait(60)
            process.stdout.close()


def furnish(boto: Boto, tail: str) -> dict[str, set[str]]:
    """Gives the texts in the answers, by member."""
    texts: dict[str, set[str]] = defaultdict(set)

    def do(service: str, operation: str, **params: Any) -> dict[str, Any]:
        with suppress(ClientError):  # most of it is there
            answer: dict[str, Any] = getattr(boto(service), operation)(**params)
            answer.pop("ResponseMetadata", None)
            gather({**params, **answer}, "", texts)
            return answer
        return {}

    _objects(do, f"fuzz-bucket{tail}")
    _people(do, boto.account, tail)
    _models(do, boto.role, tail)
    _work(do, boto.role, tail)
    _keys(do, f"alias/fuzz{tail}")
    _functions(do, boto.role, tail)
    return texts


def gather(value: Any, name: str, texts: dict[str, set[str]]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            gather(inner, str(key), texts)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            gather(inner, name, texts)
    elif isinstance(value, str) and len(value) <= 300 and name not in ("SecretAccessKey", "SessionToken"):
        texts[name].add(value)


Do = Callable[..., dict[str, Any]]


def _objects(do: Do, bucket: str) -> None:
    do("s3", "create_bucket", Bucket=bucket)
    do("s3", "put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    do("s3", "put_object", Bucket=bucket, Key="key", Body=b"one", Metadata={"a": "b"}, ContentType="text/plain")
    do("s3", "put_object", Bucket=bucket, Key="folder/key", Body=b"x" * 70_000)
    do("s3", "put_object_tagging", Bucket=bucket, Key="key", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    upload = do("s3", "list_multipart_uploads", Bucket=bucket)
    if not upload.get("Uploads"):
        upload = do("s3", "create_multipart_upload", Bucket=bucket, Key="big")
        do("s3", "upload_part", Bucket=bucket, Key="big", UploadId=upload["UploadId"], PartNumber=1, Body=b"p")
    do("s3", "list_objects_v2", Bucket=bucket)
    do("s3", "list_object_versions", Bucket=bucket)


def _people(do: Do, account: str, tail: str) -> None:
    role, user, name = f"FuzzRole{tail}", f"fuzz-user{tail}", f"fuzz-policy{tail}"
    do("iam", "create_role", RoleName=role, AssumeRolePolicyDocument=json.dumps(TRUST))
    do("iam", "create_policy", PolicyName=name, PolicyDocument=json.dumps(POLICY))
    arn = f"arn:aws:iam::{account}:policy/{name}"
    do("iam", "attach_role_policy", RoleName=role, PolicyArn=arn)
    do("iam", "put_role_policy", RoleName=role, PolicyName="inline", PolicyDocument=json.dumps(POLICY))
    do("iam", "create_user", UserName=user)
    do("iam", "put_user_policy", UserName=user, PolicyName="inline", PolicyDocument=json.dumps(POLICY))
    if not do("iam", "list_access_keys", UserName=user).get("AccessKeyMetadata"):
        do("iam", "create_access_key", UserName=user)
    do("iam", "create_instance_profile", InstanceProfileName=f"fuzz{tail}")
    do("iam", "add_role_to_instance_profile", InstanceProfileName=f"fuzz{tail}", RoleName=role)
    do("iam", "get_role", RoleName=role)
    do("iam", "get_policy", PolicyArn=arn)
    do("logs", "create_log_group", logGroupName=f"fuzz{tail}")
    do("logs", "create_log_stream", logGroupName=f"fuzz{tail}", logStreamName="stream")
    do("logs", "describe_log_groups")
    do("logs", "describe_log_streams", logGroupName=f"fuzz{tail}")


def _keys(do: Do, alias: str) -> None:
    if not do("kms", "describe_key", KeyId=alias):
        key = do("kms", "create_key", Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"]["KeyId"]
        do("kms", "create_alias", AliasName=alias, TargetKeyId=key)
        principal = "arn:aws:iam::123456789012:role/FuzzRole"
        do("kms", "create_grant", KeyId=key, GranteePrincipal=principal, Operations=["Encrypt"])
    do("kms", "list_keys")
    do("resourcegroupstaggingapi", "get_resources")


def _functions(do: Do, role: str, tail: str) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as packed:
        packed.writestr("app.py", "")
    runtime, code = f"python3.{sys.version_info[1]}", {"ZipFile": held.getvalue()}
    do("lambda", "create_function", FunctionName=f"fuzz{tail}", Runtime=runtime, Handler="app.f", Role=role, Code=code)
    do("lambda", "get_function_configuration", FunctionName=f"fuzz{tail}")


def _models(do: Do, role: str, tail: str) -> None:
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://fuzz-bucket{tail}/key"}
    do("sagemaker", "create_model", ModelName=f"fuzz{tail}", PrimaryContainer=container, ExecutionRoleArn=role)
    variant = {"VariantName": "v", "ModelName": f"fuzz{tail}", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    do("sagemaker", "create_endpoint_config", EndpointConfigName=f"fuzz{tail}", ProductionVariants=[variant])
    group = f"fuzz{tail}"
    do("sagemaker", "create_model_package_group", ModelPackageGroupName=group)
    if not do("sagemaker", "list_model_packages", ModelPackageGroupName=group).get("ModelPackageSummaryList"):
        do("sagemaker", "create_model_package", ModelPackageGroupName=group, ModelApprovalStatus="Approved")
    for operation in ("list_models", "list_model_packages", "list_model_package_groups", "list_endpoint_configs"):
        do("sagemaker", operation)


def _work(do: Do, role: str, tail: str) -> None:
    name = f"fuzz{tail}"
    do("sagemaker", "create_experiment", ExperimentName=name)
    do("sagemaker", "create_trial", TrialName=name, ExperimentName=name)
    do("sagemaker", "create_trial_component", TrialComponentName=name)
    do("sagemaker", "associate_trial_component", TrialName=name, TrialComponentName=name)
    do("sagemaker", "create_pipeline", PipelineName=name, PipelineDefinition=json.dumps(SMALL), RoleArn=role)
    do("sagemaker", "start_pipeline_execution", PipelineName=name)
    do("sagemaker", "list_pipeline_executions", PipelineName=name)
    cluster = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
    do(
        "sagemaker", "create_processing_job", ProcessingJobName=name, RoleArn=role,
        AppSpecification={"ImageUri": IMAGE, "ContainerEntrypoint": ["true"]},
        ProcessingResources={"ClusterConfig": cluster},
    )  # fmt: skip
    do(
        "sagemaker", "create_training_job", TrainingJobName=name, RoleArn=role,
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": f"s3://fuzz-bucket{tail}/out"}, ResourceConfig=cluster,
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )  # fmt: skip
    for operation in ("list_experiments", "list_trials", "list_pipelines", "list_training_jobs"):
        do("sagemaker", operation)
