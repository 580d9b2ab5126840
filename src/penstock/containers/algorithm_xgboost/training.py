"""One training job: configuration in, model out, evaluation lines on the way."""

import json
import logging
import os
import pickle
import signal
import sys
import traceback
import warnings

import xgboost as xgb
from sagemaker_algorithm_toolkit.exceptions import AlgorithmError, BaseToolkitError, UserError
from sagemaker_xgboost_container import callback, checkpointing, data_utils, distributed
from sagemaker_xgboost_container.constants.xgb_constants import MODEL_NAME, XGB_MAXIMIZE_METRICS

from algorithm_xgboost.hyperparameters import validate_hyperparameters
from algorithm_xgboost.metrics import split_metrics, train_arguments

TAB = "#011"
"""How a tab is shown in CloudWatch, and what metric expressions look for."""
USER_FAULTS = (
    "label must be in [0,1]",
    "label must be in [0, num_class)",
    "Target is multiclass but average='binary'",
    "feature_names mismatch",
    "preds.size() == info.labels",
    "dataset only contains pos or neg samples",
    "base_score must be in (0,1)",
    "label must be nonnegative",
    "reg_lambda should be greater equal to 0",
)


class Paths:
    """The folders of the container contract, under `/opt/ml` or SAGEMAKER_BASE_DIR."""

    def __init__(self):
        self.base = os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")
        self.model = os.environ.get("SM_MODEL_DIR") or self.at("model")
        self.output_data = os.environ.get("SM_OUTPUT_DATA_DIR") or self.at("output", "data")

    def at(self, *parts):
        return os.path.join(self.base, *parts)

    def read(self, name, default):
        path = self.at("input", "config", name)
        if not os.path.exists(path):
            return default
        with open(path) as f:
            return json.load(f)

    def channel(self, name):
        return self.at("input", "data", name)

    def checkpoints(self):
        """The checkpoint folder where the job has one, else None."""
        config = self.read("checkpointconfig.json", None)
        folder = (config or {}).get("LocalPath") or self.at("checkpoints")
        return folder if config or os.path.isdir(folder) else None


def main():
    """Runs the job. Gives: the exit code; what went wrong is in the log and in output/failure."""
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.INFO,
        format="[%(asctime)s:%(levelname)s] %(message)s",
        datefmt="%Y-%m-%d:%H:%M:%S",
    )
    warnings.simplefilter("ignore", FutureWarning)  # XGBoost's, about reading libsvm files
    paths = Paths()
    try:
        logging.info("Running XGBoost Sagemaker in algorithm mode")
        run_job(paths)
    except Exception as e:
        logging.error("framework error: \n%s", traceback.format_exc())
        name = type(e).__name__ if isinstance(e, BaseToolkitError) else f"AlgorithmError: {type(e).__name__}"
        os.makedirs(paths.at("output"), exist_ok=True)
        with open(paths.at("output", "failure"), "w") as f:
            f.write(f"framework error: \n{name}: {e}")
        return 1
    return 0


def run_job(paths):
    """Validates, loads the channels, trains alone or with the other instances."""
    parameters = validate_hyperparameters(paths.read("hyperparameters.json", {}), callback.version())
    channels = check_channels(paths.read("inputdataconfig.json", {}))
    resources = paths.read("resourceconfig.json", {"current_host": "algo-1", "hosts": ["algo-1"]})
    hosts, host = resources["hosts"], resources["current_host"]
    train, validation, together = load_channels(paths, channels, parameters)
    arguments = {
        "paths": paths,
        "parameters": parameters,
        "train": train,
        "validation": validation,
        "together": together,
    }
    if len(hosts) == 1:
        if train is None:
            raise UserError("No data in training channel path {}".format(paths.channel("train")))
        if "validation" in channels and validation is None:
            raise UserError("No data in validation channel path {}".format(paths.channel("validation")))
        logging.info("Single node training.")
        train_job(is_master=True, **arguments)
        return
    if "_kfold" in parameters:
        raise UserError("Cross validation (_kfold) runs on one instance only.")
    logging.info("Distributed node training with %d hosts: %s", len(hosts), hosts)
    distributed.wait_hostname_resolution(hosts)
    complete = train is not None and not ("validation" in channels and validation is None)
    if not complete:
        logging.warning("Host %s has no training or validation data and takes no part in training.", host)
    distributed.rabit_run(train_job, arguments, complete, hosts, host, update_rabit_args=True)


