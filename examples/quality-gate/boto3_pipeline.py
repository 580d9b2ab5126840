"""The same pipeline without the SageMaker SDK: the definition as JSON, through boto3 alone.

python3 boto3_pipeline.py          creates or updates the pipeline, starts it, and waits for its end
"""
import json
import os
import sys
import time

import boto3

HERE = os.path.dirname(os.path.abspath(__file__))
PIPELINE_NAME = "MLOpsPipeline-boto3"
MODEL_PACKAGE_GROUP = "mlops-pipeline-models"
PREFIX = "mlops-pipeline"
# The registries that hold AWS's images in us-east-1.
SKLEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
XGBOOST = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"

PROCESSING_CLUSTER = {
    "ClusterConfig": {"InstanceType": {"Get": "Parameters.ProcessingInstanceType"}, "InstanceCount": 1, "VolumeSizeInGB": 30}
}


def s3_input(name, uri, path):
    return {
        "InputName": name,
        "AppManaged": False,
        "S3Input": {
            "S3Uri": uri,
            "LocalPath": path,
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
            "S3DataDistributionType": "FullyReplicated",
            "S3CompressionType": "None",
        },
    }


def s3_output(name, uri):
    return {
        "OutputName": name,
        "AppManaged": False,
        "S3Output": {"S3Uri": uri, "LocalPath": f"/opt/ml/processing/{name}", "S3UploadMode": "EndOfJob"},
    }


def output_of(step, name):
    return {"Get": f"Steps.{step}.ProcessingOutputConfig.Outputs['{name}'].S3Output.S3Uri"}


def channel(name):
    return {
        "ChannelName": name,
        "ContentType": "text/csv",
        "DataSource": {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": output_of("PreprocessData", name),
                "S3DataDistributionType": "FullyReplicated",
            }
        },
    }


def definition(bucket, role):
    base = f"s3://{bucket}/{PREFIX}"
    run = {"Std:Join": {"On": "/", "Values": [base, "runs", {"Get": "Execution.PipelineExecutionId"}]}}

    def below(name):
        return {"Std:Join": {"On": "/", "Values": [run, name]}}

    artifacts = {"Get": "Steps.TrainModel.ModelArtifacts.S3ModelArtifacts"}
    preprocess = {
        "Name": "PreprocessData",
        "Type": "Processing",
        "Arguments": {
            "ProcessingResources": PROCESSING_CLUSTER,
            "AppSpecification": {
                "ImageUri": SKLEARN,
                "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/code/preprocess.py"],
                "ContainerArguments": ["--test-size", "0.2"],
            },
            "RoleArn": role,
            "ProcessingInputs": [
                s3_input("data", f"{base}/data/bank-additional.csv", "/opt/ml/processing/input"),
                s3_input("code", f"{base}/code/preprocess.py", "/opt/ml/processing/input/code"),
            ],
            "ProcessingOutputConfig": {"Outputs": [s3_output(n, below(n)) for n in ("train", "validation", "test")]},
        },
    }
    train = {
        "Name": "TrainModel",
        "Type": "Training",
        "Arguments": {
            "AlgorithmSpecification": {"TrainingImage": XGBOOST, "TrainingInputMode": "File"},
            "HyperParameters": {
                "objective": "binary:logistic",
                "eval_metric": "auc",
                "num_round": "100",
                "max_depth": "4",
                "eta": "0.1",
                "subsample": "0.8",
                "seed": "42",
            },
            "InputDataConfig": [channel("train"), channel("validation")],
            "OutputDataConfig": {"S3OutputPath": f"{base}/models"},
            "ResourceConfig": {
                "InstanceType": {"Get": "Parameters.TrainingInstanceType"},
                "InstanceCount": 1,
                "VolumeSizeInGB": 30,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            "RoleArn": role,
        },
    }
    evaluate = {
        "Name": "EvaluateModel",
        "Type": "Processing",
        "Arguments": {
            "ProcessingResources": PROCESSING_CLUSTER,
            "AppSpecification": {
                "ImageUri": XGBOOST,
                "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/code/evaluate.py"],
            },
            "RoleArn": role,
            "ProcessingInputs": [
                s3_input("model", artifacts, "/opt/ml/processing/model"),
                s3_input("test", output_of("PreprocessData", "test"), "/opt/ml/processing/test"),
                s3_input("code", f"{base}/code/evaluate.py", "/opt/ml/processing/input/code"),
            ],
            "ProcessingOutputConfig": {"Outputs": [s3_output("evaluation", below("evaluation"))]},
        },
        "PropertyFiles": [
            {"PropertyFileName": "EvaluationReport", "OutputName": "evaluation", "FilePath": "evaluation.json"}
        ],
    }
    register = {
        "Name": "RegisterModel",
        "Type": "RegisterModel",
        "Arguments": {
            "ModelPackageGroupName": MODEL_PACKAGE_GROUP,
            "ModelApprovalStatus": "PendingManualApproval",
            "InferenceSpecification": {
                "Containers": [{"Image": XGBOOST, "ModelDataUrl": artifacts}],
                "SupportedContentTypes": ["text/csv"],
                "SupportedResponseMIMETypes": ["text/csv"],
                "SupportedRealtimeInferenceInstanceTypes": ["ml.t2.medium", "ml.m5.xlarge"],
                "SupportedTransformInstanceTypes": ["ml.m5.xlarge"],
            },
            "ModelMetrics": {
                "ModelQuality": {
                    "Statistics": {
                        "ContentType": "application/json",
                        "S3Uri": {
                            "Std:Join": {"On": "/", "Values": [output_of("EvaluateModel", "evaluation"), "evaluation.json"]}
                        },
                    }
                }
            },
        },
    }
    check = {
        "Name": "CheckAccuracy",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [
                {
                    "Type": "GreaterThanOrEqualTo",
                    "LeftValue": {
                        "Std:JsonGet": {
                            "PropertyFile": {"Get": "Steps.EvaluateModel.PropertyFiles.EvaluationReport"},
                            "Path": "metrics.accuracy.value",
                        }
                    },
                    "RightValue": {"Get": "Parameters.AccuracyThreshold"},
                }
            ],
            "IfSteps": [register],
            "ElseSteps": [],
        },
    }
    return {
        "Version": "2020-12-01",
        "Metadata": {},
        "Parameters": [
            {"Name": "ProcessingInstanceType", "Type": "String", "DefaultValue": "ml.m5.xlarge"},
            {"Name": "TrainingInstanceType", "Type": "String", "DefaultValue": "ml.m5.xlarge"},
            {"Name": "AccuracyThreshold", "Type": "Float", "DefaultValue": 0.75},
        ],
        "Steps": [preprocess, train, evaluate, check],
    }


