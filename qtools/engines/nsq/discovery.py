"""Finds the addresses of nsqds. In: addresses, or nsqlookupds to ask. Out: addresses.

All nsqlookupds are asked, and the result is the union; an outage of some is not an error. If an nsqd is no longer
listed, its connection is kept as long as it lasts, and is not opened again.

What asks nsqlookupds is imported where they are asked, since most runs know their nsqds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.settings import Settings
from qtools.errors import ProtocolError, StartError

if TYPE_CHECKING:
    from qtools.engines.nsq.http_client import HttpClient
    from qtools.engines.nsq.protocol.lookup import Producer

POLL_SECONDS = 15.0
# While no nsqd has the topic yet, the run waits for one, and a request costs nsqlookupd very little.
POLL_SECONDS_EMPTY = 1.0


class Discovery:
    """The addresses for `topic`, or of every nsqd when it is None (to publish anywhere).

    settings: the TLS files that requests to https:// addresses use.
    The nsqlookupds that did not answer the last time are in `brokers.failing`, so that all instances of a run log an
    outage once.
    """

    def __init__(self, brokers: Brokers, topic: str | None, settings: Settings) -> None:
        self.known: set[Address] = set(brokers.nsqd)
        self.topic = topic
        self.is_static = not brokers.lookupd
        self._brokers = brokers
        self._http = _clients(brokers, settings) if brokers.lookupd else []
        self._failing = brokers.failing

    async def look(self) -> set[Address]:
        """All addresses that are known now. StartError when no nsqlookupd answers; if only some do not, that is
        logged."""
        if self.is_static:
            return self.known
        from qtools.engines.nsq.ask_all import ask_all

        answers = await ask_all(self._http, self._ask, self._failing, "nsqlookupd")
        found = {_address(producer) for answer in answers for producer in answer if producer.tcp_port}
        self.known = found
        return found

    async def look_again(self) -> set[Address]:
        """As `look`. When no nsqlookupd answers this is logged once, and what was known before is returned."""
        try:
            return await self.look()
        except StartError as error:
            from qtools.engines.nsq.ask_all import log_outage

            log_outage(self._failing, error)
            return self.known

    async def _ask(self, http: HttpClient) -> list[Producer]:
        from qtools.engines.nsq.http_client import ask_lookupd
        from qtools.engines.nsq.protocol.lookup import decode_producers

        path = "/nodes" if self.topic is None else f"/lookup?topic={self.topic}"
        status, body = await ask_lookupd(http, path)
        if status == 404:
            return []
        try:
            return decode_producers(body)
        except ProtocolError as error:
            error.address = http.base
            raise

    async def wait_next_poll(self) -> None:
        """Wait until the next time to look; for ever, where addresses were given."""
        if self.is_static:
            await asyncio.get_running_loop().create_future()
        import random

        pause = POLL_SECONDS if self.known else POLL_SECONDS_EMPTY
        await asyncio.sleep(pause * random.uniform(0.9, 1.1))

    async def close(self) -> None:
        for http in self._http:
            await http.close()


def _clients(brokers: Brokers, settings: Settings) -> list[HttpClient]:
    from qtools.engines.nsq.http_client import HttpClient

    return [HttpClient(base, settings.http_tls_context()) for base in brokers.lookupd]


def _address(producer: Producer) -> Address:
    host = f"[{producer.host}]" if ":" in producer.host else producer.host
    return Address(
        host=producer.host,
        port=producer.tcp_port,
        http=f"http://{host}:{producer.http_port}" if producer.http_port else "",
    )
