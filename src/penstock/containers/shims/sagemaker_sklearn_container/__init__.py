"""Stands in for AWS's scikit-learn container package: `exceptions.UserError`, `serving.default_*_fn`."""
