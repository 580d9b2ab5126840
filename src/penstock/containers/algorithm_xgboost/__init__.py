"""The built-in XGBoost algorithm: what AWS's XGBoost image does when a training job names no script.

Run it as `python /opt/penstock/containers/algorithm_xgboost`. It reads hyperparameters.json, inputdataconfig.json,
resourceconfig.json and checkpointconfig.json under /opt/ml/input/config, trains, and writes the model to /opt/ml/model.

Differs: no GPU, no Pipe mode, no Debugger hook. Cross validation (`_kfold`) scores each fold on its own held-out part.
A tab in an evaluation line is printed as #011, which is how CloudWatch shows it on AWS.
"""
