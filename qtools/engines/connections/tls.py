"""TLS: a context from files, and what a TLS error means. In: paths. Out: an ssl.SSLContext, or StartError."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qtools.errors import StartError

if TYPE_CHECKING:
    import ssl


class TlsFiles(NamedTuple):
    """Paths of PEM files, "" for none. ca: replaces the system's certificates. cert, key: this client's certificate.
    insecure: accept any certificate of the peer."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False


def make_tls_context(files: TlsFiles) -> ssl.SSLContext:
    """The context of a client; StartError when one of the files cannot be used."""
    import ssl

    context = ssl.create_default_context()
    try:
        if files.ca:
            context = ssl.create_default_context(cafile=files.ca)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"cannot use the CA file {files.ca}: {_why(error)}") from error
    if files.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.cert:
        try:
            context.load_cert_chain(files.cert, files.key or None)
        except (OSError, ssl.SSLError) as error:
            shown = f"{files.cert} and {files.key}" if files.key else files.cert
            raise StartError(f"cannot use the client certificate {shown}: {_why(error)}") from error
    return context


def _why(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return str(error.strerror or reason or error) if reason is None else str(reason)


def tls_failure(error: OSError) -> tuple[str, bool]:
    """What an ssl.SSLError means, and whether another attempt would fail in the same way."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or str(error)
        return f"its TLS certificate was not accepted: {why.rstrip('.')}", True
    reason = str(getattr(error, "reason", None) or error)
    if reason == "WRONG_VERSION_NUMBER":
        return "it does not answer with TLS: its URL may need the scheme without TLS", True
    if "CERTIFICATE_REQUIRED" in reason:
        return "TLS failed: the broker wants a certificate of us: give --tls-cert", True
    if "BAD_CERTIFICATE" in reason:  # a server built with Go before 1.21 sends this for a missing one
        return "TLS failed: the broker refused our certificate, or wants a certificate of us: give --tls-cert", True
    if "ALERT_" in reason:
        reason = f"the broker refused us: {reason.partition('ALERT_')[2].lower().replace('_', ' ')}"
        return f"TLS failed: {reason}", "cert" in reason or "unknown ca" in reason
    return f"the TLS handshake failed: {reason}", True
