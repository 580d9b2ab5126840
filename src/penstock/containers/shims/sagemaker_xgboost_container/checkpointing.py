"""`train(train_args, checkpoint_dir)`: xgb.train that saves checkpoints and goes on from the newest; `load_checkpoint`,
`save_checkpoint`, `print_checkpointed_evaluation`, `save_intermediate_model` for scripts that build their own."""

import logging
import os

import xgboost as xgb

from sagemaker_xgboost_container import callback
from sagemaker_xgboost_container.callback import CHECKPOINT_FILENAME, load_checkpoint  # noqa: F401


def train(train_args, checkpoint_dir):
    """Takes: the keyword arguments of xgb.train. Gives: the booster."""
    args = dict(train_args)
    model, first = load_checkpoint(checkpoint_dir)
    if model:
        logging.info("Checkpoint loaded from %s", model)
        logging.info("Resuming from iteration %s", first)
    args["num_boost_round"] = args.get("num_boost_round", 10) - first
    args["callbacks"] = [
        *list(args.get("callbacks") or []),
        print_checkpointed_evaluation(start_iteration=first),
        save_checkpoint(checkpoint_dir, start_iteration=first),
    ]
    args["verbose_eval"] = False
    args["xgb_model"] = model
    return xgb.train(**args)


def print_checkpointed_evaluation(end_iteration=None, iteration=0, rank=0, period=1, show_stdv=True, start_iteration=0):
    return callback.evaluation_printer(start_iteration)


def save_checkpoint(
    checkpoint_dir, start_iteration=0, max_to_keep=5, num_round=None, rank=0, iteration=0, end_iteration=None
):
    return callback.checkpoint_saver(checkpoint_dir, start_iteration)


def save_intermediate_model(intermediate_model_dir, model_name):
    return callback.model_saver(os.path.join(intermediate_model_dir, model_name))
