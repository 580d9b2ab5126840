"""Transform jobs: a model's containers, run in a sandbox beside a driver that sends them the objects of a prefix.

Real: splitting, batches, filters and joins, compression, several instances, inference pipelines, stopping, events.
Kept and shown: KMS keys, data capture, experiments.
"""
