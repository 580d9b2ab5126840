"""Who hears of a job: whoever made it, and those who listen to events."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker.nouns import MAKERS, NOUNS
from penstock.services.sagemaker.programs import Kind
from penstock.store.records import Document, Ref


def show(call: Call, kind: Kind, document: Document, news: bool) -> None:
    """Saves what changed on the way; only secondary statuses, which training jobs have, are events."""
    if news:
        kind.resource.save(call, document)
        if "SecondaryStatus" in document.body:
            _emit(call, document)


def tell(call: Call, document: Document) -> None:
    """Tells of a change of status: an event, and a look of whoever made the job."""
    _emit(call, document)
    wake_maker(call, document)


def wake_maker(call: Call, document: Document) -> None:
    """Has the execution whose step this is, or the tuning job whose trial it is, looked at."""
    for member, kind in MAKERS.items():
        if maker := document.body.get(member):
            call.wake(Ref(kind, *maker))


def _emit(call: Call, document: Document) -> None:
    kind = f"SageMaker {NOUNS[document.kind].title()} State Change"
    call.emit("aws.sagemaker", kind, event_detail(document), [document.arn])


def event_detail(document: Document) -> dict[str, Any]:
    """An event's detail: the Describe answer, its moments as milliseconds in text."""
    shown = {name: value for name, value in document.body.items() if name[0] != "_"}
    detail: dict[str, Any] = _with_text_moments(shown)
    return {**detail, "Tags": {}}


def _with_text_moments(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _with_text_moments(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_text_moments(inner, name) for inner in value]
    if isinstance(value, float) and name.endswith(("Time", "Timestamp")):
        return str(int(value * 1000))
    return value
