"""Penstock: Amazon SageMaker pipelines, executed for real on your own machine, behind AWS's own wire protocols."""

__version__ = "0.1.0"


class Refused(Exception):
    """The operator is told: a setting that cannot be, a folder in use, no sandbox. The message is what the person reads."""

    code = 2
    """What the command ends with."""
