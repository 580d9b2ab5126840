"""`parse_accept`, `read_file`, `write_file`."""


def parse_accept(accept):
    """The content types of an Accept header, in order, without parameters."""
    return [part.split(";")[0].strip() for part in (accept or "").split(",") if part.strip()]


def read_file(path, mode="r"):
    with open(path, mode) as f:
        return f.read()


def write_file(path, data, mode="w"):
    with open(path, mode) as f:
        f.write(data)
