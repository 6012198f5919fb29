"""A file of credentials, on a server whose accounts are JWTs: operator mode, as nsc and Synadia Cloud set it up."""

from __future__ import annotations

import base64
import binascii
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from qtools.errors import StartError
from tests.engines.jetstream.conftest import MakeNats
from tests.engines.jetstream.using import engine
from tests.engines.reading import bodies_of, drain, publish, publishing

OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3  # the first bytes of nkeys


class Nkey:
    """A key pair, in the forms that NATS has for it."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.key = Ed25519PrivateKey.generate()

    @staticmethod
    def _encoded(raw: bytes) -> str:
        return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).rstrip(b"=").decode()

    @property
    def public(self) -> str:
        return self._encoded(bytes([self.kind]) + self.key.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        return self._encoded(bytes([SEED | self.kind >> 5, (self.kind & 31) << 3]) + self.key.private_bytes_raw())

    def token(self, subject: Nkey, name: str, claims: dict[str, Any]) -> str:
        """A JWT about `subject`, signed by this key."""
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {"jti": "A", "iat": int(time.time()), "iss": self.public, "sub": subject.public, "name": name}
        parts = [_base64(json.dumps(part).encode()) for part in (header, body | {"nats": claims | {"version": 2}})]
        signed = ".".join(parts)
        return f"{signed}.{_base64(self.key.sign(signed.encode()))}"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def write_credentials(path: Path, jwt: str, seed: str) -> str:
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    return str(path)


UNLIMITED = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
STORAGE = ("mem_storage", "disk_storage", "streams", "consumer")
ALLOWED = {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}


async def test_a_file_of_credentials(make_nats: MakeNats, tmp_path: Path) -> None:
    operator, system, account = Nkey(OPERATOR), Nkey(ACCOUNT), Nkey(ACCOUNT)
    user, stranger = Nkey(USER), Nkey(USER)
    limits: dict[str, Any] = dict.fromkeys(UNLIMITED, -1) | {"wildcards": True}
    with_jetstream = limits | dict.fromkeys(STORAGE, -1)
    permissions = {"pub": {}, "sub": {}}
    preload = {
        each.public: operator.token(each, "A", {"type": "account", "limits": most, "default_permissions": permissions})
        for each, most in ((system, limits), (account, with_jetstream))
    }
    server = make_nats(
        [
            f"operator: {operator.token(operator, 'O', {'type': 'operator', 'system_account': system.public})}",
            f"system_account: {system.public}",
            "resolver: MEMORY",
            "resolver_preload: { " + ", ".join(f"{key}: {jwt}" for key, jwt in preload.items()) + " }",
        ]
    )
    jwt = account.token(user, "u", ALLOWED)
    file = write_credentials(tmp_path / "user.creds", jwt, user.seed)
    made = engine(server.address, creds_file=file)
    await publish(made, "a", [b"1"])
    assert bodies_of(await drain(made, "a")) == [b"1"]
    ((_, _, _, name),) = await made.identity()
    assert name == account.public
    # The JWT of a user, and the seed of another one.
    file = write_credentials(tmp_path / "other.creds", jwt, stranger.seed)
    with pytest.raises(StartError, match="Authorization") as caught:
        async with publishing(engine(server.address, creds_file=file)):
            pass
    assert stranger.seed not in str(caught.value)
    assert jwt not in str(caught.value)
