"""KMS, by boto3."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.services.kms import engine, rules
from tests.conftest import Boto, World
from tests.refusals import code_of


@pytest.fixture
def kms(client: Boto) -> Any:
    return client("kms")


@pytest.fixture
def key(kms: Any) -> str:
    return str(kms.create_key(Description="mine")["KeyMetadata"]["KeyId"])


def test_what_a_key_encrypts_it_decrypts_with_the_same_context_only(kms: Any, key: str) -> None:
    context = {"who": "me", "what": "it"}
    sealed = kms.encrypt(KeyId=key, Plaintext=b"secret", EncryptionContext=context)
    assert b"secret" not in sealed["CiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=dict(reversed(context.items())))
    assert (opened["Plaintext"], opened["KeyId"]) == (b"secret", sealed["KeyId"])
    assert code_of(kms.decrypt, CiphertextBlob=sealed["CiphertextBlob"]) == "InvalidCiphertextException"
    changed = sealed["CiphertextBlob"][:-1] + bytes([sealed["CiphertextBlob"][-1] ^ 1])
    assert code_of(kms.decrypt, CiphertextBlob=changed, EncryptionContext=context) == "InvalidCiphertextException"
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    wrong = {"CiphertextBlob": sealed["CiphertextBlob"], "EncryptionContext": context, "KeyId": other}
    assert code_of(kms.decrypt, **wrong) == "IncorrectKeyException"


def test_a_data_key_is_what_its_ciphertext_holds(kms: Any, key: str) -> None:
    made = kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    assert len(made["Plaintext"]) == 32
    assert kms.decrypt(CiphertextBlob=made["CiphertextBlob"])["Plaintext"] == made["Plaintext"]
    bare = kms.generate_data_key_without_plaintext(KeyId=key, NumberOfBytes=7)
    assert "Plaintext" not in bare
    assert len(kms.decrypt(CiphertextBlob=bare["CiphertextBlob"])["Plaintext"]) == 7
    assert code_of(kms.generate_data_key, KeyId=key) == "ValidationException"


def test_re_encrypting_moves_a_secret_to_another_key(kms: Any, key: str) -> None:
    other = kms.create_key()["KeyMetadata"]["Arn"]
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    moved = kms.re_encrypt(CiphertextBlob=sealed, DestinationKeyId=other, DestinationEncryptionContext={"a": "b"})
    assert moved["KeyId"] == other
    assert kms.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext={"a": "b"})["KeyId"] == other


def test_a_disabled_key_serves_nobody_until_it_is_enabled(kms: Any, key: str) -> None:
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    kms.disable_key(KeyId=key)
    assert code_of(kms.encrypt, KeyId=key, Plaintext=b"x") == "DisabledException"
    assert code_of(kms.decrypt, CiphertextBlob=sealed) == "DisabledException"
    kms.enable_key(KeyId=key)
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"


def test_a_key_is_found_by_its_aliases(kms: Any, key: str) -> None:
    kms.create_alias(AliasName="alias/a", TargetKeyId=key)
    assert code_of(kms.create_alias, AliasName="alias/a", TargetKeyId=key) == "AlreadyExistsException"
    assert kms.describe_key(KeyId="alias/a")["KeyMetadata"]["KeyId"] == key
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.update_alias(AliasName="alias/a", TargetKeyId=other)
    assert [one["AliasName"] for one in kms.list_aliases(KeyId=other)["Aliases"]] == ["alias/a"]
    assert kms.list_aliases(KeyId=key)["Aliases"] == []
    kms.delete_alias(AliasName="alias/a")
    assert code_of(kms.describe_key, KeyId="alias/a") == "NotFoundException"


def test_policies_tags_and_rotation_are_kept(kms: Any, key: str) -> None:
    assert '"kms:*"' in kms.get_key_policy(KeyId=key)["Policy"]
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy='{"Statement": []}')
    assert kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"] == '{"Statement": []}'
    assert code_of(kms.put_key_policy, KeyId=key, Policy="{") == "MalformedPolicyDocumentException"
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": "a", "TagValue": "1"}, {"TagKey": "b", "TagValue": "2"}])
    kms.untag_resource(KeyId=key, TagKeys=["a"])
    assert kms.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "b", "TagValue": "2"}]
    kms.enable_key_rotation(KeyId=key, RotationPeriodInDays=100)
    assert kms.get_key_rotation_status(KeyId=key)["RotationPeriodInDays"] == 100
    kms.disable_key_rotation(KeyId=key)
    assert not kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]


def test_grants_are_kept_until_they_are_revoked_or_retired(kms: Any, key: str, client: Boto) -> None:
    given = {"KeyId": key, "GranteePrincipal": client.role, "Operations": ["Encrypt"]}
    one = kms.create_grant(**given, RetiringPrincipal=client.role)
    two = kms.create_grant(**given, Name="two")
    assert kms.create_grant(**given, Name="two") | {"ResponseMetadata": 0} == two | {"ResponseMetadata": 0}
    assert {grant["GrantId"] for grant in kms.list_grants(KeyId=key)["Grants"]} == {one["GrantId"], two["GrantId"]}
    retirable = kms.list_retirable_grants(RetiringPrincipal=client.role)["Grants"]
    assert [grant["GrantId"] for grant in retirable] == [one["GrantId"]]
    kms.retire_grant(GrantToken=one["GrantToken"])
    kms.revoke_grant(KeyId=key, GrantId=two["GrantId"])
    assert kms.list_grants(KeyId=key)["Grants"] == []


def test_lists_are_paged(kms: Any) -> None:
    made = {kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(3)}
    first = kms.list_keys(Limit=2)
    assert first["Truncated"]
    rest = kms.list_keys(Limit=2, Marker=first["NextMarker"])
    assert {key["KeyId"] for key in first["Keys"] + rest["Keys"]} == made


def test_another_accounts_key_is_not_there(kms: Any, house: Any) -> None:
    other = Boto(house.url, house.account())
    theirs = other("kms").create_key()["KeyMetadata"]
    sealed = other("kms").encrypt(KeyId=theirs["KeyId"], Plaintext=b"x")["CiphertextBlob"]
    other.close()
    assert code_of(kms.describe_key, KeyId=theirs["Arn"]) == "NotFoundException"
    assert code_of(kms.decrypt, CiphertextBlob=sealed) == "InvalidCiphertextException"


def test_kinds_of_keys_that_are_not_served_are_told(kms: Any) -> None:
    assert code_of(kms.create_key, KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY") == "NotImplemented"


def test_a_key_is_deleted_when_its_owner_has_waited(world: World) -> None:
    key = world("kms", "CreateKey")["KeyMetadata"]["KeyId"]
    world("kms", "CreateAlias", AliasName="alias/a", TargetKeyId=key)
    world("kms", "ScheduleKeyDeletion", KeyId=key, PendingWindowInDays=7)
    document = next(one for one in engine.KEY.all(world.call()) if one.name == key)
    again = world.step(document)
    assert again is not None
    assert 6.9 * 86400 < again <= 7 * 86400
    world("kms", "CancelKeyDeletion", KeyId=key)
    assert world.step(document) is None
    world("kms", "ScheduleKeyDeletion", KeyId=key, PendingWindowInDays=7)
    call = world.app.step_call(document, world.app.clock.now() + 8 * 86400)
    stored = world.app.store.get(document.ref)
    assert stored
    assert engine.step(call, stored) == 0.0  # the alias first
    world.app.store.commit(call.change)
    call = world.app.step_call(document, world.app.clock.now() + 8 * 86400)
    assert engine.step(call, stored) is None
    world.app.store.commit(call.change)
    assert world("kms", "ListKeys")["Keys"] == world("kms", "ListAliases")["Aliases"] == []


def test_what_is_no_ciphertext_is_none() -> None:
    material = rules.make_material()
    blob = rules.seal(material, "12345678-1234-1234-1234-123456789012", b"", {})
    sealed = rules.read(blob)
    assert sealed
    assert rules.open_sealed(material, sealed, {}) == b""
    for wrong in (b"", b"x" * 100, blob[:-1], blob[:20]):
        found = rules.read(wrong)
        assert found is None or rules.open_sealed(material, found, {}) is None
