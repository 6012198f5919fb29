"""Opens sockets to listen on, and says why a connection failed. In: an address as the user wrote it. Out: a socket.

    127.0.0.1:4150   [::1]:4150   localhost:4150   :4150 (every interface)   unix:/path   /path

A command opens its sockets before it starts anything else, so that an address that cannot be used ends the command with
one clear line. This module accepts no connections. It also loads the certificates of servers and clients. OpenSSL
would ask for the passphrase of a key at the terminal; here a missing one is an error.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from qtools.errors import AddressInvalid, StartError
from qtools.host_port import join_host_port, split_host_port
from qtools.paths import LONGEST_SOCKET_PATH

if TYPE_CHECKING:
    import ssl

_BACKLOG = 1024


def listen(address: str, flag: str) -> socket.socket:
    """A non-blocking listening socket. AddressInvalid if the address is malformed, StartError if the socket cannot be
    opened; both messages name `flag`, the flag that gave the address."""
    path = unix_path(address)
    if path is not None:
        made = _listen_unix(path, flag)
    else:
        made = _listen_tcp(address, flag)
        # Accepted sockets inherit the option. asyncio sets it only on sockets that were created with IPPROTO_TCP.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setblocking(False)
    return made


def unix_path(address: str) -> str | None:
    """The path in `unix:/path` or `/path`; None for any other address."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:")
    return address if address.startswith("/") else None


def address_of(listening: socket.socket) -> str:
    """The address of a listening socket, in the form that clients accept."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{name}"
    return join_host_port(name[0], name[1])


def port_of(listening: socket.socket | None) -> int:
    """The port of a listening socket; -1 for a unix socket or None, as in nsqd's JSON."""
    if listening is None or listening.family == socket.AF_UNIX:
        return -1
    port: int = listening.getsockname()[1]
    return port


def is_local(place: socket.socket | str) -> bool:
    """Whether a socket, or a host given by name or address, can be reached from this machine only."""
    host = place if isinstance(place, str) else "" if place.family == socket.AF_UNIX else place.getsockname()[0]
    return host in ("localhost", "::1") or host.startswith("127.")


def _listen_tcp(address: str, flag: str) -> socket.socket:
    try:
        host, port = split_host_port(address)
    except ValueError:
        host, port = "", None
    if port is None:
        raise AddressInvalid(address, f"is none to listen on: {flag} takes HOST:PORT or unix:/path")
    try:
        if not host:
            if socket.has_dualstack_ipv6():
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
            return socket.create_server(("", port), backlog=_BACKLOG)
        # The name is resolved first: for an unknown name, create_server would report only an error number.
        found = sorted(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), key=lambda one: one[0] != socket.AF_INET
        )
        family, _, _, _, place = found[0]
        return socket.create_server(place[:2], family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise StartError(f"cannot listen on {address}: {host} is not known ({error.strerror})") from error
    except OSError as error:
        advice = ""
        if isinstance(error, PermissionError):
            advice = ", ports below 1024 are the system's"
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
        raise StartError(f"cannot listen on {address}: {reason}{advice}; choose another with {flag}") from error


def _listen_unix(path: str, flag: str) -> socket.socket:
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise StartError(f"cannot listen on unix:{path}: the path has more than {LONGEST_SOCKET_PATH} bytes")
    _remove_stale(path, flag)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)  # no other user may connect, from the first moment on
    try:
        made.bind(path)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
        raise StartError(f"cannot listen on unix:{path}: {reason}") from error
    finally:
        os.umask(old)
    return made


def _remove_stale(path: str, flag: str) -> None:
    """Remove the socket that a killed process left behind. StartError if the path is not a socket, or if another
    process serves it."""
    try:
        kind = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(f"cannot listen on unix:{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(kind):
        raise StartError(f"cannot listen on unix:{path}: a file that is not a socket has this path")
    if is_served(path):
        raise StartError(f"cannot listen on unix:{path}: another process serves it; choose another with {flag}")
    Path(path).unlink(missing_ok=True)


def is_served(path: str) -> bool:
    """Whether a process accepts connections on the unix socket `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # the queue of connections is full, so a process listens
        except OSError:
            return False
    return True


def network_reason(error: BaseException) -> str | None:
    """Why an HTTP request got no answer, as a text for users: by the operating system's error or TLS's, which is two
    levels below httpx's; None if there is none."""
    import ssl

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "the host name is not known"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {getattr(cause, 'verify_message', None) or getattr(cause, 'reason', None) or cause}"
        if isinstance(cause, FileNotFoundError):
            return "there is no such socket"
        if isinstance(cause, ConnectionRefusedError) or str(cause) == "All connection attempts failed":
            return "nothing listens there"
        cause = cause.__cause__ or cause.__context__
    return None


# ── certificates ──

MISMATCH = "KEY_VALUES_MISMATCH"  # OpenSSL's
HOW_TO_GIVE = "give its passphrase as QTOOLS_TLS_KEY_PASSWORD, or in a file, with tls_key_password_file"


class KeyEncrypted(OSError):
    """The key needs a passphrase, and none was given."""


def load_certificate(context: ssl.SSLContext, certificate: str, key: str = "", passphrase: str = "") -> None:
    """Let `context` show `certificate` (a path), with the key in it or in the file `key`. OSError, whose `strerror` is
    a clause for users; KeyEncrypted."""
    import ssl

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
