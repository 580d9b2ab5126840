"""Metrics by direction, and the names of files and channels.

Source: docs.aws.amazon.com/sagemaker/latest/dg/xgboost-tuning.html.
"""

XGB_MAXIMIZE_METRICS = (
    "accuracy auc aucpr balanced_accuracy f1 f1_binary f1_macro map ndcg precision r2 recall "
    "precision_macro precision_micro recall_macro recall_micro"
).split()
XGB_MINIMIZE_METRICS = (
    "aft-nloglik cox-nloglik error gamma-deviance gamma-nloglik interval-regression-accuracy logloss mae mape merror "
    "mlogloss mphe mse poisson-nloglik rmse rmsle tweedie-nloglik"
).split()
MODEL_NAME = "xgboost-model"
TRAIN_CHANNEL = "train"
VAL_CHANNEL = "validation"
