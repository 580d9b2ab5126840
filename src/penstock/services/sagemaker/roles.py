"""The role that a job, a model or a pipeline acts with: it must be there, in the caller's account."""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.kernel.errors import invalid


def require_role(call: Call, arn: str) -> str:
    """The role's ARN, if SageMaker may be given it.

    Raises: ServiceError (ValidationException) for a role of another account, or one that is not there.
    Differs: the role's trust policy need not name sagemaker.amazonaws.com.
    """
    if arn.split(":")[4] != call.account:
        raise invalid("Cross-account pass role is not allowed.")
    made = any(put.kind == "iam.role" and put.arn == arn for put in call.change.puts)
    found = None if made else call.app.store.by_arn(arn)
    if not made and (found is None or found.kind != "iam.role"):
        raise invalid(
            f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
            "'sagemaker.amazonaws.com' to assume the role."
        )
    return arn
