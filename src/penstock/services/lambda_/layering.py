"""The layers that a function names, held against what there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.kernel.call import Call
from penstock.services.lambda_ import rules
from penstock.services.lambda_.state import LAYER_VERSION, refused


def resolve(call: Call, arns: Sequence[str], runtime: str) -> list[dict[str, Any]]:
    """The layers as a configuration shows them, in their order.

    Raises: ServiceError for one that is not there, is there twice, or is for other runtimes.
    """
    if len(arns) > rules.LAYERS:
        raise refused(f"1 validation error detected: Value '{arns}' at 'layers' failed to satisfy constraint: "
                      f"Member must have length less than or equal to {rules.LAYERS}")  # fmt: skip
    found, names = [], set()
    for arn in arns:
        layer = LAYER_VERSION.find(call, arn) if arn.count(":") == 7 else None
        if layer is None:
            raise refused(f"Layer version {arn} does not exist.")
        if layer.parent in names:
            raise refused(f"Two different versions of the same layer are not allowed to be referenced in the same function. {arn}")
        runtimes = layer.body.get("CompatibleRuntimes")
        if runtimes and runtime not in runtimes:
            raise refused(f"Layer version {arn} is for the runtimes {', '.join(runtimes)}, not for {runtime}.")
        names.add(layer.parent)
        found.append({"Arn": arn, "CodeSize": layer.body["_code"]["Size"], "_code": layer.body["_code"]})
    return found
