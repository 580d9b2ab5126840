"""Pipelines and their executions.

Real: the definition language, its validation, the order of steps, parameters, property files, conditions; steps of type
Processing, Training, Model, RegisterModel, Condition and Fail; step caching; stop; versions; events of every status
change. Only kept and shown: retry policies. Steps of other types are accepted in a definition and
fail when they are reached, with a sentence that says so.
"""
