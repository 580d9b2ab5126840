"""Operations on users and their access keys."""

from __future__ import annotations

from typing import Any

from penstock.kernel import pages
from penstock.kernel.auth import KEY, key_ref, make_key
from penstock.kernel.call import Call, Caller
from penstock.kernel.errors import ServiceError
from penstock.services.iam import holders
from penstock.services.iam.state import USER, conflict, nothing
from penstock.store.records import Document, Query

MOST_KEYS = 2


def create_user(call: Call) -> dict[str, Any]:
    """Makes a user. Raises: ServiceError EntityAlreadyExists."""
    shown = USER.describe(holders.create_holder(call, USER, "AIDA", "UserId"))
    return {"User": {**shown, "Tags": call.params["Tags"]} if call.params.get("Tags") else shown}


def get_user(call: Call) -> dict[str, Any]:
    return {"User": holders.show_tagged(call, USER, _user(call))}


def list_users(call: Call) -> dict[str, Any]:
    return holders.page_holders(call, USER, "Users")


def delete_user(call: Call) -> None:
    """Raises: ServiceError DeleteConflict while it has access keys or policies."""
    if _keys(call, USER.get(call)):
        raise conflict("Cannot delete entity, must delete access keys first.")
    holders.delete_holder(call, USER)


def put_user_policy(call: Call) -> None:
    holders.put_inline(call, USER)


def get_user_policy(call: Call) -> dict[str, Any]:
    return holders.get_inline(call, USER)


def list_user_policies(call: Call) -> dict[str, Any]:
    return holders.page_inline(call, USER)


def delete_user_policy(call: Call) -> None:
    holders.delete_inline(call, USER)


def attach_user_policy(call: Call) -> None:
    holders.attach(call, USER)


def detach_user_policy(call: Call) -> None:
    holders.detach(call, USER)


def list_attached_user_policies(call: Call) -> dict[str, Any]:
    return holders.page_attached(call, USER)


def put_user_permissions_boundary(call: Call) -> None:
    holders.put_boundary(call, USER.get(call), call.params["PermissionsBoundary"])


def delete_user_permissions_boundary(call: Call) -> None:
    holders.delete_boundary(call, USER.get(call))


def list_groups_for_user(call: Call) -> dict[str, Any]:
    """Differs: there are no groups (CreateGroup answers 501), so a user is in none."""
    USER.get(call)
    return {"Groups": [], "IsTruncated": False}


def tag_user(call: Call) -> None:
    holders.put_tags(call, USER.get(call))


def untag_user(call: Call) -> None:
    holders.delete_tags(call, USER.get(call))


def list_user_tags(call: Call) -> dict[str, Any]:
    return holders.page_tags(call, USER.get(call))


# --- access keys
def create_access_key(call: Call) -> dict[str, Any]:
    """Gives a user a key that signs requests. Raises: ServiceError LimitExceeded for a third."""
    user = _user(call)
    if len(_keys(call, user)) >= MOST_KEYS:
        raise ServiceError("LimitExceeded", f"Cannot exceed quota for AccessKeysPerUser: {MOST_KEYS}", 409)
    key = make_key(Caller(account=call.account, arn=user.arn, user_id=user.body["UserId"]), call.now)
    key.label = user.name
    call.put(key)
    call.put(user)  # two at once must not both be the second key
    return {"AccessKey": {**_shown(key), "SecretAccessKey": key.body["SecretAccessKey"]}}


def list_access_keys(call: Call) -> dict[str, Any]:
    keys = _keys(call, _user(call))
    return pages.cut(call, "AccessKeyMetadata", keys, lambda key: key.name, paging=pages.MARKERS, show=_shown)


def update_access_key(call: Call) -> None:
    key = _key(call)
    key.status = call.params["Status"]
    call.put(key)


def delete_access_key(call: Call) -> None:
    call.delete(_key(call))


def _user(call: Call) -> Document:
    """The user named, else the one who calls."""
    if "UserName" in call.params:
        return USER.get(call)
    caller = USER.find(call, call.caller.arn)
    if caller is None:
        raise ServiceError("ValidationError", "Must specify userName when calling with non-User credentials")
    return caller


def _keys(call: Call, user: Document) -> list[Document]:
    return call.app.store.page(Query(kind=KEY, parent=call.account, label=user.name, order="name"))


def _key(call: Call) -> Document:
    name, user = call.params["AccessKeyId"], _user(call)
    key = call.find(key_ref(name))
    if key is None or key.body["_caller"]["arn"] != user.arn or key.label != user.name:
        raise nothing(f"The Access Key with id {name} cannot be found.")
    return key


def _shown(key: Document) -> dict[str, Any]:
    return {"UserName": key.label, "AccessKeyId": key.name, "Status": key.status, "CreateDate": key.created}
