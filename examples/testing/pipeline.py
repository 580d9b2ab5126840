"""A pipeline of one's own: it cleans a table, and refuses one with too many holes."""

import json

import boto3

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
REPORT = "/opt/ml/processing/report"


def definition(role: str, code_uri: str) -> dict:
    clean = {
        "Name": "Clean",
        "Type": "Processing",
        "Arguments": {
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.t3.medium", "VolumeSizeInGB": 5}
            },
            "AppSpecification": {
                "ImageUri": IMAGE,
                "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/clean.py"],
            },
            "RoleArn": role,
            "ProcessingInputs": [
                source("table", {"Get": "Parameters.Table"}, "/opt/ml/processing/input"),
                source("code", code_uri, "/opt/ml/processing/code"),
            ],
            "ProcessingOutputConfig": {
                "Outputs": [target("table", "/opt/ml/processing/output", "clean"), target("report", REPORT, "report")]
            },
        },
        "PropertyFiles": [{"PropertyFileName": "Report", "OutputName": "report", "FilePath": "report.json"}],
    }
    share = {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Clean.PropertyFiles.Report"}, "Path": "holes"}}
    gate = {
        "Name": "FewHoles",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [
                {"Type": "LessThanOrEqualTo", "LeftValue": share, "RightValue": {"Get": "Parameters.MostHoles"}}
            ],
            "IfSteps": [],
            "ElseSteps": [
                {"Name": "TooManyHoles", "Type": "Fail", "Arguments": {"ErrorMessage": "The table has too many holes."}}
            ],
        },
    }
    return {
        "Version": "2020-12-01",
        "Parameters": [
            {"Name": "Table", "Type": "String"},
            {"Name": "Target", "Type": "String"},
            {"Name": "MostHoles", "Type": "Float", "DefaultValue": 0.2},
        ],
        "Steps": [clean, gate],
    }


def source(name: str, uri, path: str) -> dict:
    place = {"S3Uri": uri, "LocalPath": path, "S3DataType": "S3Prefix", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": place}


def target(name: str, path: str, folder: str) -> dict:
    uri = {"Std:Join": {"On": "/", "Values": [{"Get": "Parameters.Target"}, folder]}}
    return {"OutputName": name, "S3Output": {"S3Uri": uri, "LocalPath": path, "S3UploadMode": "EndOfJob"}}


def create(name: str, role: str, bucket: str) -> str:
    """What a deployment does: uploads the script and makes the pipeline."""
    boto3.client("s3").upload_file("clean.py", bucket, f"{name}/code/clean.py")
    text = json.dumps(definition(role, f"s3://{bucket}/{name}/code/clean.py"))
    made = boto3.client("sagemaker").create_pipeline(
        PipelineName=name, PipelineDefinition=text, RoleArn=role, ClientRequestToken=f"{name:-<32}"
    )
    return made["PipelineArn"]
