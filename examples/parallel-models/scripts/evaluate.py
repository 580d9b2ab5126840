"""How much of the squared error that the mean of the labels would make the model takes away: 1 is perfect, 0 no better."""
import json
import os
import tarfile

import pandas as pd
import xgboost

BASE = "/opt/ml/processing"

if __name__ == "__main__":
    with tarfile.open(os.path.join(BASE, "model", "model.tar.gz")) as archive:
        archive.extractall(path="/tmp/model")
    model = xgboost.Booster()
    model.load_model("/tmp/model/xgboost-model")

    test = pd.read_csv(os.path.join(BASE, "test", "test.csv"), header=None)
    label = test.pop(0).to_numpy()
    error = float(((label - model.predict(xgboost.DMatrix(test.to_numpy()))) ** 2).mean())
    skill = 1 - error / float(label.var())
    print(f"mean squared error {error:.4f}, skill {skill:.4f}")

    os.makedirs(os.path.join(BASE, "evaluation"), exist_ok=True)
    with open(os.path.join(BASE, "evaluation", "evaluation.json"), "w") as file:
        json.dump({"skill": {"value": round(skill, 6)}, "mean_squared_error": {"value": round(error, 6)}}, file, indent=2)
