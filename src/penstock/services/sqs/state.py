"""The nouns: queues, their messages, the ids of FIFO messages, and what is left of emptied queues."""

from __future__ import annotations

from urllib.parse import urlsplit

from penstock.kernel import ids, queues
from penstock.kernel.call import Call
from penstock.kernel.pages import Paging
from penstock.kernel.resource import Resource
from penstock.services.sqs import rules
from penstock.store.records import Document, Query, Ref

PAGES = Paging(sizes=("MaxResults",), default=1000, code="InvalidParameterValue")
QUEUE = Resource(
    queues.QUEUE,
    key="QueueName",
    path="{name}",
    arn="QueueArn",
    missing=("QueueDoesNotExist", "The specified queue does not exist."),
    exists=("QueueNameExists", "A queue already exists with the same name."),
    created="CreatedTimestamp",
    updated="LastModifiedTimestamp",
    paging=PAGES,
)
"""Its body's `Attributes` are those that were given; `_messages` is the parent of its messages, another after it was emptied;
`_sequence` counts the messages of a FIFO queue."""

MESSAGE = queues.MESSAGE
"""A message: "<its queue's _messages>/<a number that grows>". Its rank is the moment from which it can be received, its label the
group; its status says whether it was received ("received") or not yet ("sent"). Its body:

    id, text, attributes, system   as they were sent
    sender, dedup, sequence        of whom; of a FIFO queue's
    count, first, last             how often it was received, and when for the first and the last time
    source                         the queue whose dead letter it is
"""
REMAINS = "sqs.remains"
"""The messages of a queue that was deleted or emptied, until they are gone: named by what was its `_messages`."""
DEDUPLICATION = "sqs.deduplication"
"""An id that a FIFO queue has seen lately: "<its queue's _messages>/<scope and id>", with the answer that its message got."""


def queue_of(call: Call) -> Document:
    """The queue that a request names by its URL.

    Raises: ServiceError QueueDoesNotExist.
    Differs: queues of other accounts cannot be reached, whatever their policies say.
    """
    return queue_at(call, call.params["QueueUrl"])


def queue_at(call: Call, url: str) -> Document:
    """The queue at a URL, whatever host it names; by its bare name, too.

    Raises: ServiceError QueueDoesNotExist.
    """
    try:
        parts = [part for part in urlsplit(url).path.split("/") if part]
    except ValueError:
        parts = []
    if not parts:
        raise QUEUE.error(QUEUE.missing, call, url[:256])
    if len(parts) > 1 and parts[-2] != call.account:
        raise QUEUE.error(QUEUE.missing, call, parts[-1])
    return QUEUE.get(call, parts[-1])


def url_of(call: Call, queue: Document) -> str:
    """The URL by which whoever calls reaches the queue."""
    settings = call.app.settings
    host = call.headers.get("host") or f"{settings.host}:{settings.port}"
    scheme = "https" if host.endswith(".amazonaws.com") else "http"
    return f"{scheme}://{host}/{queue.account}/{queue.name}"


def is_fifo(queue: Document) -> bool:
    return queue.name.endswith(".fifo")


def feeds(queue: Document, target_arn: str) -> bool:
    """Whether a queue's dead letters go to another."""
    found = rules.redrive(queue.body["Attributes"].get("RedrivePolicy"))
    return found is not None and found[0] == target_arn


def message_ref(queue: Document, name: str) -> Ref:
    return Ref(MESSAGE, queue.account, queue.region, name)


def messages_of(queue: Document, **filters: object) -> Query:
    """The question for a queue's messages."""
    query = Query(kind=MESSAGE, account=queue.account, region=queue.region, parent=queue.body["_messages"])
    for name, value in filters.items():
        setattr(query, name, value)
    return query


def new_parent() -> str:
    """What no other queue's messages have as their parent."""
    return ids.word(20)


def leave(call: Call, queue: Document) -> None:
    """Has a queue's messages deleted by and by: from now on nobody finds them."""
    remains = Document(
        kind=REMAINS, account=queue.account, region=queue.region, name=queue.body["_messages"], created=call.now
    )  # fmt: skip
    call.put(remains)
    call.wake(remains.ref)
