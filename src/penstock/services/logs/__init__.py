"""CloudWatch Logs: groups and streams of jobs (written by their supervisors, live) and of clients.

Real: groups, streams, events, paging, filtering by terms.
Kept and shown: retention, KMS keys, classes.
"""
