"""Removes what a run has made. In: options. Out: a topic or a channel less, or a log line that says how to remove it."""

from __future__ import annotations

import logging
from typing import cast

from qtools.cli import logs
from qtools.engines.contract import DeletingEngine
from qtools.errors import QtoolsError
from qtools.soak.options import SoakOptions


async def remove(options: SoakOptions, *, is_good: bool) -> None:
    """Remove the topic, or the channel, that the run has made. They stay if the test has failed (`is_good` is False):
    what is still in them may say why."""
    if not (options.is_own_topic or options.is_own_channel):
        return
    channel = "" if options.is_own_topic else options.subscription.channel
    name = str(options.subscription) if channel else options.topic
    engine = options.to_engine
    if options.keep:
        return
    if not is_good:
        logs.log_result(f"{name} of {engine} was not removed: it may say what has happened")
        return
    if not engine.capabilities.deletion:
        logs.log_result(f"{name} was made on {engine} and is left there: remove it with the tools of {engine.capabilities.broker}")
        return
    try:
        await cast("DeletingEngine", engine).delete(options.subscription.topic, channel)
    except QtoolsError as error:
        logs.log(logging.WARNING, f"{name} was not removed: {error}")
