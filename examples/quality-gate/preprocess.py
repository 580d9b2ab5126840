"""Preprocessing: encodes the features and splits the data into train, validation and test sets."""
import argparse
import os

import pandas as pd
from sklearn.model_selection import train_test_split

BASE = "/opt/ml/processing"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--test-size", type=float, default=0.2)
    parser.add_argument("--validation-size", type=float, default=0.1)
    args = parser.parse_args()

    frame = pd.read_csv(os.path.join(BASE, "input", "bank-additional.csv"))
    print(f"read {len(frame)} rows, {frame.shape[1]} columns")

    # The call's duration is known only after the call: a model for choosing whom to call cannot use it.
    frame = frame.drop(columns=["duration"])
    label = (frame.pop("y") == "yes").astype(int)
    features = pd.get_dummies(frame).astype(float)

    # The built-in XGBoost algorithm wants the label first and no header.
    table = pd.concat([label.rename("label"), features], axis=1)
    rest, test = train_test_split(table, test_size=args.test_size, random_state=42, stratify=table["label"])
    train, validation = train_test_split(
        rest, test_size=args.validation_size / (1 - args.test_size), random_state=42, stratify=rest["label"]
    )

    for name, part in (("train", train), ("validation", validation), ("test", test)):
        folder = os.path.join(BASE, name)
        os.makedirs(folder, exist_ok=True)
        part.to_csv(os.path.join(folder, f"{name}.csv"), header=False, index=False)
        print(f"{name}: {len(part)} rows, {part['label'].mean():.1%} positive")


if __name__ == "__main__":
    main()
