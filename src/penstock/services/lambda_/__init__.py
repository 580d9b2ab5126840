"""Lambda: functions of Python that run in warm workers, versions, aliases, layers, permissions and asynchronous invocations.

Real: code from zip archives, layers, the environment, the handler's contract, time-out, memory, logs, errors, concurrency, retries and
destinations. Kept and shown: policies, VPC, file systems, tracing, encryption and code signing settings.
"""

FOLDERS = ("aliases", "invoking", "layers", "policies", "sources")
