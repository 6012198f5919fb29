"""Ask several HTTP APIs at once, and log each outage once. In: clients, a question. Out: the answers that came.

An outage of some is no error. `failing`, which all instances of a run share (`Brokers.failing`), has the APIs that did
not answer the last time, so that an outage is logged once a run, and again after the API has answered in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from qtools.engines.nsq.http_client import HttpClient
from qtools.errors import NetworkError, PeerError, StartError

logger = logging.getLogger("qtools.client")

Answer = TypeVar("Answer")

_ALL = ""  # in `failing` while none of them answers


async def ask_all(
    clients: Sequence[HttpClient],
    ask: Callable[[HttpClient], Awaitable[Answer]],
    failing: set[str],
    kind: str,
    what: str = "",
) -> list[Answer]:
    """The answers to `ask` of all `clients` that answer. StartError, "no `kind` answers `what`", when none does.

    kind: what the peers are called in log lines and errors. what: the question, as "which topics there are", or "".
    """
    answers = await asyncio.gather(*map(ask, clients), return_exceptions=True)
    found: list[Answer] = []
    failures: list[str] = []
    new_failures: list[str] = []
    for client, answer in zip(clients, answers, strict=True):
        if isinstance(answer, (NetworkError, PeerError)):
            failures.append(str(answer))
            if client.base not in failing:
                failing.add(client.base)
                new_failures.append(str(answer))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            failing.discard(client.base)
            found.append(answer)
    if len(failures) == len(clients):
        question = f" {what}" if what else ""
        raise StartError(f"no {kind} answers{question}: {'; '.join(failures)}")
    failing.discard(_ALL)
    for failure in new_failures:
        logger.warning("%s %s", kind, failure)
    return found


def log_outage(failing: set[str], error: StartError) -> None:
    """Log, once an outage, that none of them answers, and that they will be asked again."""
    if _ALL not in failing:
        failing.add(_ALL)
        logger.warning("%s; looking again", error)
