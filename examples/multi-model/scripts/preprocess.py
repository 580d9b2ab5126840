"""Reads one of scikit-learn's data sets and splits it."""
import argparse

from sklearn import datasets
from sklearn.model_selection import train_test_split

LOADERS = {"breast-cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True, choices=sorted(LOADERS))
    parser.add_argument("--test-size", type=float, default=0.2)
    parser.add_argument("--random-state", type=int, default=42)
    args = parser.parse_args()

    table = LOADERS[args.dataset](as_frame=True).frame
    train, test = train_test_split(
        table, test_size=args.test_size, stratify=table["target"], random_state=args.random_state
    )
    train.to_csv("/opt/ml/processing/train/dataset.csv", index=False)
    test.to_csv("/opt/ml/processing/test/dataset.csv", index=False)
    print(f"{args.dataset}: {len(train)} rows to train, {len(test)} to test, {table.shape[1] - 1} features")
