"""What speaks at an address where an engine's own protocol got no answer. In: an address, or the first bytes of an
answer. Out: a protocol, and advice.

An address is asked once a start has failed, over a few short connections, so that the error can say what is there. Of a
TLS certificate nothing is verified, as no secret is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import NamedTuple

from qtools.engines.connections.foreign_protocol import protocol_of
from qtools.engines.url import SCHEMES
from qtools.host_port import NotAnAddress, split_host_port

TIMEOUT = 1.0  # s for a connection, and for the first bytes of an answer
REFUSAL_TIMEOUT = 0.2  # s in which a TLS server refuses a client without a certificate
WHOLE_TIMEOUT = 4.0  # s for all of them
ENOUGH = 64  # bytes of an answer

# A request of Kafka for the versions of its API (ApiVersions, version 0, kafka.apache.org/protocol): size, API key 18,
# version 0, correlation id, no client id. A broker answers it before any login, with the same correlation id. To an
# nsqd it is an unknown version of the protocol, which is answered with E_BAD_PROTOCOL.
_VERSIONS = b"\0\0\0\x0a\0\x12\0\0q?q?\xff\xff"
_HTTP = b"GET / HTTP/1.0\r\n\r\n"
_NO_CERTIFICATE = b"no certificate"  # in place of an answer


# The schemes of each protocol's URLs: without TLS, and with TLS from the first byte ("" where that does not exist).
_SCHEMES_OF = {
    "NSQ": ("nsq", ""), "Kafka": ("kafka", "kafkas"), "NATS": ("nats", "natss"), "Redis": ("redis", "rediss"),
    "AMQP": ("amqp", "amqps"), "HTTP": ("http", "https"),
}  # fmt: skip


class PeerProtocol(NamedTuple):
    """name: "Kafka", "NSQ" …, or "HTTP"; "" if it is not known. is_tls: inside TLS. wants_certificate: a client's."""

    name: str = ""
    is_tls: bool = False
    wants_certificate: bool = False

    def advice(self, expected: str, address: str, *, is_tls: bool) -> str:
        """What to say to a user who took `address` for one where `expected`, another of these names, is spoken, with
        TLS or without; "" if it is spoken there, or if nothing is known."""
        plain, over_tls = _SCHEMES_OF[expected]
        if self.name == "HTTP" != expected:
            return f"it answers {'HTTPS' if self.is_tls else 'HTTP'}, and does not speak {expected}'s protocol"
        if self.name and self.name != expected:
            scheme = _SCHEMES_OF.get(self.name, ("", ""))[self.is_tls]
            use = f": use {scheme}://{address}" if scheme in SCHEMES else ""
            return f"it speaks {self.name}'s protocol, and not {expected}'s{use}"
        if self.is_tls and not over_tls:
            return f"it speaks TLS from the first byte, which {expected} does not: another service listens there"
        if self.is_tls and not is_tls:
            return f"it speaks TLS: use {over_tls}:// instead of {plain}://"
        if self.name and is_tls and not self.is_tls and over_tls:
            return f"it does not speak TLS: use {plain}:// instead of {over_tls}://"
        return ""


def advice_on_answer(first: bytes, expected: str, address: str, *, is_tls: bool, in_tls: bool | None = None) -> str:
    """PeerProtocol.advice on the server at `address`, whose answer began with the bytes `first`. in_tls: whether they
    came inside TLS, if that is not `is_tls`, as in a protocol that begins without it."""
    name = protocol_of(first)
    found = PeerProtocol("", True) if name == "TLS" else PeerProtocol(name, is_tls if in_tls is None else in_tls)
    return found.advice(expected, address, is_tls=is_tls)


async def protocol_at(address: str) -> PeerProtocol:
    """What speaks at `address` ("HOST:PORT"); PeerProtocol() if that is not known within WHOLE_TIMEOUT."""
    try:
        host, port = split_host_port(address)
    except (NotAnAddress, ValueError):
        return PeerProtocol()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WHOLE_TIMEOUT):
            return await _find(host, port or 0)
    return PeerProtocol()


async def _find(host: str, port: int) -> PeerProtocol:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for tls in (None, context):
        for question in (_VERSIONS, _HTTP):
            answer = await _ask(host, port, question, tls)
            if answer is None:  # no connection, or no TLS
                return PeerProtocol()
            if answer == _NO_CERTIFICATE:
                return PeerProtocol("", True, wants_certificate=True)
            name = _name_of(answer)
            if name == "TLS":  # an alert
                break
            if name:
                return PeerProtocol(name, tls is not None)
    return PeerProtocol("", True)


def _name_of(answer: bytes) -> str:
    if answer[4:8] == _VERSIONS[8:12]:
        return "Kafka"
    return "NSQ" if b"E_BAD_PROTOCOL" in answer else protocol_of(answer)  # nsqlookupd's has no frame


async def _ask(host: str, port: int, question: bytes, tls: ssl.SSLContext | None) -> bytes | None:
    """The first bytes of the answer; b"" if there is none; None if there is no connection."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    except (OSError, UnicodeError, TimeoutError):
        return None
    answer = b""
    try:
        if tls is not None:
            # A server that asks for a client certificate refuses only now, and what was sent to it would reset the
            # connection before its reason is read.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFUSAL_TIMEOUT):
                    answer = await reader.read(ENOUGH)
        async with asyncio.timeout(TIMEOUT):
            writer.write(question)
            while len(answer) < ENOUGH and not _name_of(answer) and (more := await reader.read(ENOUGH)):
                answer += more
    except ssl.SSLError as error:
        if "ALERT" in str(error) and "CERTIFICATE" in str(error):
            return _NO_CERTIFICATE
    except (OSError, TimeoutError):
        pass  # what came until then counts
    finally:
        writer.transport.abort()
    return answer
