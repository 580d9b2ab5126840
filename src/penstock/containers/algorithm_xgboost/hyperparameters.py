"""Which hyperparameters the algorithm accepts, their ranges, and what they demand of each other.

Source: docs.aws.amazon.com/sagemaker/latest/dg/xgboost_hyperparameters.html; the containers' ranges.
"""

import ast
import json

from sagemaker_algorithm_toolkit.exceptions import UserError
from sagemaker_xgboost_container.constants.xgb_constants import XGB_MAXIMIZE_METRICS, XGB_MINIMIZE_METRICS

ALIASES = {"learning_rate": "eta", "min_split_loss": "gamma", "reg_lambda": "lambda", "reg_alpha": "alpha"}
METRICS = XGB_MAXIMIZE_METRICS + XGB_MINIMIZE_METRICS
OBJECTIVES = (
    "aft_loss_distribution binary:logistic binary:logitraw binary:hinge count:poisson multi:softmax multi:softprob "
    "rank:pairwise rank:ndcg rank:map reg:linear reg:squarederror reg:logistic reg:gamma reg:pseudohubererror "
    "reg:squaredlogerror reg:absoluteerror reg:tweedie survival:aft survival:cox"
).split()
_TREE_UPDATERS = (
    "grow_colmaker distcol grow_histmaker grow_local_histmaker grow_skmaker sync refresh prune grow_quantile_histmaker"
).split()
_GROWERS = {"grow_colmaker", "distcol", "grow_histmaker", "grow_local_histmaker", "grow_quantile_histmaker"}
_LINEAR_UPDATERS = ["shotgun", "coord_descent"]


class Interval:
    """A range of numbers, shown as `[0, 1)`."""

    def __init__(self, low=None, high=None, ends="[]"):
        self.low, self.high, self.ends = low, high, ends

    def __contains__(self, value):
        above = self.low is None or (value >= self.low if self.ends[0] == "[" else value > self.low)
        below = self.high is None or (value <= self.high if self.ends[1] == "]" else value < self.high)
        return above and below

    def __str__(self):
        low = "(-inf" if self.low is None else f"{self.ends[0]}{self.low}"
        return "{}, {}".format(low, "+inf)" if self.high is None else f"{self.high}{self.ends[1]}")


def _integer(low=None, high=None, ends="[]"):
    return int, Interval(low, high, ends)


def _number(low=None, high=None, ends="[]"):
    return float, Interval(low, high, ends)


def _one_of(words):
    return str, words.split() if isinstance(words, str) else words


def _words(value):
    return [word.strip() for word in value.split(",")]


def _tuple(value):
    found = ast.literal_eval(value) if isinstance(value, str) else value
    return tuple(found) if isinstance(found, (list, tuple)) else (found,)


_YES_NO = "true false"
RULES = {
    "num_round": _integer(1),
    "csv_weights": _integer(0, 1),
    "early_stopping_rounds": _integer(1),
    "booster": _one_of("gbtree gblinear dart"),
    "verbosity": _integer(0, 3),
    "nthread": _integer(1),
    "eta": _number(0, 1),
    "gamma": _number(0),
    "max_depth": _integer(0),
    "min_child_weight": _number(0),
    "max_delta_step": _number(0),
    "subsample": _number(0, 1, "(]"),
    "colsample_bytree": _number(0, 1, "(]"),
    "colsample_bylevel": _number(0, 1, "(]"),
    "colsample_bynode": _number(0, 1, "(]"),
    "lambda": _number(0),
    "alpha": _number(0),
    "tree_method": _one_of("auto exact approx hist gpu_hist"),
    "device": _one_of("cpu cuda"),
    "sketch_eps": _number(0, 1, "()"),
    "scale_pos_weight": _number(0, None, "()"),
    "updater": (_words, None),
    "dsplit": _one_of("row col"),
    "refresh_leaf": _integer(0, 1),
    "process_type": _one_of("default update"),
    "grow_policy": _one_of("depthwise lossguide"),
    "max_leaves": _integer(0),
    "max_bin": _integer(0),
    "predictor": _one_of("auto cpu_predictor gpu_predictor"),
    "monotone_constraints": (_tuple, None),
    "interaction_constraints": (_tuple, None),
    "sample_type": _one_of("uniform weighted"),
    "normalize_type": _one_of("tree forest"),
    "rate_drop": _number(0, 1),
    "one_drop": _integer(0, 1),
    "skip_drop": _number(0, 1),
    "lambda_bias": _number(0, 1),
    "tweedie_variance_power": _number(1, 2, "()"),
    "objective": _one_of(OBJECTIVES),
    "num_class": _integer(2),
    "base_score": _number(0),
    "_kfold": _integer(2),
    "_num_cv_round": _integer(1),
    "_tuning_objective_metric": (str, None),
    "eval_metric": (_words, None),
    "seed": _integer(-(2**31), 2**31 - 1, "()"),
    "num_parallel_tree": _integer(1),
    "save_model_on_termination": _one_of(_YES_NO),
    "aft_loss_distribution": _one_of("normal logistic extreme"),
    "aft_loss_distribution_scale": _number(0),
    "single_precision_histogram": _one_of(_YES_NO),
    "deterministic_histogram": _one_of(_YES_NO),
    "sampling_method": _one_of("uniform gradient_based"),
    "prob_buffer_row": _integer(1, None, "()"),
    "use_dask_gpu_training": _one_of(_YES_NO),
}
SINCE = {
    "_kfold": (1, 2),
    "_num_cv_round": (1, 2),
    "aft_loss_distribution": (1, 2),
    "aft_loss_distribution_scale": (1, 2),
    "single_precision_histogram": (1, 2),
    "deterministic_histogram": (1, 2),
    "sampling_method": (1, 3),
    "prob_buffer_row": (1, 3),
    "use_dask_gpu_training": (1, 5),
    "device": (3, 0),
}
UNTIL = {"single_precision_histogram": (1, 6), "silent": (1, 2)}
RULES_OLD = {"silent": _integer(0, 1)}


