"""Metrics and curves of the model on the test split."""
import argparse
import json
import sys
import tarfile

import joblib
import pandas as pd
from sklearn import metrics
from sklearn.preprocessing import label_binarize

OUT = "/opt/ml/processing/evaluation"

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--register-metric", default="auc")
    args = parser.parse_args()

    with tarfile.open("/opt/ml/processing/model/model.tar.gz") as tar:
        tar.extractall("/tmp/model")
    model = joblib.load("/tmp/model/model.joblib")
    table = pd.read_csv("/opt/ml/processing/test/dataset.csv")
    features, target = table.drop(columns="target"), table["target"]
    predicted, chances = model.predict(features), model.predict_proba(features)
    binary = chances.shape[1] == 2
    found = {
        "accuracy": metrics.accuracy_score(target, predicted),
        "precision": metrics.precision_score(target, predicted, average="macro"),
        "recall": metrics.recall_score(target, predicted, average="macro"),
        "f1": metrics.f1_score(target, predicted, average="macro"),
        "auc": metrics.roc_auc_score(target, chances[:, 1] if binary else chances, multi_class="ovr"),
    }
    if args.register_metric not in found:
        sys.exit(f"There is no metric {args.register_metric}: {', '.join(found)}")

    curves = {}
    truth = label_binarize(target, classes=model.classes_)
    for column, name in enumerate(model.classes_):
        known = (target == name).astype(int) if binary else truth[:, column]
        false_rate, true_rate, _ = metrics.roc_curve(known, chances[:, column])
        precision, recall, _ = metrics.precision_recall_curve(known, chances[:, column])
        curves[str(name)] = {
            "roc": [false_rate.tolist(), true_rate.tolist()],
            "precision_recall": [recall.tolist(), precision.tolist()],
        }
    report = {
        "metrics": {name: {"value": float(value)} for name, value in found.items()},
        "register_metric": {"name": args.register_metric, "value": float(found[args.register_metric])},
        "confusion_matrix": metrics.confusion_matrix(target, predicted).tolist(),
    }
    with open(f"{OUT}/evaluation.json", "w") as file:
        json.dump(report, file, indent=2)
    with open(f"{OUT}/curves.json", "w") as file:
        json.dump(curves, file)
    print(json.dumps(report["metrics"]))
