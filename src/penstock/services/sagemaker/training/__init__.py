"""Training jobs: scripts, built-in algorithms and programs of one's own, by SageMaker's container contract.

Real: channels, script mode, hyperparameters, several instances, limits, stopping, artifacts, metrics from the log,
checkpoints, managed spot training, events. Kept and shown: KMS keys, VPC, debugger, profiler, experiments, warm pools,
encryption, TensorBoard.
"""
