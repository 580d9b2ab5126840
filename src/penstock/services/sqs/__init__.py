"""SQS: standard and FIFO queues, their messages, dead-letter queues.

Real: messages are durable when they are acknowledged; visibility, delays, retention, receipts and long polls (which wait for what
comes, and do not look again before); deduplication and the order of groups in FIFO queues; what was received too often goes to the
dead-letter queue, and tasks move it back; batches; the checksums that clients check; tags. Both protocols of SQS are spoken, JSON and
query.
Kept and shown only: policies and permissions, encryption settings.
"""

FOLDERS = ("messages", "moves")
"""Each noun has a folder with an `api`."""
