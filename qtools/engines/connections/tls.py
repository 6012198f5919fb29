"""TLS: a context from files, checks of what was said about TLS, and what a TLS error means. In: paths. Out: an
ssl.SSLContext, or StartError."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from qtools.errors import StartError, UsageError

if TYPE_CHECKING:
    import ssl


class TlsFiles(NamedTuple):
    """Paths of PEM files, "" for none. ca: replaces the system's certificates. cert, key: this client's certificate.
    insecure: accept any certificate of the peer. key_password: the passphrase of the key."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False
    key_password: str = ""


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
        _use_certificate(context, files)
    return context


def _use_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Let `context` show the client's certificate; StartError if that cannot be used."""
    from qtools.sockets import HOW_TO_GIVE, KeyEncrypted, load_certificate

    try:
        load_certificate(context, files.cert, files.key, files.key_password)
    except OSError as error:
        shown = f"{files.cert} and {files.key}" if files.key else files.cert
        advice = f": {HOW_TO_GIVE}" if isinstance(error, KeyEncrypted) else ""
        raise StartError(f"cannot use the client certificate {shown}: {_why(error)}{advice}") from error


def _why(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return str(error.strerror or reason or error) if reason is None else str(reason)


@dataclass(slots=True)
class TlsSettings:
    """What was said about TLS. is_used: whether a connection of the engine uses TLS.

    other_way: what turns TLS on besides --tls, for messages. is_loaded_elsewhere: a client library loads the files, and
    they are only checked here.
    """

    is_used: bool
    files: TlsFiles
    other_way: str
    is_loaded_elsewhere: bool = False
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    def context(self) -> ssl.SSLContext:
        """The context of a connection, made once; StartError when one of its files cannot be used."""
        if self._context is None:
            self._context = make_tls_context(self.files)
        return self._context

    def check_files(self) -> None:
        """StartError for a file that cannot be used: reported before anything is sent."""
        if not self.is_loaded_elsewhere:
            self.context()
            return
        named = (("CA file", self.files.ca), ("client certificate", self.files.cert), ("key", self.files.key))
        for what, path in named:
            try:
                if path:
                    open(path, "rb").close()
            except OSError as error:
                raise StartError(f"cannot use the {what} {path}: {_why(error)}") from error
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.files.ca:
            try:
                context.load_verify_locations(self.files.ca)
            except ssl.SSLError as error:
                raise StartError(f"cannot use the CA file {self.files.ca}: it has no certificate in PEM") from error
        if self.files.cert:
            _use_certificate(context, self.files)


def check_tls(*ends: TlsSettings) -> None:
    """UsageError where settings contradict each other, StartError where a file of theirs cannot be used.

    ends: of the brokers that a command speaks to. What is said about TLS has to be of use for one of them.
    """
    if not any(each.is_used for each in ends) and any(any(each.files) for each in ends):
        ways = ", or ".join(dict.fromkeys(each.other_way for each in ends))
        raise UsageError(f"--tls-ca, --tls-cert, --tls-key and --tls-insecure-skip-verify need --tls, or {ways}")
    for each in ends:
        if each.files.key and not each.files.cert:
            raise UsageError("--tls-key needs --tls-cert")
        each.check_files()


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
