"""SageMaker Metrics: points of a trial component's metrics.

Real: points are kept, summarised in DescribeTrialComponent and Search, and read back by period or iteration.
"""