def check_channels(given):
    """The channels that the algorithm reads, with a content type each."""
    if "train" not in given:
        raise UserError("Missing required channel: train")
    found = {}
    for name, config in given.items():
        if name not in ("train", "validation", "code"):
            raise UserError(f"Extraneous channel found: {name}")
        if config.get("TrainingInputMode", "File") == "Pipe":
            raise UserError(f"Channel {name}: Pipe mode is not served here, use File or FastFile mode.")
        if name != "code":
            found[name] = data_utils.get_content_type(config.get("ContentType") or None)
    return found


def load_channels(paths, channels, parameters):
    """(train, validation, both) as DMatrix; None where there is no data. `both` differs from train for _kfold."""
    weights = parameters.pop("csv_weights", 0)
    loaded, files = {}, {}
    for name, content_type in channels.items():
        path = paths.channel(name)
        if data_utils.get_size(path) > 0:
            data_utils.validate_data_file_path(path, content_type)
            loaded[name] = data_utils.get_dmatrix(path, content_type, csv_weights=weights)
            files[name] = path
    if len(files) == 2:
        data_utils.check_data_redundancy(files["train"], files["validation"])
    both = loaded.get("train")
    if "_kfold" in parameters and len(files) == 2:
        logging.info("Read both train and validation data into one DMatrix")
        both = data_utils.get_dmatrix(list(files.values()), channels["train"], csv_weights=weights)
    return loaded.get("train"), loaded.get("validation"), both


def train_job(paths, parameters, train, validation, together, is_master):
    """Trains on this instance's data and saves the model where this is the first worker."""
    parameters = dict(parameters)
    rounds = parameters.pop("num_round")
    stopping = parameters.pop("early_stopping_rounds", None)
    termination = parameters.pop("save_model_on_termination", "false") == "true"
    folds, repeats = parameters.pop("_kfold", None), parameters.pop("_num_cv_round", 1)
    tuned = parameters.pop("_tuning_objective_metric", None)
    tuned = tuned.split(":")[-1].split(",") if tuned else None
    asked = parameters.pop("eval_metric", None)
    own, ours = split_metrics(tuned, asked)
    if own:
        parameters["eval_metric"] = own
    logging.info("Train matrix has %d rows and %d columns", train.num_row(), train.num_col())
    if validation is not None:
        logging.info("Validation matrix has %d rows", validation.num_row())

    job = Training(paths, parameters, rounds, train_arguments(ours, parameters), is_master)
    job.stopping, job.stopping_metric = stopping, (tuned or asked or [None])[-1]
    job.save_on_termination = termination
    try:
        boosters = job.cross_validate(together, folds, repeats) if folds else [job.train(train, validation)]
    except BaseToolkitError:
        raise
    except Exception as e:
        if any(fault in str(e) for fault in USER_FAULTS):
            raise UserError(str(e)) from e
        raise AlgorithmError(f"XGB train call failed with exception:\n {e}") from e
    if is_master:
        os.makedirs(paths.model, exist_ok=True)
        for number, booster in enumerate(boosters):
            save_model(booster, os.path.join(paths.model, MODEL_NAME + (f"-{number}" if folds else "")))


