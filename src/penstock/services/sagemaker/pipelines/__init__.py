"""Pipelines and their executions.

Real: the definition language, its validation, the order of steps, parameters, property files, conditions; steps of type
Processing, Training, Tuning, Transform, Model, RegisterModel, EndpointConfig, Lambda, Callback, Condition, Lineage and Fail;
step caching; retry policies; selective execution; stop and retry; versions and their aliases; events of every status
change. Steps of other types are accepted in a definition and fail when they are reached, with a sentence that says so.
"""
