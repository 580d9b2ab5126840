"""Cross-validates one algorithm with the hyperparameters it is given, and fits it."""
import os
import warnings

import joblib
import pandas as pd
from sklearn.model_selection import cross_val_score

import algorithms

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    algorithm, hyperparameters = algorithms.read_arguments()
    table = pd.read_csv(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "dataset.csv"))
    features, target = table.drop(columns="target"), table["target"]
    model = algorithms.make(algorithm, hyperparameters)
    scores = cross_val_score(model, features, target, cv=5, scoring="roc_auc_ovr")
    print(f"{algorithm} {hyperparameters}")
    print(f"Cross-Validation Score: {scores.mean():.6f}")
    joblib.dump(model.fit(features, target), os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
