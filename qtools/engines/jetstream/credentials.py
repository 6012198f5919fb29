"""What CONNECT says of the user. In: settings, the server's nonce. Out: fields of CONNECT, with a signature.

    nkey: a seed is base32 of two bytes of a prefix, 32 bytes of an Ed25519 seed, and a checksum (CRC-16, XMODEM)
    credentials: a file with a JWT and a seed, each between lines of dashes, as `nsc` writes it

https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth
Signing needs an Ed25519 library, which the extra `nats` brings.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.errors import UsageError

_SEED = 18 << 3  # 'S'
_USER = 20 << 3  # 'U'
_BLOCK = re.compile(r"-{3,}BEGIN ([A-Z ]+?)-{3,}\s+(\S+)\s+-{3,}END \1-{3,}")
NEEDS_LIBRARY = "nkeys and credentials need the extra nats: see qtools help install"


def connect_fields(settings: JetStreamSettings, nonce: str) -> dict[str, str]:
    """The fields of CONNECT that say who the user is. UsageError if the library for signing is missing."""
    if settings.nkey_seed:
        public, signature = sign(settings.nkey_seed, nonce)
        return {"jwt": settings.jwt, "sig": signature} if settings.jwt else {"nkey": public, "sig": signature}
    if settings.token:
        return {"auth_token": settings.token}
    if settings.user:
        return {"user": settings.user, "pass": settings.password}
    return {}


def parse_credentials(text: str, where: str) -> tuple[str, str]:
    """(JWT, seed) in the text of a file of credentials; UsageError names `where`, and shows nothing of the text."""
    found: dict[str, str] = dict(_BLOCK.findall(text))
    jwt, seed = found.get("NATS USER JWT", ""), found.get("USER NKEY SEED", "")
    if not jwt or not seed:
        raise UsageError(f"{where} is no file of credentials: it has no user JWT, or no seed")
    check_seed(seed, where)
    return jwt, seed


def check_seed(seed: str, where: str) -> None:
    """UsageError if `seed` is no seed of a user's nkey, or cannot be used here."""
    _private_key(_decoded(seed, where))


def sign(seed: str, nonce: str) -> tuple[str, str]:
    """The public nkey of `seed`, and its signature of `nonce`, as CONNECT has them."""
    key = _private_key(_decoded(seed, "the seed"))
    public = bytes([_USER]) + key.public_key().public_bytes_raw()
    checked = public + binascii.crc_hqx(public, 0).to_bytes(2, "little")
    signature = key.sign(nonce.encode())
    return (
        base64.b32encode(checked).rstrip(b"=").decode(),
        base64.urlsafe_b64encode(signature).rstrip(b"=").decode(),
    )


def _decoded(seed: str, where: str) -> bytes:
    """The 32 bytes of an Ed25519 seed."""
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except (binascii.Error, ValueError):
        raw = b""
    is_intact = len(raw) == 36 and binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")
    if not is_intact or raw[0] & 0xF8 != _SEED:
        raise UsageError(f"{where} holds no seed of an nkey: one begins with SU and has 58 characters")
    kind = (raw[0] & 7) << 5 | raw[1] >> 3
    if kind != _USER:
        raise UsageError(f"{where} holds the seed of another kind of nkey: that of a user begins with SU")
    return raw[2:34]


def _private_key(seed: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise UsageError(NEEDS_LIBRARY) from None
    return Ed25519PrivateKey.from_private_bytes(seed)
