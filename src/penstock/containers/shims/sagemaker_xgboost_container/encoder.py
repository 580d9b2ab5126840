"""Request bodies to DMatrix: `csv_to_dmatrix`, `libsvm_to_dmatrix`, `recordio_protobuf_to_dmatrix`, `decode`,
and `json_to_jsonlines`."""

import csv
import io
import json
import os
import tempfile

from sagemaker_training import errors

from sagemaker_xgboost_container.constants import xgb_content_types
from sagemaker_xgboost_container.recordio_protobuf import read_dataset


def csv_to_dmatrix(input, dtype=None):
    """Rows of features (no label) as a DMatrix; empty fields are missing values."""
    import numpy as np
    import xgboost as xgb

    text = (input.decode("utf-8") if isinstance(input, bytes) else input).strip("\r\n")
    first = text.split("\n")[0][:512]
    delimiter = ","
    if "," not in first:
        try:
            found = csv.Sniffer().sniff(first).delimiter
            delimiter = found if not (found.isalnum() or found in ".-+") else ","
        except csv.Error:
            pass
    rows = [
        [cell.strip() or "nan" for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row
    ]
    return xgb.DMatrix(np.array(rows).astype(dtype or np.float32))


def libsvm_to_dmatrix(string_like):
    """libsvm lines as a DMatrix."""
    import xgboost as xgb

    handle, path = tempfile.mkstemp(suffix=".libsvm")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(string_like if isinstance(string_like, bytes) else string_like.encode("utf-8"))
        return xgb.DMatrix(path + "?format=libsvm")
    finally:
        os.remove(path)


def recordio_protobuf_to_dmatrix(string_like):
    """RecordIO-protobuf records as a DMatrix; labels are ignored."""
    import xgboost as xgb

    return xgb.DMatrix(read_dataset([bytes(string_like)])[0])


def json_to_jsonlines(json_data):
    """A document of one list as a line an entry."""
    document = json_data if isinstance(json_data, dict) else json.loads(json_data)
    if len(document) != 1:
        raise ValueError("JSON response is not compatible for conversion to jsonlines.")
    return "".join(json.dumps(entry) + "\n" for entries in document.values() for entry in entries).encode("utf-8")


_DECODERS = {
    "text/csv": csv_to_dmatrix,
    xgb_content_types.LIBSVM: libsvm_to_dmatrix,
    xgb_content_types.X_LIBSVM: libsvm_to_dmatrix,
    xgb_content_types.X_RECORDIO_PROTOBUF: recordio_protobuf_to_dmatrix,
}


def decode(obj, content_type):
    """A request body as a DMatrix, by its content type."""
    plain = (content_type or "").split(";")[0].strip().lower()
    if plain not in _DECODERS:
        raise errors.UnsupportedFormatError(plain)
    return _DECODERS[plain](obj)
