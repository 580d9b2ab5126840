"""`DefaultInferenceHandler`, from which custom handlers inherit."""

from sagemaker_inference import content_types, decoder, encoder, errors, utils


class DefaultInferenceHandler:
    """Reads and writes arrays; loading a model and predicting are the inheriting class's part."""

    def default_model_fn(self, model_dir, context=None):
        raise NotImplementedError("This model needs a model_fn of yours: there is no default way to load it.")

    def default_input_fn(self, input_data, content_type, context=None):
        return decoder.decode(input_data, content_type)

    def default_predict_fn(self, data, model, context=None):
        raise NotImplementedError("This model needs a predict_fn of yours: there is no default way to call it.")

    def default_output_fn(self, prediction, accept, context=None):
        for content_type in utils.parse_accept(accept):
            if content_type in (content_types.ANY, "application/*"):
                content_type = content_types.JSON
            if content_type in encoder.SUPPORTED_CONTENT_TYPES:
                return encoder.encode(prediction, content_type), content_type
        raise errors.UnsupportedFormatError(accept)
