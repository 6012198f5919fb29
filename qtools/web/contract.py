"""What the connection of an HTTP client needs of the server that accepted it. The server is http_server.py.

In: nothing, as this is only an interface.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from qtools.web.fast_path import FindHandler
from qtools.web.limits import HttpLimits

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState


class HttpConnectionServer(Protocol):
    """The server of an HttpConnection. fast_path: as HttpServer's; streams: whether responses may be endless."""

    @property
    def config(self) -> Config: ...
    @property
    def state(self) -> ServerState: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def limits(self) -> HttpLimits: ...
    @property
    def fast_path(self) -> FindHandler | None: ...
    @property
    def streams(self) -> bool: ...
    def note(self, size: int) -> None:
        """Note that `size` bytes arrived for bodies of unanswered requests."""
        ...

    def watch(self) -> None:
        """Check deadlines from now on."""
        ...
