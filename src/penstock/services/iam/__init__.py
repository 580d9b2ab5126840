"""IAM: roles, users, access keys and policies of an account; they have no region.

Real: roles can be assumed and are what SageMaker's role members must name; access keys sign requests until they are
inactive or deleted.
Kept and shown only: policies (inline, managed, boundaries, trust within an account): nothing is refused for want of a
permission yet.
"""

FOLDERS = ("roles", "policies", "users", "profiles")
