"""The model registry: groups, and in them the versions of a model, with their approval.

Real: versions count up, approval and every other update is told by an event, models are made of packages.
Kept and shown only: metrics, baselines, model cards, life cycle, resource policies, validation profiles (no
validation runs: a package is Completed at once).
"""
