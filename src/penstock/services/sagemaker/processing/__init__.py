"""Processing jobs: a program between inputs and outputs in S3, run in a sandbox by SageMaker's container contract.

Real: inputs (also sharded), outputs at the end or while it runs, several instances, limits, stopping, messages, events.
Kept and shown: KMS keys, VPC, experiments.
"""
