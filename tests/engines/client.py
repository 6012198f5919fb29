"""A reader and a publisher as a process of their own, to be killed. In: what to do, as JSON. Out: a line of JSON for
each step that is done. It then waits until it is killed.

    read       {"url", "fields", "topic", "channel", "count", "finish"}    {"finished": [...], "unfinished": [...]}
    publish    {"url", "fields", "topic", "count"}                         {"confirmed": how many}    again and again
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from qtools.engines.choice import BrokerFlags, choose_broker, engine_of
from qtools.engines.connection_options import ConnectionFlags
from qtools.engines.contract import Engine, PublisherOptions, SourceOptions
from qtools.message import Batch
from qtools.names import Subscription

BATCH = 50


def report(**values: Any) -> None:
    print(json.dumps(values), flush=True)


async def read(engine: Engine, topic: str, channel: str, count: int, finish: int) -> None:
    source = engine.source([Subscription(topic, channel)], SourceOptions(max_in_flight=count))
    await source.prepare()
    await source.start()
    batch = Batch.empty()
    while len(batch) < count:
        more = await source.read()
        assert more is not None
        batch = Batch.joined([batch, more]) if batch.bodies else more
    first, rest = batch.split(finish)
    first.finish()
    report(finished=[body.decode() for body in first.bodies], unfinished=[body.decode() for body in rest.bodies])
    await asyncio.Event().wait()


async def publish(engine: Engine, topic: str, count: int) -> None:
    publisher = engine.publisher(PublisherOptions(retry_timeout=30.0))
    await publisher.start()
    for start in range(0, count, BATCH):
        assert await publisher.publish([(topic, [b"%d" % number for number in range(start, start + BATCH)])]) == {}
        report(confirmed=start + BATCH)
        await asyncio.sleep(0.005)
    await asyncio.Event().wait()


def main() -> None:
    wish = json.loads(sys.argv[2])
    choice = choose_broker(BrokerFlags(broker=[wish.pop("url")]), environ={})
    engine = engine_of("tests", choice, ConnectionFlags(wish.pop("fields"), {}), {})
    asyncio.run({"read": read, "publish": publish}[sys.argv[1]](engine, **wish))


if __name__ == "__main__":
    main()
