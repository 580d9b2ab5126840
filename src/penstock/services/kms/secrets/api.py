"""Operations that use keys."""

from __future__ import annotations

import base64
import os
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.kms import rules
from penstock.services.kms.state import KEY, invalid, key_of, usable
from penstock.store.records import Document

ALGORITHM = "SYMMETRIC_DEFAULT"
DATA_KEYS = {"AES_256": 32, "AES_128": 16}


def encrypt(call: Call) -> dict[str, Any]:
    key = usable(key_of(call, aliases=True))
    if not call.params["Plaintext"]:
        raise invalid(
            "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: "
            "Member must have length greater than or equal to 1"
        )
    _check_algorithm(call, "EncryptionAlgorithm")
    blob = _seal(key, call.params["Plaintext"], call.params.get("EncryptionContext", {}))
    return {"CiphertextBlob": blob, "KeyId": key.arn, "EncryptionAlgorithm": ALGORITHM}


def decrypt(call: Call) -> dict[str, Any]:
    """Gives the plaintext of what a key of the account encrypted.

    Raises: ServiceError InvalidCiphertextException, IncorrectKeyException.
    """
    _check_algorithm(call, "EncryptionAlgorithm")
    key, plain = _open(call, call.params.get("EncryptionContext", {}), "KeyId")
    return {"KeyId": key.arn, "Plaintext": plain, "EncryptionAlgorithm": ALGORITHM}


def re_encrypt(call: Call) -> dict[str, Any]:
    """Decrypts, and encrypts under another key or context."""
    given = call.params
    target = usable(key_of(call, given["DestinationKeyId"], aliases=True))
    source, plain = _open(call, given.get("SourceEncryptionContext", {}), "SourceKeyId")
    return {
        "CiphertextBlob": _seal(target, plain, given.get("DestinationEncryptionContext", {})),
        "SourceKeyId": source.arn,
        "KeyId": target.arn,
        "SourceEncryptionAlgorithm": ALGORITHM,
        "DestinationEncryptionAlgorithm": ALGORITHM,
    }


def generate_data_key(call: Call) -> dict[str, Any]:
    key, plain = usable(key_of(call, aliases=True)), os.urandom(_data_key_bytes(call))
    blob = _seal(key, plain, call.params.get("EncryptionContext", {}))
    return {"CiphertextBlob": blob, "Plaintext": plain, "KeyId": key.arn}


def generate_data_key_without_plaintext(call: Call) -> dict[str, Any]:
    return {name: value for name, value in generate_data_key(call).items() if name != "Plaintext"}


def generate_random(call: Call) -> dict[str, Any]:
    if "NumberOfBytes" not in call.params:
        raise invalid("NumberOfBytes is required.")
    return {"Plaintext": os.urandom(call.params["NumberOfBytes"])}


def _data_key_bytes(call: Call) -> int:
    spec, count = call.params.get("KeySpec"), call.params.get("NumberOfBytes")
    if (spec is None) == (count is None):
        raise invalid("Please specify either number of bytes or key spec.")
    return int(call.params["NumberOfBytes"]) if count is not None else DATA_KEYS[call.params["KeySpec"]]


def _check_algorithm(call: Call, member: str) -> None:
    if call.params.get(member, ALGORITHM) != ALGORITHM:
        raise ServiceError("InvalidKeyUsageException", f"{call.params[member]} is not of a symmetric key.")


def _material(key: Document) -> bytes:
    return base64.b64decode(key.body["_material"])


def _seal(key: Document, plain: bytes, context: dict[str, str]) -> bytes:
    return rules.seal(_material(key), key.name, plain, context)


def _open(call: Call, context: dict[str, str], member: str) -> tuple[Document, bytes]:
    if "CiphertextBlob" not in call.params:
        raise invalid("1 validation error detected: Value at 'ciphertextBlob' must not be null")
    sealed = rules.read(call.params["CiphertextBlob"])
    named = usable(key_of(call, call.params[member], aliases=True)) if call.params.get(member) else None
    key = KEY.find(call, sealed.key_id) if sealed else None
    if sealed is None or key is None:
        raise ServiceError("InvalidCiphertextException", "")
    if named is not None and named.name != key.name:
        sentence = "The key ID in the request does not identify a CMK that can perform this operation."
        raise ServiceError("IncorrectKeyException", sentence)
    plain = rules.open_sealed(_material(usable(key)), sealed, context)
    if plain is None:
        raise ServiceError("InvalidCiphertextException", "")
    return key, plain
