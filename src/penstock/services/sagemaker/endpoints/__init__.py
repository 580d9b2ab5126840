"""Endpoint configurations, and endpoints as far as they are not there yet.

Real: a configuration's models must be there, its variants hold together.
Kept and shown only: data capture, asynchronous inference, shadow variants, explainers until an endpoint serves them.
CreateEndpoint answers 501; lists of endpoints are empty.
"""
