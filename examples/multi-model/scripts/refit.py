"""Fits the best of the tuning job's algorithms again, with its hyperparameters, on all of the training data."""
import argparse
import json
import os

import boto3
import joblib
import pandas as pd

import algorithms

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--best-training-job", required=True)
    args, _ = parser.parse_known_args()

    job = boto3.client("sagemaker").describe_training_job(TrainingJobName=args.best_training_job)
    given = {name: json.loads(value) for name, value in job["HyperParameters"].items() if not name.startswith(("sagemaker_", "_"))}
    algorithm = given.pop("algorithm")
    print(f"The best was {args.best_training_job}: {algorithm} {given}")
    table = pd.read_csv(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "dataset.csv"))
    model = algorithms.make(algorithm, given).fit(table.drop(columns="target"), table["target"])
    joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
