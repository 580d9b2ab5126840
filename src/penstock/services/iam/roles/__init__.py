"""Roles: made, shown, tagged, trusted, and the policies in them.

Real: STS assumes them, SageMaker requires them. Only kept: their policies.
"""