def main():
    client = boto3.client("sagemaker")
    s3 = boto3.client("s3")
    account = boto3.client("sts").get_caller_identity()["Account"]
    region = client.meta.region_name
    bucket = f"sagemaker-{region}-{account}"
    role = boto3.client("iam").get_role(RoleName="SageMakerExecutionRole")["Role"]["Arn"]

    try:
        s3.head_bucket(Bucket=bucket)
    except s3.exceptions.ClientError:
        location = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=bucket, **location)
    s3.upload_file(os.path.join(HERE, "data", "bank-additional.csv"), bucket, f"{PREFIX}/data/bank-additional.csv")
    for script in ("preprocess.py", "evaluate.py"):
        s3.upload_file(os.path.join(HERE, script), bucket, f"{PREFIX}/code/{script}")

    text = json.dumps(definition(bucket, role))
    try:
        client.create_pipeline(
            PipelineName=PIPELINE_NAME, PipelineDefinition=text, RoleArn=role, ClientRequestToken=f"{time.time_ns():032d}"
        )
    except client.exceptions.ClientError as error:
        if "already exists" not in str(error):
            raise
        client.update_pipeline(PipelineName=PIPELINE_NAME, PipelineDefinition=text, RoleArn=role)

    arn = client.start_pipeline_execution(PipelineName=PIPELINE_NAME)["PipelineExecutionArn"]
    print(f"Execution ARN: {arn}")
    while True:
        execution = client.describe_pipeline_execution(PipelineExecutionArn=arn)
        if execution["PipelineExecutionStatus"] in ("Succeeded", "Failed", "Stopped"):
            print(f"Execution {execution['PipelineExecutionStatus']} {execution.get('FailureReason', '')}")
            sys.exit(0 if execution["PipelineExecutionStatus"] == "Succeeded" else 1)
        time.sleep(0.5)


if __name__ == "__main__":
    main()
