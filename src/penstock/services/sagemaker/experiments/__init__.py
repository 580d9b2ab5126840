"""Experiments: experiments, their trials, and the trial components that say what ran.

Real: names, associations, merging updates, metric summaries of what was put.
Kept and shown only: parameters, artifacts and status as the client gave them.
"""
