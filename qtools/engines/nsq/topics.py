"""Lists topics. In: brokers. Out: names.

All nsqlookupds are asked (GET /topics), or all nsqds where those are given (GET /stats); the result is the union. As
long as one of them answers, an outage of another is not an error: it is logged once.
"""

from __future__ import annotations

from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.ask_all import ask_all, log_outage
from qtools.engines.nsq.http_client import HttpClient, ask_lookupd, ask_topics
from qtools.engines.nsq.protocol.lookup import decode_topics
from qtools.engines.nsq.settings import Settings
from qtools.errors import ProtocolError, StartError


class TopicLister:
    """Asks `brokers` for their topics. settings: as in Discovery."""

    def __init__(self, brokers: Brokers, settings: Settings) -> None:
        """StartError where an nsqd's HTTP API is not known."""
        for address in brokers.nsqd:
            if not address.http:
                raise StartError(f"its topics need the HTTP API of {address}: give --nsqd-http-address")
        self._by_lookup = bool(brokers.lookupd)
        bases = brokers.lookupd or tuple(address.http for address in brokers.nsqd)
        self._http = [HttpClient(base, settings.http_tls_context()) for base in bases]
        self._failing = brokers.failing

    async def look(self) -> set[str]:
        """All topics that exist now. StartError when no broker answers; if only some do not, that is logged."""
        kind = "nsqlookupd" if self._by_lookup else "nsqd"
        answers = await ask_all(self._http, self._ask, self._failing, kind, "which topics there are")
        return set().union(*answers)

    async def look_again(self) -> set[str]:
        """As `look`; but when no broker answers, that is logged once and the result is empty."""
        try:
            return await self.look()
        except StartError as error:
            log_outage(self._failing, error)
            return set()

    async def close(self) -> None:
        for http in self._http:
            await http.close()

    async def _ask(self, http: HttpClient) -> list[str]:
        if not self._by_lookup:
            return await ask_topics(http)
        _, body = await ask_lookupd(http, "/topics")
        try:
            return decode_topics(body)
        except ProtocolError as error:
            error.address = http.base
            raise
