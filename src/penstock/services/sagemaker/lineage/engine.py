"""Model packages are entered; what associated an entity that was deleted goes, some at a look."""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.services.sagemaker.lineage import entities, packages
from penstock.services.sagemaker.lineage.state import FORGOTTEN
from penstock.store.records import Document, Ref


def forget_more(call: Call, forgotten: Document) -> float | None:
    """Deletes some more of the associations from before the entity went; those of one that was made anew since stay."""
    if entities.forget_some(call, forgotten.label, forgotten.created):
        return 0.0
    call.delete(forgotten)
    return None


def enter_package(call: Call, package: Document) -> None:
    """Enters a package that was registered, or whose approval changed; until its execution has ended, that is the execution's to do.

    An artifact is of the kind that it is entered as first: what a package holds has often been read by the jobs before it.
    """
    maker = package.body.get("_execution")
    execution = call.find(Ref("sagemaker.pipeline-execution", *maker)) if maker else None
    if execution is None or "_woven" in execution.body:
        packages.enter(call, package)


STEPS = {FORGOTTEN: forget_more, "sagemaker.model-package": enter_package}
