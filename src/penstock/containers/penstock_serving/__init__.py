"""The model server, inside the sandbox: what `serve` is in AWS's images for scikit-learn and XGBoost, and for plain Python.

web            HTTP/1.1 on a Unix socket or a port
application    /ping, /invocations, /execution-parameters, of the models that are loaded
scripts        a user's script: model_fn, input_fn, predict_fn, output_fn, transform_fn, and what stands in for those it lacks
boosters       XGBoost's built-in algorithm: every format of artifact, its content types, its forms of answers
tables         CSV to arrays and back, by the fastest library of the environment
__main__       lays the model and its code, installs requirements, starts the workers

Runs on Python 3.7 and later; imports nothing that AWS's images lack, and nothing of Penstock.
"""
