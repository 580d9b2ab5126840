"""KMS: symmetric keys, their aliases, policies and grants, and what they encrypt.

Real: Encrypt, Decrypt, ReEncrypt and data keys, by AES-256 in Galois counter mode with the encryption context authenticated;
a disabled key and one that waits for its deletion serve nobody; a scheduled deletion happens, and its ciphertexts are lost.
Kept and shown only: policies, grants and rotation. Key material lies in the data folder, readable by its owner alone.
Not here: asymmetric and HMAC keys, custom key stores, imported material, replicas.
"""

FOLDERS = ("aliases", "grants", "secrets")
"""Each noun has a folder with an `api`."""
