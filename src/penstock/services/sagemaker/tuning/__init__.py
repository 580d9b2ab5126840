"""Hyperparameter tuning: a search that makes training jobs, reads their objective, and makes better ones."""
