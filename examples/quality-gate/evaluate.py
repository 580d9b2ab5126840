"""Evaluation: loads the trained model, predicts the test set, and writes what the quality gate reads."""
import json
import os
import tarfile

import numpy as np
import pandas as pd
import xgboost
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

BASE = "/opt/ml/processing"


def main():
    with tarfile.open(os.path.join(BASE, "model", "model.tar.gz")) as archive:
        archive.extractall(path="/tmp/model")
    model = xgboost.Booster()
    model.load_model("/tmp/model/xgboost-model")

    test = pd.read_csv(os.path.join(BASE, "test", "test.csv"), header=None)
    label = test.pop(0).to_numpy()
    probability = model.predict(xgboost.DMatrix(test.to_numpy()))
    predicted = (probability > 0.5).astype(int)

    metrics = {
        "accuracy": accuracy_score(label, predicted),
        "precision": precision_score(label, predicted, zero_division=0),
        "recall": recall_score(label, predicted),
        "f1": f1_score(label, predicted),
        "auc": roc_auc_score(label, probability),
    }
    for name, value in metrics.items():
        print(f"{name}: {value:.4f}")

    report = {"metrics": {name: {"value": float(np.round(value, 6))} for name, value in metrics.items()}}
    os.makedirs(os.path.join(BASE, "evaluation"), exist_ok=True)
    with open(os.path.join(BASE, "evaluation", "evaluation.json"), "w") as file:
        json.dump(report, file, indent=2)


if __name__ == "__main__":
    main()
