"""Event source mappings: messages of a queue are taken to a function in batches.

Real: batches by size and window, several at a time, what became of each message (ReportBatchItemFailures); what fails is seen again after
its visibility time-out, and goes to the queue's dead-letter queue by its own rule.
Not here: filters; streams, Kafka and document databases as sources.
"""
