"""Removes what a run has made. In: options. Out: a topic or a channel less, or a log line about one that stays."""

from __future__ import annotations

import logging

from qtools.cli import logs
from qtools.engines.administration import delete
from qtools.errors import QtoolsError
from qtools.soak.options import SoakOptions


async def remove(options: SoakOptions, *, has_failed: bool) -> None:
    """Remove the topic or the channel that the run has made. They stay if the test has failed: what is still in them
    may say why."""
    if not options.is_own_channel or options.keep:
        return
    engine, (topic, channel) = options.to_engine, options.subscription
    name = topic if options.is_own_topic else str(options.subscription)
    if has_failed:
        later = "q-admin delete removes it"
        logs.log_result(f"{name} was not removed from {engine}: it may show what has happened ({later})")
    elif not engine.capabilities.deletion:
        broker = engine.capabilities.broker
        logs.log_result(f"{name} stays on {engine}: qtools does not delete it, the tools of {broker} do")
    else:
        try:
            await delete(engine, topic, channel)  # with Kafka it does not end with its topic
            if options.is_own_topic:
                await delete(engine, topic)
        except QtoolsError as error:
            logs.log(logging.WARNING, f"{name} was not removed: {error}")
