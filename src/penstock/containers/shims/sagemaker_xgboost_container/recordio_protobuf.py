"""Amazon's RecordIO files of protobuf records, read without a protobuf library.

A record: magic 0xced7230a, length, payload padded to 4 bytes. A payload: a message `Record` whose fields 1 and 2 map
names to tensors (features, labels); a tensor holds values (1), and, where it is sparse, keys (2) and a shape (3).
Source: docs.aws.amazon.com/sagemaker/latest/dg/cdf-training.html, aialgs.data record.proto.
"""

import struct

_MAGIC = 0xCED7230A
_DTYPES = {2: "<f4", 3: "<f8", 7: "<i4"}


def read_records(data):
    """The payloads of a file's bytes."""
    at = 0
    while at < len(data):
        magic, length = struct.unpack_from("<II", data, at) if at + 8 <= len(data) else (0, 0)
        if magic != _MAGIC:
            raise ValueError(f"no recordio-protobuf record at byte {at}")
        length &= (1 << 29) - 1
        yield data[at + 8 : at + 8 + length]
        at += 8 + (length + 3) // 4 * 4


def read_dataset(datas):
    """(features, labels) of all records: an array, or a CSR matrix where the records are sparse; labels may be None."""
    import numpy as np
    from scipy import sparse

    rows, labels, width, is_sparse = [], [], 0, False
    for data in datas:
        for record in read_records(data):
            features, label = _read_record(record)
            values, keys, shape = features
            is_sparse = is_sparse or keys is not None
            width = max(width, shape or (int(keys.max()) + 1 if keys is not None and len(keys) else len(values)))
            rows.append((values, keys))
            if label is not None:
                labels.append(label[0][0])
    if not rows:
        return None, None
    if not is_sparse:
        features = np.vstack([values for values, _ in rows]).astype(np.float32)
    else:
        indptr = np.cumsum([0] + [len(values) for values, _ in rows])
        columns = np.concatenate([np.arange(len(v)) if k is None else k for v, k in rows])
        features = sparse.csr_matrix(
            (np.concatenate([v for v, _ in rows]).astype(np.float32), columns, indptr), shape=(len(rows), width)
        )
    return features, (np.array(labels, dtype=np.float32) if labels else None)


def _read_record(data):
    features = label = None
    for number, _, value in _fields(data):
        if number in (1, 2):
            entry = {n: v for n, _, v in _fields(value)}
            tensor = _read_value(entry.get(2, b""))
            if number == 1:
                features = tensor
            else:
                label = tensor
    if features is None:
        raise ValueError("a recordio-protobuf record without features")
    return features, label


def _read_value(data):
    import numpy as np

    for number, _, value in _fields(data):
        if number not in _DTYPES:
            continue
        values, keys, shape = np.zeros(0, _DTYPES[number]), None, 0
        for part, wire, content in _fields(value):
            if part == 1 and number == 7:
                values = np.array(_varints(content) if wire == 2 else [content], dtype=np.int64)
            elif part == 1:
                values = np.concatenate([values, np.frombuffer(content, dtype=_DTYPES[number])])
            elif part == 2:
                more = np.array(_varints(content) if wire == 2 else [content], dtype=np.int64)
                keys = more if keys is None else np.concatenate([keys, more])
            elif part == 3:
                shape = (_varints(content) if wire == 2 else [content])[-1]
        if not len(values) and keys is None and shape:
            values = np.zeros(shape, _DTYPES[number])  # zeros are left out of a message
        return values, keys, shape
    raise ValueError("a recordio-protobuf value without a tensor of numbers")


def _fields(data):
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
        else:
            if wire == 2:
                length, at = _varint(data, at)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise ValueError("a damaged recordio-protobuf record")
            value, at = data[at : at + length], at + length
        yield number, wire, value


def _varints(data):
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