def validate_hyperparameters(given, version):
    """Typed hyperparameters of what hyperparameters.json holds.

    Takes: `version`, XGBoost's (major, minor): what that container did not know is extraneous.
    Raises: UserError, in the container's words.
    """
    rules = {
        name: rule
        for name, rule in list(RULES.items()) + list(RULES_OLD.items())
        if SINCE.get(name, (0, 0)) <= version < UNTIL.get(name, (99, 0))
    }
    found = {}
    for name, value in given.items():
        name = ALIASES.get(name, name)
        if name.startswith("sagemaker_"):
            continue
        if name not in rules:
            raise UserError(f"Extraneous hyperparameter found: {name}")
        found[name] = _read_one(name, value, rules[name])
    if "num_round" not in found:
        raise UserError("Missing required hyperparameter: num_round")
    _check_together(found)
    return found


def _read_one(name, value, rule):
    parse, allowed = rule
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        value = json.loads(value)
    try:
        parsed = parse(value)
    except (ValueError, TypeError, SyntaxError) as e:
        raise UserError(f"Hyperparameter {name}: could not parse value", caused_by=e) from e
    if allowed is not None and parsed not in allowed:
        raise UserError(f"Hyperparameter {name}: {parsed} is not in {allowed}")
    return parsed


def _check_together(found):
    objective = found.get("objective", "")
    if objective in ("multi:softmax", "multi:softprob") and "num_class" not in found:
        raise UserError("Require input for parameter 'num_class' for multi-classification")
    if "num_class" in found and not objective:
        raise UserError("Parameter 'num_class' is for multi-classification: it needs an objective.")
    for metric in found.get("eval_metric", []):
        _check_metric(metric, objective, found["eval_metric"])
    tuned = found.get("_tuning_objective_metric")
    if tuned is not None:
        for metric in tuned.split(":")[-1].split(","):
            if metric not in METRICS:
                raise UserError(f"Hyperparameter _tuning_objective_metric: {tuned} is not in {METRICS}")
    method = found.get("tree_method")
    if any(value not in (-1, 0, 1) for value in found.get("monotone_constraints", ())):
        raise UserError(
            "Hyperparameter monotone_constraints: value {} not in range [-1, 0, 1]".format(
                found["monotone_constraints"]
            )
        )
    if "monotone_constraints" in found and method not in ("exact", "hist"):
        raise UserError("monotone_constraints can be used only when tree_method is either 'exact' or 'hist'.")
    if "interaction_constraints" in found:
        if method not in ("exact", "hist", "approx"):
            raise UserError("interaction_constraints can be used only when tree_method is 'exact', 'hist' or 'approx'.")
        found["interaction_constraints"] = [list(group) for group in found["interaction_constraints"]]
    if found.get("use_dask_gpu_training") == "true":
        raise UserError("use_dask_gpu_training: training on GPUs is not served here.")
    _check_updaters(found)


def _check_metric(metric, objective, metrics):
    name, _, threshold = metric.partition("@")
    if threshold:
        if name not in ("error", "ndcg", "map"):
            raise UserError(f"Metric '{metric}' is not supported. Only 'error', 'ndcg', 'map' take a threshold.")
        try:
            float(threshold.rstrip("-"))
        except ValueError:
            raise UserError(f"Threshold value 't' in '{name}@t' expects float input.") from None
    elif metric not in METRICS:
        raise UserError(f"Hyperparameter eval_metric: value {metrics} not in range {METRICS}")
    if metric == "auc" and objective and not objective.startswith(("binary:", "rank:")):
        raise UserError("Metric 'auc' can only be applied for classification and ranking problems.")
    if metric == "aft-nloglik" and objective != "survival:aft":
        raise UserError("Metric 'aft-nloglik' can only be applied for 'survival:aft' objective.")


def _check_updaters(found):
    updaters = found.get("updater")
    if not updaters:
        return
    if found.get("booster") == "gblinear":
        if len(updaters) != 1 or updaters[0] not in _LINEAR_UPDATERS:
            raise UserError("Linear updater should be one of these options: {}.".format(", ".join(_LINEAR_UPDATERS)))
    elif found.get("process_type") == "update":
        if not set(updaters) <= {"refresh", "prune"}:
            raise UserError("process_type 'update' can only be used with updater 'refresh' and 'prune'")
    elif not set(updaters) <= set(_TREE_UPDATERS):
        raise UserError("Tree updater should be selected from these options: {}.".format(", ".join(_TREE_UPDATERS)))
    elif sum(word in _GROWERS for word in updaters) > 1:
        raise UserError("Only one tree grow plugin can be selected, of: {}.".format(", ".join(sorted(_GROWERS))))
    found["updater"] = ",".join(updaters)
