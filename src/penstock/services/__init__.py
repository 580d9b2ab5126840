"""The services. To add one: a folder of the one shape (house.md), and its name here."""

SERVICES = (
    *("sagemaker", "sagemaker-metrics", "s3", "sts", "iam", "logs", "ecr", "kms", "lambda", "sqs"),
    "resourcegroupstaggingapi",
)
