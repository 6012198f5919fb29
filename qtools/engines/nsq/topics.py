"""Lists topics. In: brokers. Out: names.

All nsqlookupds are asked (GET /topics), or all nsqds where those are given (GET /stats); the result is the union. As
long as one of them answers, an outage of another is not an error: it is logged once.
"""

from __future__ import annotations

import asyncio
import logging

from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.discovery import ALL
from qtools.engines.nsq.http_client import HttpClient, ask_lookupd, ask_topics
from qtools.engines.nsq.protocol.lookup import decode_topics
from qtools.engines.nsq.settings import Settings
from qtools.errors import NetworkError, PeerError, ProtocolError, StartError

logger = logging.getLogger("qtools.client")


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
        answers = await asyncio.gather(*(self._ask(http) for http in self._http), return_exceptions=True)
        found: set[str] = set()
        failures: list[str] = []
        news: list[str] = []
        kind = "nsqlookupd" if self._by_lookup else "nsqd"
        for http, answer in zip(self._http, answers, strict=True):
            if isinstance(answer, (NetworkError, PeerError)):
                failures.append(str(answer))
                if http.base not in self._failing:
                    self._failing.add(http.base)
                    news.append(str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                self._failing.discard(http.base)
                found.update(answer)
        if len(failures) == len(self._http):
            raise StartError(f"no {kind} answers which topics there are: {'; '.join(failures)}")
        self._failing.discard(ALL)
        for failure in news:
            logger.warning("%s %s", kind, failure)
        return found

    async def look_again(self) -> set[str]:
        """As `look`; but when no broker answers, that is logged once and the result is empty."""
        try:
            return await self.look()
        except StartError as error:
            if ALL not in self._failing:
                self._failing.add(ALL)
                logger.warning("%s; looking again", error)
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