class Training:
    """xgb.train with the callbacks of this job."""

    def __init__(self, paths, parameters, rounds, arguments, is_master):
        self.paths, self.parameters, self.rounds, self.arguments = paths, parameters, rounds, arguments
        self.is_master, self.stopping, self.stopping_metric, self.save_on_termination = is_master, None, None, False

    def train(self, train, validation, fold=None, results=None):
        """One booster, from the newest checkpoint on."""
        folder = self.paths.checkpoints()
        folder = os.path.join(folder, f"model-{fold}") if folder and fold is not None else folder
        model, first = checkpointing.load_checkpoint(folder)
        if model:
            logging.info("Checkpoint loaded from %s", model)
            logging.info("Resuming from iteration %s", first)
        watched = [(train, "train")] + ([(validation, "validation")] if validation is not None else [])
        arguments = dict(self.arguments)
        callbacks = [callback.evaluation_printer(first, TAB)]
        if folder and self.is_master:
            callbacks.append(callback.checkpoint_saver(folder, first))
        if self.save_on_termination and self.is_master:
            os.makedirs(self.paths.model, exist_ok=True)
            name = MODEL_NAME + (f"-{fold}" if fold is not None else "")
            callbacks.append(callback.model_saver(os.path.join(self.paths.model, name)))
            signal.signal(signal.SIGTERM, self.leave)
        self.add_stopping(arguments, callbacks, validation)
        return xgb.train(
            dict(self.parameters),
            train,
            num_boost_round=max(self.rounds - first, 0),
            evals=watched,
            callbacks=callbacks,
            xgb_model=model,
            verbose_eval=False,
            evals_result=results,
            **arguments,
        )

    def add_stopping(self, arguments, callbacks, validation):
        """Early stopping on the last named metric of the validation data."""
        if not self.stopping:
            return
        if callback.version() < (1, 3):
            arguments["early_stopping_rounds"] = self.stopping
            arguments["maximize"] = self.stopping_metric in XGB_MAXIMIZE_METRICS
        elif validation is not None and self.stopping_metric:
            callbacks.append(
                xgb.callback.EarlyStopping(
                    rounds=self.stopping,
                    data_name="validation",
                    metric_name=self.stopping_metric,
                    maximize=self.stopping_metric.split("@")[0] in XGB_MAXIMIZE_METRICS,
                    save_best=self.is_master and self.parameters.get("booster") != "gblinear",
                )
            )

    def leave(self, number, frame):
        """SIGTERM with save_model_on_termination: the newest intermediate model is the result."""
        for name in os.listdir(self.paths.model):
            if not name.startswith(MODEL_NAME):
                os.remove(os.path.join(self.paths.model, name))
        sys.stdout.flush()
        os._exit(0)

    def cross_validate(self, data, folds, repeats):
        """`_kfold`: a booster a fold, mean metrics of each round, and predictions.csv of the held-out rows."""
        import numpy as np
        from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold

        logging.info("Run %d-round of %d-fold cross validation with %d rows", repeats, folds, data.num_row())
        labels = data.get_label()
        classes = bool(self.parameters.get("num_class")) or self.parameters.get("objective", "").startswith("binary:")
        splitter = (RepeatedStratifiedKFold if classes else RepeatedKFold)(n_splits=folds, n_repeats=repeats)
        boosters, results, predicted = [], [], [[] for _ in labels]
        for inside, outside in splitter.split(np.zeros(len(labels)), labels if classes else None):
            logging.info("Train cross validation fold %d", len(boosters) % folds + 1)
            train, held, result = data.slice(inside), data.slice(outside), {}
            boosters.append(self.train(train, held, fold=len(boosters), results=result))
            results.append(result)
            for row, value in zip(outside, boosters[-1].predict(held)):
                predicted[row].append(value)
            if len(boosters) % folds == 0:
                logging.info("The metrics of round %d cross validation", len(boosters) // folds)
                print_means(self.rounds, results[-folds:])
        if repeats > 1:
            logging.info("The overall metrics of %d-round cross validation", repeats)
            print_means(self.rounds, results)
        write_predictions(self.paths.output_data, labels, predicted, classes)
        return boosters


def print_means(rounds, results):
    """`[rounds]#011train-rmse:…`, the mean of the folds' last values."""
    parts = []
    for metric in results[0]["train"]:
        for data in results[0]:
            last = [result[data][metric][-1] for result in results]
            parts.append(f"{data}-{metric}:{sum(last) / len(last):.5f}")
    print(f"[{rounds}]{TAB}{TAB.join(parts)}", flush=True)


def write_predictions(folder, labels, predicted, classes):
    """predictions.csv: label, mean probability, class (or: label, mean prediction)."""
    import numpy as np

    rows = []
    for label, values in zip(labels, predicted):
        values = np.array(values)
        if not classes:
            rows.append([label, values.mean()])
            continue
        chosen = np.argmax(values, axis=-1) if values.ndim > 1 else (values > 0.5).astype(int)
        chances = values.max(axis=-1) if values.ndim > 1 else values
        rows.append([label, chances.mean(), np.bincount(chosen).argmax()])
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "predictions.csv")
    logging.info("Storing predictions on validation set(s) in %s", path)
    np.savetxt(path, np.array(rows), delimiter=",", fmt="%f")


def save_model(booster, path):
    """The artifact as that version's container writes it: a pickled Booster before 1.3, XGBoost's own format since."""
    if callback.version() < (1, 3):
        with open(path, "wb") as f:
            pickle.dump(booster, f)
    else:
        callback.save_atomically(booster, path)
    logging.debug("Stored trained model at %s", path)
