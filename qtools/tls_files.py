"""Loads a certificate and its key into a TLS context. In: PEM files, the passphrase of the key. Out: why it cannot.

OpenSSL asks for a missing passphrase at the terminal, which a program without one waits for in vain: here it is an
error.
"""

from __future__ import annotations

import ssl

MISMATCH = "KEY_VALUES_MISMATCH"  # OpenSSL's
HOW_TO_GIVE = "give its passphrase as QTOOLS_TLS_KEY_PASSWORD, or in a file, with tls_key_password_file"


class KeyEncrypted(OSError):
    """The key needs a passphrase, and none was given."""


def load_certificate(context: ssl.SSLContext, certificate: str, key: str = "", passphrase: str = "") -> None:
    """Use `certificate` (a path), with the key in it or in the file `key`. OSError, whose `strerror` is a clause for
    users; KeyEncrypted."""
    was_asked = False

    def answer() -> str:
        nonlocal was_asked
        was_asked = True
        if not passphrase:
            raise KeyEncrypted(0, f"{key or certificate} is encrypted, and there is no passphrase")
        return passphrase

    try:
        context.load_cert_chain(certificate, key or None, answer)
    except ssl.SSLError as error:
        if error.reason == MISMATCH:
            reason = "the key is not that of the certificate"
        elif was_asked:
            reason = f"the passphrase of {key or certificate} is wrong"
        elif error.reason is None or "PEM" in error.reason:
            reason = "they are not a certificate and its key in PEM"
        else:
            reason = error.reason
        raise OSError(0, reason) from error
