"""Removes what the pipeline made: the pipeline, models, endpoint configurations, artifacts in S3, and (--packages) the model packages."""
import argparse

import boto3

PIPELINE_NAME = "MLOpsPipeline"
MODEL_PACKAGE_GROUP = "mlops-pipeline-models"
PREFIX = "mlops-pipeline"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--packages", action="store_true", help="also delete the model packages and their group")
    args = parser.parse_args()
    sagemaker = boto3.client("sagemaker")
    account = boto3.client("sts").get_caller_identity()["Account"]
    bucket = boto3.resource("s3").Bucket(f"sagemaker-{sagemaker.meta.region_name}-{account}")

    try:
        sagemaker.delete_pipeline(PipelineName=PIPELINE_NAME)
        print(f"deleted pipeline {PIPELINE_NAME}")
    except sagemaker.exceptions.ResourceNotFound:
        print(f"no pipeline {PIPELINE_NAME}")

    for page in sagemaker.get_paginator("list_endpoint_configs").paginate():
        for config in page["EndpointConfigs"]:
            if PREFIX in config["EndpointConfigName"]:
                sagemaker.delete_endpoint_config(EndpointConfigName=config["EndpointConfigName"])
                print(f"deleted endpoint configuration {config['EndpointConfigName']}")

    for page in sagemaker.get_paginator("list_models").paginate():
        for model in page["Models"]:
            if PREFIX in model["ModelName"]:
                sagemaker.delete_model(ModelName=model["ModelName"])
                print(f"deleted model {model['ModelName']}")

    for prefix in (f"{PREFIX}/", f"{PIPELINE_NAME}/"):
        removed = sum(len(answer.get("Deleted", [])) for answer in bucket.objects.filter(Prefix=prefix).delete())
        print(f"deleted {removed} objects below s3://{bucket.name}/{prefix}")

    if args.packages:
        paginator = sagemaker.get_paginator("list_model_packages")
        for page in paginator.paginate(ModelPackageGroupName=MODEL_PACKAGE_GROUP):
            for package in page["ModelPackageSummaryList"]:
                sagemaker.delete_model_package(ModelPackageName=package["ModelPackageArn"])
                print(f"deleted {package['ModelPackageArn']}")
        sagemaker.delete_model_package_group(ModelPackageGroupName=MODEL_PACKAGE_GROUP)
        print(f"deleted model package group {MODEL_PACKAGE_GROUP}")


if __name__ == "__main__":
    main()
