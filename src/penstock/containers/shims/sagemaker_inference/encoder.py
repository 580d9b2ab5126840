"""Arrays to reply bodies: JSON, CSV, NPY."""

from sagemaker_training import encoders

from sagemaker_inference import content_types, errors

_encoder_map = {
    content_types.NPY: encoders.array_to_npy,
    content_types.CSV: encoders.array_to_csv,
    content_types.JSON: encoders.array_to_json,
}
SUPPORTED_CONTENT_TYPES = set(_encoder_map)


def encode(array_like, content_type):
    """An array as a reply's body."""
    try:
        encoder = _encoder_map[(content_type or "").split(";")[0].strip().lower()]
    except KeyError:
        raise errors.UnsupportedFormatError(content_type) from None
    return encoder(array_like)
