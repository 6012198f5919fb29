"""A CA and what it signs, as files. In: a directory. Out: paths."""

from __future__ import annotations

from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)  # fmt: skip


class Certificates:
    """A server's certificate for 127.0.0.1 and localhost, a client's, and a CA that nobody trusts."""

    def __init__(self, room: Path) -> None:
        ca, stranger = trustme.CA(), trustme.CA()
        self.ca = room / "ca.pem"
        self.stranger_ca = room / "stranger.pem"
        ca.cert_pem.write_to_path(str(self.ca))
        stranger.cert_pem.write_to_path(str(self.stranger_ca))
        self.server_cert, self.server_key = self._write(ca.issue_cert("127.0.0.1", "localhost"), room / "server")
        self.other_cert, self.other_key = self._write(ca.issue_cert("elsewhere.example"), room / "elsewhere")
        self.client_cert, self.client_key = self._write(ca.issue_cert("client@example.org"), room / "client")
        self.strange_cert, self.strange_key = self._write(stranger.issue_cert("client@example.org"), room / "strange")

    @staticmethod
    def _write(leaf: trustme.LeafCert, name: Path) -> tuple[Path, Path]:
        cert, key = name.with_suffix(".pem"), name.with_suffix(".key")
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(key))
        return cert, key

    def encrypted_client_key(self, path: Path, passphrase: str) -> Path:
        """The client's key as a new file, which has a passphrase."""
        key = load_pem_private_key(self.client_key.read_bytes(), None)
        encryption = BestAvailableEncryption(passphrase.encode())
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return path

    @property
    def server_flags(self) -> list[str]:
        return [f"--tls-cert={self.server_cert}", f"--tls-key={self.server_key}"]
