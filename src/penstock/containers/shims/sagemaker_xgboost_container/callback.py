"""Callbacks for both of XGBoost's protocols: functions (before 1.3) and `TrainingCallback` objects (since)."""

import glob
import logging
import os
import re
import tempfile

import xgboost as xgb

CHECKPOINT_FILENAME = "xgboost-checkpoint"
_KEPT = 5
"""Checkpoints that stay on disk: an upload may still be reading the older ones."""

_Base = getattr(xgb.callback, "TrainingCallback", object)


class EachIteration(_Base):
    """Calls `done(model, iteration, scores)` after each round; scores are [("train-rmse", 0.1), …]."""

    def __init__(self, done, first_iteration=0):
        if _Base is not object:
            _Base.__init__(self)
        self._done, self._first, self._shift = done, first_iteration, None

    def __call__(self, env):
        scores = [(item[0], item[1]) for item in env.evaluation_result_list or []]
        self._done(env.model, self._count(env.iteration), scores)

    def after_iteration(self, model, epoch, evals_log):
        scores = []
        for data, metrics in (evals_log or {}).items():
            for name, values in metrics.items():
                last = values[-1]
                scores.append((f"{data}-{name}", last[0] if isinstance(last, tuple) else last))
        self._done(model, self._count(epoch), scores)
        return False

    def _count(self, epoch):
        """The iteration as the log shows it: versions differ in whether they count on from a model they continue."""
        if self._shift is None:
            self._shift = self._first - epoch
        return epoch + self._shift


def evaluation_printer(first_iteration=0, separator="\t"):
    """Prints `[3]<TAB>train-rmse:0.12345…` on the first worker."""

    def done(model, iteration, scores):
        if get_rank() == 0 and scores:
            line = separator.join("{}:{:.5f}".format(*score) for score in scores)
            print(f"[{iteration}]{separator}{line}", flush=True)

    return EachIteration(done, first_iteration)


def checkpoint_saver(folder, first_iteration=0):
    """Writes `xgboost-checkpoint.<iteration>` after each round, on the first worker, and keeps the newest five."""

    def done(model, iteration, scores):
        if get_rank() == 0:
            save_atomically(model, os.path.join(folder, f"{CHECKPOINT_FILENAME}.{iteration}"))
            for path, _ in sort_checkpoints(folder)[:-_KEPT]:
                os.remove(path)

    os.makedirs(folder, exist_ok=True)
    return EachIteration(done, first_iteration)


def model_saver(path):
    """Writes the model as it is after each round (`save_model_on_termination`)."""

    def done(model, iteration, scores):
        if get_rank() == 0:
            save_atomically(model, path)

    return EachIteration(done)


def save_atomically(model, path):
    """Saves beside and renames: a reader never sees half a model."""
    handle, new = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".making-", suffix=suffix())
    os.close(handle)
    model.save_model(new)
    os.chmod(new, 0o644)
    os.rename(new, path)


def suffix():
    """Since 2.1 an unknown ending makes XGBoost warn; .ubj is what it writes by default."""
    return ".ubj" if version() >= (2, 1) else ""


def sort_checkpoints(folder):
    """[(path, iteration)], oldest first."""
    found = []
    for path in glob.glob(os.path.join(folder, CHECKPOINT_FILENAME + ".*")):
        match = re.search(r"\.([0-9]+)$", path)
        if match:
            found.append((path, int(match.group(1))))
    return sorted(found, key=lambda item: item[1])


def load_checkpoint(folder):
    """(path, next iteration) of the newest checkpoint that can be read; (None, 0) without one."""
    for path, iteration in reversed(sort_checkpoints(folder) if folder and os.path.isdir(folder) else []):
        try:
            xgb.Booster(model_file=path)
        except xgb.core.XGBoostError:
            logging.debug("Wrong checkpoint model format %s", path)
            continue
        return path, iteration + 1
    return None, 0


def version():
    return tuple(int(part) for part in re.findall(r"\d+", xgb.__version__)[:2])


def get_rank():
    """This worker's number among those that train together; 0 alone."""
    module = getattr(xgb, "collective", None) or xgb.rabit
    return module.get_rank()
