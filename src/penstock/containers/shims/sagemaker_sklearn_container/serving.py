"""The default handlers that scripts call or extend."""

from sagemaker_containers.beta.framework import encoders, worker
from sagemaker_inference import utils


def default_model_fn(model_dir):
    """A scikit-learn model has no format of its own, so there is no default."""
    raise NotImplementedError("This model needs a model_fn of yours: there is no default way to load it.")


def default_input_fn(input_data, content_type):
    import numpy as np

    array = encoders.decode(input_data, content_type)
    return array.astype(np.float32) if content_type.split(";")[0].strip() in ("application/json", "text/csv") else array


def default_predict_fn(input_data, model):
    return model.predict(input_data)


def default_output_fn(prediction, accept):
    accept = (utils.parse_accept(accept) or ["application/json"])[0]
    accept = "application/json" if accept in ("*/*", "application/*") else accept
    return worker.Response(encoders.encode(prediction, accept), mimetype=accept)
