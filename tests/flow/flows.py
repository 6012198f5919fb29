"""What the tests of the loop share: a run with a deadline, sinks that refuse, and totals that must add up."""

from __future__ import annotations

import asyncio

from qtools.errors import (
    MessageRefused,
    PartialFailure,
)
from qtools.flow.loop import Flow, Totals
from tests.flow.memory import DEADLINE

FAR = 10**9


def refused(*places: int) -> PartialFailure:
    return PartialFailure({place: MessageRefused(f"number {place} is too big") for place in places})


def adds_up(totals: Totals) -> bool:
    return totals.read == totals.finished + totals.refused + totals.requeued


async def run(flow: Flow) -> Totals:
    async with asyncio.timeout(DEADLINE):
        return await flow.run()
