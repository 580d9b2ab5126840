"""Dictionaries as SM_* variables and as command-line arguments."""

import json


def to_env_vars(mapping):
    """Upper-case names with the prefix SM_; what is no text becomes JSON."""
    return {"SM_" + key.upper(): _to_text(value) for key, value in mapping.items()}


def to_cmd_args(mapping):
    """`--name value`, sorted by name; `-n value` for a name of one letter."""
    args = []
    for key in sorted(mapping):
        args.append(("--" if len(key) > 1 else "-") + key)
        args.append(str(mapping[key]))
    return args


def _to_text(value):
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))
