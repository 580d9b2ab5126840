"""STS: who calls, and temporary credentials.

Real: GetCallerIdentity, AssumeRole and GetSessionToken give credentials that sign, carry the identity and end in
time. A role of another account is given only to whom its trust policy names.
Kept and shown only: session policies; the trust policy within an account; MFA, session tags, source identity.
"""
