"""Arrays to and from request bodies: JSON, CSV, NPY."""

import io
import json

from sagemaker_training import content_types, errors


def array_to_npy(array_like):
    """A .npy file's bytes."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array_like)
    return buffer.getvalue()


def npy_to_numpy(npy_array):
    import numpy as np

    return np.load(io.BytesIO(npy_array), allow_pickle=False)


def array_to_json(array_like):
    def default(value):
        if hasattr(value, "tolist"):
            return value.tolist()
        raise TypeError(f"{value!r} is not JSON serializable")

    return json.dumps(array_like, default=default)


def json_to_numpy(string_like, dtype=None):
    import numpy as np

    return np.array(json.loads(_text(string_like)), dtype=dtype)


def csv_to_numpy(string_like, dtype=None):
    """Differs: nothing of pickled content is ever loaded, so an object dtype is refused by NumPy itself."""
    import numpy as np

    return np.genfromtxt(io.StringIO(_text(string_like)), dtype=dtype, delimiter=",")


def array_to_csv(array_like):
    import numpy as np

    buffer = io.StringIO()
    np.savetxt(buffer, array_like, delimiter=",", fmt="%s")
    return buffer.getvalue()


_ENCODERS = {
    content_types.NPY: array_to_npy,
    content_types.CSV: array_to_csv,
    content_types.JSON: array_to_json,
}
_DECODERS = {
    content_types.NPY: npy_to_numpy,
    content_types.CSV: csv_to_numpy,
    content_types.JSON: json_to_numpy,
}


def decode(obj, content_type):
    """A request body as an array."""
    return _pick(_DECODERS, content_type)(obj)


def encode(array_like, content_type):
    """An array as a reply's body."""
    return _pick(_ENCODERS, content_type)(array_like)


def _pick(table, content_type):
    plain = (content_type or "").split(";")[0].strip().lower()
    try:
        return table[plain]
    except KeyError:
        raise errors.UnsupportedFormatError(content_type) from None


def _text(value):
    return value.decode("utf-8") if isinstance(value, (bytes, bytearray)) else value


default_decoder = decode
