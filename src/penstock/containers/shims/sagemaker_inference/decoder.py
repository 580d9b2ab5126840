"""Request bodies to arrays: JSON, CSV, NPY, and sparse NPZ. Nothing pickled is loaded."""

import io

from sagemaker_training import encoders

from sagemaker_inference import content_types, errors


def _npz_to_sparse(body):
    import scipy.sparse

    return scipy.sparse.load_npz(io.BytesIO(body))


_json_to_numpy = encoders.json_to_numpy
_csv_to_numpy = encoders.csv_to_numpy
_npy_to_numpy = encoders.npy_to_numpy
_decoder_map = {
    content_types.NPY: _npy_to_numpy,
    content_types.CSV: _csv_to_numpy,
    content_types.JSON: _json_to_numpy,
    content_types.NPZ: _npz_to_sparse,
}
SUPPORTED_CONTENT_TYPES = set(_decoder_map)


def decode(obj, content_type):
    """A request body as an array."""
    try:
        decoder = _decoder_map[(content_type or "").split(";")[0].strip().lower()]
    except KeyError:
        raise errors.UnsupportedFormatError(content_type) from None
    return decoder(obj)
