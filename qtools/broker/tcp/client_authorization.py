"""What one client is authorized to do, where the broker has auth servers. In: AUTH, and commands that need a
permission. Out: answers to AUTH, refusals.

While the auth server is asked, the client is not read and its commands wait. An authorization expires; the next command
that needs it then waits for a new one.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from qtools.broker.tcp.auth import AuthFailed, Authority, Authorization, refusal
from qtools.broker.tcp.client_transport import ClientTransport, log
from qtools.engines.nsq.protocol.client_commands import Command, RefusedCommand


class AuthorizedClient(Protocol):
    """The client."""

    def refuse(self, code: str, text: str) -> None:
        """Send an error and end the connection."""
        ...

    def authorized(self, then: Command | None) -> None:
        """Continue with `then`; without it, answer AUTH."""
        ...


class ClientAuthorization:
    """current: what the client is authorized to do; None before AUTH. task: asks the auth server; None otherwise."""

    def __init__(self, client: AuthorizedClient, transport: ClientTransport, authority: Authority) -> None:
        self.current: Authorization | None = None
        self.task: asyncio.Task[None] | None = None
        self._client = client
        self._transport = transport
        self._authority = authority

    def authenticate(self, secret: bytes) -> None:
        """Execute AUTH."""
        if self.current is not None:
            self._client.refuse("E_INVALID", "AUTH already set")
        else:
            self.request(secret, None)

    def request(self, secret: bytes, then: Command | None) -> None:
        """Ask the auth server; `then` is the command that waits for the answer."""
        self._transport.pause_reading()
        self.task = asyncio.ensure_future(self._request(secret, then))

    async def _request(self, secret: bytes, then: Command | None) -> None:
        client, transport = self._client, self._transport
        try:
            authorization = await self._authority.ask(secret, transport.host, transport.tls)
        except AuthFailed as error:
            log.warning("%s: AUTH failed: %s", transport.address, error)  # the client does not get the reason
            self.task = None
            client.refuse("E_AUTH_FAILED", "AUTH failed")
            return
        except Exception as error:
            self.task = None
            transport.fault(error)
            return
        self.task = None
        if not authorization.rules:
            client.refuse("E_UNAUTHORIZED", "AUTH no authorizations found")
            return
        self.current = authorization
        client.authorized(then)

    def cancel(self) -> None:
        """Stop asking, because the connection ends."""
        if self.task is not None:
            self.task.cancel()

    def _has_expired(self) -> bool:
        return self.current is not None and self.current.expires <= self._transport.broker.now()

    def allows(self, name: str, command: Command, topic: str, channel: str) -> bool:
        """Whether the client may send `command`. If not, it is refused; if the authorization has expired, it is
        executed again with a new one."""
        if self.current is not None and self._has_expired():
            self.request(self.current.secret, command)
            return False
        refused = refusal(self.current, name, topic, channel)
        if refused is not None:
            self._client.refuse(*refused)
        return refused is None

    def refuse_publish(self, name: str, topic: str) -> RefusedCommand | None:
        """The refusal of a publish before its body is read, so that no body is kept for a client without rights.

        None if the publish is allowed, or if that is decided later: after an AUTH, or with a new authorization.
        """
        if self.task is not None or self._has_expired():
            return None
        refused = refusal(self.current, name, topic, "")
        return None if refused is None else RefusedCommand(*refused)
