"""Stands in for the part of AWS's XGBoost container of that name: `exceptions`."""
