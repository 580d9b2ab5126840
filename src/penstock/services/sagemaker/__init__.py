"""SageMaker: pipelines, the jobs they start, and the resources they make.

A folder of folders; each has the one shape of a service (state, api, engine, rules).
"""

FOLDERS = ("models", "endpoints", "registry", "processing", "training", "transform", "tuning", "pipelines", "experiments", "lineage")
