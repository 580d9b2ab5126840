"""The algorithms that compete, each with its hyperparameters from the command line."""
import argparse

from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CLASSES = {
    "RandomForest": RandomForestClassifier,
    "GradientBoosting": GradientBoostingClassifier,
    "NeuralNet": MLPClassifier,
    "LogisticRegression": LogisticRegression,
    "NaiveBayes": GaussianNB,
}
TYPES = {
    "n-estimators": int, "max-depth": int, "learning-rate": float, "hidden-layer-sizes": int, "alpha": float, "C": float,
    "var-smoothing": float, "max-iter": int,
}
SEEDED = {"RandomForest", "GradientBoosting", "NeuralNet"}


def make(algorithm, hyperparameters):
    """A model with these hyperparameters (texts, named as on the command line)."""
    given = {name.replace("-", "_"): TYPES[name](value) for name, value in hyperparameters.items() if name in TYPES}
    if algorithm in SEEDED:
        given["random_state"] = 0
    return make_pipeline(StandardScaler(), CLASSES[algorithm](**given))


def read_arguments():
    """The algorithm, and the hyperparameters that were given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithm", required=True, choices=sorted(CLASSES))
    for name in TYPES:
        parser.add_argument(f"--{name}")
    given = vars(parser.parse_known_args()[0])
    algorithm = given.pop("algorithm")
    return algorithm, {name.replace("_", "-"): value for name, value in given.items() if value is not None}
