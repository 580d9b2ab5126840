"""Channels to DMatrix: `get_content_type`, `get_dmatrix`, `get_size`, `validate_data_file_path`,
`check_data_redundancy`, `get_csv_dmatrix`, `get_libsvm_dmatrix`, `get_parquet_dmatrix`,
`get_recordio_protobuf_dmatrix`.

CSV: the label first, no header, empty fields are missing values. libsvm is the default. Pipe mode is not served.
Differs: CSV is read by pandas on every version; XGBoost's own reader, which AWS uses, takes text in a field as 0.
"""

import csv
import logging
import os
import shutil
import tempfile

from sagemaker_algorithm_toolkit import exceptions as exc

from sagemaker_xgboost_container.constants import xgb_content_types

CSV = "csv"
LIBSVM = "libsvm"
PARQUET = "parquet"
RECORDIO_PROTOBUF = "recordio-protobuf"
MAX_FOLDER_DEPTH = 3

VALID_CONTENT_TYPES = [
    CSV,
    LIBSVM,
    PARQUET,
    RECORDIO_PROTOBUF,
    "text/csv",
    xgb_content_types.LIBSVM,
    xgb_content_types.X_LIBSVM,
    xgb_content_types.X_PARQUET,
    xgb_content_types.X_RECORDIO_PROTOBUF,
]
_SHORT = {
    CSV: CSV,
    "text/csv": CSV,
    LIBSVM: LIBSVM,
    xgb_content_types.LIBSVM: LIBSVM,
    xgb_content_types.X_LIBSVM: LIBSVM,
    PARQUET: PARQUET,
    xgb_content_types.X_PARQUET: PARQUET,
    RECORDIO_PROTOBUF: RECORDIO_PROTOBUF,
    xgb_content_types.X_RECORDIO_PROTOBUF: RECORDIO_PROTOBUF,
}


def get_content_type(content_type_cfg_val):
    """The short name of a channel's content type; libsvm where none is given."""
    if content_type_cfg_val is None:
        return LIBSVM
    parts = [part.strip() for part in content_type_cfg_val.lower().split(";")]
    params = dict(part.split("=", 1) for part in parts[1:] if "=" in part)
    short = _SHORT.get(parts[0])
    if short is None:
        raise exc.UserError(
            "{} is not an accepted ContentType: {}.".format(content_type_cfg_val, ", ".join(VALID_CONTENT_TYPES))
        )
    if short == CSV and params.get("label_size", "1").strip() != "1":
        raise exc.UserError(
            f"{content_type_cfg_val} is not an accepted csv ContentType. "
            "Optional parameter label_size must be equal to 1"
        )
    return short


def list_data_files(data_path):
    """The files of a channel, three folders deep, in order; names that start with "." or "_" are no data."""
    if os.path.isfile(data_path):
        return [data_path]
    found = []
    for root, folders, names in os.walk(data_path):
        depth = os.path.relpath(root, data_path).count(os.sep) + (root != data_path)
        if depth >= MAX_FOLDER_DEPTH:
            if names or folders:
                logging.warning("Files deeper than %d folders in %s are not loaded.", MAX_FOLDER_DEPTH, data_path)
            folders[:] = []
            continue
        folders.sort()
        found += [os.path.join(root, name) for name in sorted(names) if not name.startswith((".", "_"))]
    return found


def get_size(data_path, is_pipe=False):
    """Bytes in a channel; 0 where it does not exist."""
    _refuse_pipe(is_pipe)
    if not os.path.exists(data_path):
        logging.info("Path %s does not exist!", data_path)
        return 0
    if os.path.isfile(data_path):
        return os.path.getsize(data_path)
    total = 0
    for root, _, names in os.walk(data_path):
        for name in names:
            if name.startswith("."):
                raise exc.UserError(f"Hidden file found in the data path: {name}. Remove it before training.")
            total += os.path.getsize(os.path.join(root, name))
    return total


def validate_data_file_path(data_path, content_type):
    """Looks at the first lines of every file: are they of the content type?"""
    short = get_content_type(content_type)
    if not os.path.exists(data_path):
        raise exc.UserError(f"{data_path} is not a valid path!")
    for path in list_data_files(data_path):
        if short == CSV:
            with open(path, errors="ignore") as f:
                _get_csv_delimiter(f.readline())
        elif short == LIBSVM:
            _validate_libsvm(path)


def get_dmatrix(data_path, content_type, csv_weights=0, is_pipe=False):
    """A channel (or list of channels) as one DMatrix, None where there is no file.

    Takes: `csv_weights` 1 where the second CSV column holds instance weights.
    """
    _refuse_pipe(is_pipe)
    paths = data_path if isinstance(data_path, list) else [data_path]
    files = [f for path in paths if os.path.exists(path) for f in list_data_files(path)]
    if not files:
        logging.info("File path %s does not exist!", data_path)
        return None
    short = get_content_type(content_type)
    if short == CSV:
        dmatrix = get_csv_dmatrix(files, csv_weights)
    elif short == LIBSVM:
        dmatrix = get_libsvm_dmatrix(files)
    elif short == PARQUET:
        dmatrix = get_parquet_dmatrix(files)
    else:
        dmatrix = get_recordio_protobuf_dmatrix(files)
    if dmatrix is not None and dmatrix.get_label().size == 0:
        raise exc.UserError(
            "Got input data without labels. Check the data of this channel; with several instances, check that each of "
            "them has rows."
        )
    return dmatrix


