"""The metrics that AWS's built-in XGBoost algorithm publishes: names, and the expressions that find them in its log.

Source: docs.aws.amazon.com/sagemaker/latest/dg/xgboost-tuning.html; the names in the container's
algorithm_mode/metrics.py and constants/xgb_constants.py; the expression as DescribeTrainingJob shows it.
"""

from __future__ import annotations

_NAMES = (
    "accuracy",
    "auc",
    "aucpr",
    "balanced_accuracy",
    "f1",
    "f1_binary",
    "f1_macro",
    "map",
    "ndcg",
    "precision",
    "r2",
    "recall",
    "precision_macro",
    "precision_micro",
    "recall_macro",
    "recall_micro",
    "aft-nloglik",
    "cox-nloglik",
    "error",
    "gamma-deviance",
    "gamma-nloglik",
    "interval-regression-accuracy",
    "logloss",
    "mae",
    "mape",
    "merror",
    "mlogloss",
    "mphe",
    "mse",
    "poisson-nloglik",
    "rmse",
    "rmsle",
    "tweedie-nloglik",
)
_NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"

XGBOOST_METRICS = tuple(
    {"Name": f"{data}:{name}", "Regex": rf".*\[[0-9]+\].*#011{data}-{name}:{_NUMBER}.*"}
    for data in ("train", "validation")
    for name in _NAMES
)
