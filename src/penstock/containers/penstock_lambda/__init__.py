"""The host of a Lambda function, inside the sandbox: it loads the handler and asks the Runtime API for invocations.

Runs on Python 3.8 and later, with the standard library alone.
"""
