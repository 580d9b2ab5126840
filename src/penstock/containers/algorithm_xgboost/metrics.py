"""Evaluation metrics that the container adds to XGBoost's own: accuracy, f1, mse, precision, recall, r2 and their kin.

Differs: where XGBoost hands over probabilities (its `custom_metric`), a row counts as positive from 0.5 on;
AWS's newest container compares them with 0.
"""

import inspect

import numpy as np
import xgboost as xgb
from sagemaker_xgboost_container.callback import version


def _averaged(name, average):
    def score(labels, predicted):
        from sklearn import metrics

        return getattr(metrics, name)(labels, predicted, average=average)

    return score


def _plain(name):
    def score(labels, predicted):
        from sklearn import metrics

        return getattr(metrics, name)(labels, predicted)

    return score


CLASS_METRICS = {
    "accuracy": _plain("accuracy_score"),
    "balanced_accuracy": _plain("balanced_accuracy_score"),
    "f1": _averaged("f1_score", "macro"),
    "f1_binary": _averaged("f1_score", "binary"),
    "f1_macro": _averaged("f1_score", "macro"),
    "precision": _plain("precision_score"),
    "precision_macro": _averaged("precision_score", "macro"),
    "precision_micro": _averaged("precision_score", "micro"),
    "recall": _plain("recall_score"),
    "recall_macro": _averaged("recall_score", "macro"),
    "recall_micro": _averaged("recall_score", "micro"),
}
VALUE_METRICS = {"mse": _plain("mean_squared_error"), "r2": _plain("r2_score")}
TAKES_CUSTOM = "custom_metric" in inspect.signature(xgb.train).parameters
TRANSFORMED = TAKES_CUSTOM or version() < (1, 2)
"""Whether a metric gets probabilities; between 1.2 and the coming of `custom_metric` it gets margins."""


def split_metrics(tuned, asked):
    """(XGBoost's own metrics, ours), of the tuned and the asked ones together; None where none was named."""
    if tuned is None and asked is None:
        return None, []
    together = asked if tuned is None else tuned if asked is None else sorted(set(tuned) | set(asked))
    ours = [name for name in together if name in CLASS_METRICS or name in VALUE_METRICS]
    return [name for name in together if name not in ours], ours


def train_arguments(ours, parameters):
    """The keyword argument that makes xgb.train compute our metrics."""
    if not ours:
        return {}
    objective, classes = parameters.get("objective", ""), parameters.get("num_class")

    def evaluate(predictions, dmatrix):
        labels = dmatrix.get_label()
        values = np.asarray(predictions)
        classed = class_labels(values, len(labels), objective, classes)
        return [
            (
                name,
                float(
                    CLASS_METRICS[name](labels, classed)
                    if name in CLASS_METRICS
                    else VALUE_METRICS[name](labels, values)
                ),
            )
            for name in ours
        ]

    return {"custom_metric" if TAKES_CUSTOM else "feval": evaluate}


def class_labels(values, count, objective, classes):
    """Predictions, raw or transformed, as class labels."""
    if values.ndim == 2:
        return np.argmax(values, axis=-1)
    if classes and values.size == count * classes:
        return np.argmax(values.reshape(count, classes), axis=-1)
    if objective == "multi:softmax":
        return values
    # logitraw stays a margin; hinge is 0 or 1 once transformed
    bound = 0.5 if TRANSFORMED and objective != "binary:logitraw" else 0.0
    return (values > bound).astype(int)