def get_csv_dmatrix(files, csv_weights=0, is_pipe=False):
    import numpy as np
    import pandas as pd
    import xgboost as xgb

    files = _as_files(files, is_pipe)
    with open(files[0], errors="ignore") as f:
        delimiter = _get_csv_delimiter(f.readline())
    try:
        parts = [
            pd.read_csv(path, header=None, sep=delimiter, dtype=np.float32) for path in files if os.path.getsize(path)
        ]
        data = parts[0].values if len(parts) == 1 else np.vstack([part.values for part in parts])
        if np.isnan(data[:, 0]).any():
            raise ValueError(f"the label, the first column, is missing in {int(np.isnan(data[:, 0]).sum())} rows")
        if csv_weights == 1:
            return xgb.DMatrix(data[:, 2:], label=data[:, 0], weight=data[:, 1])
        return xgb.DMatrix(data[:, 1:], label=data[:, 0])
    except Exception as e:
        raise exc.UserError(f"Failed to load csv data with exception:\n{e}") from e


def get_libsvm_dmatrix(files, is_pipe=False):
    import xgboost as xgb

    folder = tempfile.mkdtemp(prefix="libsvm-")
    try:
        # XGBoost reads a file or a flat folder
        for number, path in enumerate(_as_files(files, is_pipe)):
            os.symlink(os.path.abspath(path), os.path.join(folder, f"{number:06d}.libsvm"))
        return xgb.DMatrix(folder + "?format=libsvm")
    except Exception as e:
        raise exc.UserError(f"Failed to load libsvm data with exception:\n{e}") from e
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def get_parquet_dmatrix(files, is_pipe=False):
    import numpy as np
    import pyarrow.parquet as pq
    import xgboost as xgb

    try:
        parts = [pq.read_table(path).to_pandas().values for path in _as_files(files, is_pipe)]
        data = parts[0] if len(parts) == 1 else np.vstack(parts)
        data = data.astype(np.float32) if data.dtype == object else data
        return xgb.DMatrix(data[:, 1:], label=data[:, 0])
    except Exception as e:
        raise exc.UserError(f"Failed to load parquet data with exception:\n{e}") from e


def get_recordio_protobuf_dmatrix(files, is_pipe=False):
    import xgboost as xgb

    from sagemaker_xgboost_container.recordio_protobuf import read_dataset

    try:
        features, labels = read_dataset(_read_bytes(path) for path in _as_files(files, is_pipe))
        return None if features is None else xgb.DMatrix(features, label=labels)
    except Exception as e:
        raise exc.UserError(f"Failed to load recordio-protobuf data with exception:\n{e}") from e


def check_data_redundancy(train_path, validate_path):
    """Warns of files that lie in both channels under one name with one size."""
    for path, name in ((train_path, "training"), (validate_path, "validation")):
        if not os.path.exists(path):
            raise exc.UserError(f"The path of the {name} data does not exist: {path}")
    if not (os.path.isdir(train_path) and os.path.isdir(validate_path)):
        return
    for name in sorted(set(os.listdir(train_path)) & set(os.listdir(validate_path))):
        ours, theirs = os.path.join(train_path, name), os.path.join(validate_path, name)
        if os.path.isfile(ours) and os.path.isfile(theirs) and os.path.getsize(ours) == os.path.getsize(theirs):
            logging.warning(
                "Suspected identical files found: %s and %s, both of %d bytes. Data that is in training and validation "
                "impairs the validation score.",
                ours,
                theirs,
                os.path.getsize(ours),
            )


def _as_files(files, is_pipe):
    _refuse_pipe(is_pipe)
    return list_data_files(files) if isinstance(files, str) else list(files)


def _read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


def _refuse_pipe(is_pipe):
    if is_pipe:
        raise exc.UserError("Pipe mode is not supported here: use File or FastFile mode.")


def _get_csv_delimiter(sample_csv_line):
    line = sample_csv_line.strip()
    if "," in line:
        delimiter = ","
    else:
        try:
            delimiter = csv.Sniffer().sniff(line, delimiters=";\t| ").delimiter
        except csv.Error as e:
            raise exc.UserError(f"Could not determine delimiter on line {line[:50]}:\n{e}") from e
    logging.info("Determined delimiter of CSV input is '%s'", delimiter)
    return delimiter


def _validate_libsvm(path):
    """Up to the first line with features: `<label>[:<weight>] <index>:<value> …`."""
    with open(path, errors="ignore") as f:
        for line in f:
            words = line.split("#")[0].split()
            if not words:
                continue
            if not all(_is_libsvm_pair(word, i == 0) for i, word in enumerate(words)):
                raise exc.UserError(
                    f"Line '{line[:50].strip()}...' of file '{os.path.basename(path)}' is not in LIBSVM format "
                    "(label index:value index:value ...)."
                )
            if len(words) > 1:
                return
    logging.warning("File %s has no features.", os.path.basename(path))


def _is_libsvm_pair(word, is_label):
    parts = word.split(":")
    if len(parts) > 2 or (len(parts) == 1 and not is_label):
        return not is_label and parts[0] == "qid"
    try:
        [float(part) for part in parts if part != "qid"]
    except ValueError:
        return False
    return True
