"""CloudWatch Logs: groups and streams of jobs (written by their supervisors, live) and of clients.

Real: groups, streams, events, paging, filtering by terms, retention.
Kept and shown: KMS keys, classes.
"""
