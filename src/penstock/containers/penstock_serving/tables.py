"""CSV to arrays and back, by the fastest library that the environment has."""

import io
from typing import Any

SNIFFED_BYTES = 4096
DELIMITERS = ";\t|"


def read_csv(body: bytes, dtype: str = "float64") -> Any:
    """The rows of a CSV without a header as a two-dimensional array; empty fields are missing values.

    An array of text where a field is no number.
    Raises: ValueError where the rows have different lengths, or there are none.
    """
    separator = delimiter_of(body)
    for reader in (_by_arrow, _by_pandas, _by_numpy):
        try:
            found = reader(body, separator, dtype)
        except ImportError:
            continue
        if found is not None:
            return found
    raise ValueError("the body holds no rows")


def delimiter_of(body: bytes) -> str:
    """The character between fields: a comma wherever the first line has one."""
    first = bytes(body[:SNIFFED_BYTES]).split(b"\n")[0].decode("utf-8", "replace")
    if "," in first:
        return ","
    for each in DELIMITERS:
        if each in first:
            return each
    return " " if " " in first.strip() else ","


def _by_arrow(body: bytes, separator: str, dtype: str) -> Any:
    """By pyarrow, where all fields are numbers; None where they are not."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv

    if separator == " ":
        return None
    start = bytes(body[:SNIFFED_BYTES]).lstrip(b"\r\n").split(b"\n")[0]
    names = [str(number) for number in range(start.count(separator.encode()) + 1)]
    kind = pa.float64() if dtype == "float64" else pa.float32()
    try:
        reading = csv.ReadOptions(column_names=names, block_size=max(1 << 20, len(body) // 8))
    except TypeError:  # before pyarrow 0.15, as in the images of XGBoost 1.0, a header is asked for
        return None
    try:
        table = csv.read_csv(
            pa.BufferReader(body),
            read_options=reading,
            parse_options=csv.ParseOptions(delimiter=separator),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, kind)),
        )
    except pa.ArrowInvalid:
        return None  # text, or spaces around numbers: another reader tells
    array = np.empty((table.num_rows, len(names)), dtype=dtype)
    for number, column in enumerate(table.columns):
        array[:, number] = column.to_numpy()
    return array if table.num_rows else None


def _by_pandas(body: bytes, separator: str, dtype: str) -> Any:
    import numpy as np
    import pandas as pd

    if not bytes(body).strip():
        return None
    spaces = {"delim_whitespace": True} if separator == " " and pd.__version__ < "2.2" else {"sep": separator}
    if separator == " " and "sep" in spaces:
        spaces = {"sep": r"\s+"}
    frame = pd.read_csv(io.BytesIO(body), header=None, skipinitialspace=True, **spaces)
    array = frame.values
    if array.dtype == object:
        return np.asarray(array, dtype=str) if dtype == "float64" else array.astype(dtype)
    return array.astype(dtype, copy=False)


def _by_numpy(body: bytes, separator: str, dtype: str) -> Any:
    import numpy as np

    text = bytes(body).decode("utf-8")
    if not text.strip():
        return None
    array = np.genfromtxt(io.StringIO(text), dtype=dtype, delimiter=None if separator == " " else separator)
    rows = sum(1 for line in text.splitlines() if line.strip())
    return array.reshape(rows, -1)


def write_csv(prediction: Any) -> bytes:
    """An array, table, or list as CSV: a row a line, numbers as Python writes them."""
    rows = _listed(prediction)
    if not isinstance(rows, list):
        rows = [rows]
    if rows and isinstance(rows[0], (list, tuple)):
        return ("\n".join([",".join(map(_text, row)) for row in rows]) + "\n").encode("utf-8")
    return ("\n".join(map(_text, rows)) + "\n").encode("utf-8") if rows else b""


def _text(value: Any) -> str:
    if isinstance(value, str) and ("," in value or '"' in value or "\n" in value):
        return '"' + value.replace('"', '""') + '"'
    return str(value)


def _listed(prediction: Any) -> Any:
    if hasattr(prediction, "toarray"):  # a sparse matrix
        prediction = prediction.toarray()
    if hasattr(prediction, "values") and not isinstance(prediction, dict):  # a table of pandas
        prediction = prediction.values
    if getattr(prediction, "dtype", None) == "float32":
        # as NumPy prints them: the shortest text that means the same number in 32 bits
        return _short(prediction)
    return prediction.tolist() if hasattr(prediction, "tolist") else prediction


def _short(array: Any) -> Any:
    if array.ndim > 1:
        return [_short(row) for row in array]
    return array.astype(str).tolist()
