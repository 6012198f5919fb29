"""Changes topics and channels. In: an engine, an action, names. Out: calls of the engine, and a line for each name.

ask how much is there ─▶ say it ─▶ confirmed ─▶ do it
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from qtools.admin.listing import statistics_of
from qtools.admin.rows import Row, left_in
from qtools.cli import logs
from qtools.cli.run import Signals
from qtools.cli.types import plural
from qtools.cli.worker import Worker
from qtools.engines.administration import administered, delete
from qtools.engines.capabilities import advice_without, what_is_missing
from qtools.engines.contract import Engine, NewTopics
from qtools.engines.requirements import require_for_publishing
from qtools.errors import QtoolsError, StartError, TopicMissing, UsageError
from qtools.names import Subscription

NEEDED = {"create": "creation", "delete": "deletion", "empty": "emptying", "pause": "pause", "unpause": "pause"}
DONE = {"create": "created", "delete": "deleted", "empty": "emptied", "pause": "paused", "unpause": "resumed"}
DESTROYS = ("delete", "empty")
# What to do with an engine that lacks what an action needs, where that is not what a flag needs it for.
INSTEAD = {
    "create": "use `: | q-pipe --create-topics default TOPIC`, and read a channel once",
    "pause": "stop the programs that read the channel",
    "unpause": "nothing can be paused",
}


async def change(
    engine: Engine,
    action: str,
    names: Sequence[Subscription],
    signals: Signals,
    *,
    dry_run: bool,
    asks: bool,
    can_ask: bool,
    show: bool,
    new: NewTopics | None = None,
) -> int:
    """Do `action` with all of `names`; return the exit status. asks: it has to be confirmed. can_ask: there is a
    terminal. show: say what was done. Before anything is done: UsageError for what the engine cannot do; TopicMissing
    if one of the names whose messages would be dropped does not exist."""
    if missing := what_is_missing(engine.capabilities, NEEDED[action]):
        raise UsageError(f"{action}: {missing}: {INSTEAD.get(action) or advice_without(NEEDED[action])}")
    require_for_publishing(engine, None, new)
    what = [_name(name) for name in names]
    if action in DESTROYS:
        found, _ = await statistics_of(engine)
        rows = {row["topic"]: row for row in found}
        what = [f"{_name(name)} ({_contents(name, rows, engine)})" for name in names]
    if dry_run:
        for each in what:
            logs.log_result(f"would be {DONE[action]}: {each}")
        return 0
    if action in DESTROYS and asks:
        if not can_ask:
            hint = "give --yes, or --dry-run to see how many"
            raise UsageError(f"{action} drops messages, and there is no terminal to ask on: {hint}")
        for each in what:
            print(f"{action} {each}", file=sys.stderr)
        if not await _is_confirmed(f"on {engine}? [y/N] ", signals):
            logs.log(logging.ERROR, "nothing was changed")
            return 1
    failed = 0
    for name, each in zip(names, what, strict=True):
        try:
            done = await _do(engine, action, name, new)
        except (UsageError, StartError) as error:
            if isinstance(error, UsageError) or len(names) == 1:
                raise
            failed += 1
            logs.log(logging.ERROR, str(error))
        except QtoolsError as error:
            failed += 1
            logs.log(logging.ERROR, f"{_name(name)}: {error}")
        else:
            if show:
                logs.log_result(f"{DONE[action]}: {each}" if done else f"exists already: {each}")
    return 1 if failed else 0


async def _do(engine: Engine, action: str, name: Subscription, new: NewTopics | None) -> bool:
    """Returns whether something had to be done."""
    able = administered(engine)
    if action == "create":
        return await able.create(name.topic, name.channel, new)
    if action == "delete":
        await delete(engine, name.topic, name.channel)
    elif action == "empty":
        await able.empty(name.topic, name.channel)
    else:
        await able.pause(name.topic, name.channel, action == "pause")
    return True


def _contents(name: Subscription, rows: dict[str, Row], engine: Engine) -> str:
    """What would go with `name`; TopicMissing if there is no such topic or channel."""
    row = rows.get(name.topic)
    if row is None:
        raise TopicMissing(f"there is no topic {name.topic} on {engine}")
    if not name.channel:
        channels = plural(len(row["channels"]), "channel")
        left = [count for each in row["channels"] if (count := left_in(each)) is not None]
        return f"{_messages(max([row['depth'] or 0, *left]))} unfinished, {channels}"
    found = next((each for each in row["channels"] if each["channel"] == name.channel), None)
    if found is None:
        raise TopicMissing(f"{name.topic} has no channel {name.channel} on {engine}")
    left_here = left_in(found)
    return "an unknown number of messages" if left_here is None else f"{_messages(left_here)} unfinished"


def _messages(count: int) -> str:
    return plural(count, "message")


def _name(name: Subscription) -> str:
    return f"{name.topic}/{name.channel}" if name.channel else name.topic


async def _is_confirmed(question: str, signals: Signals) -> bool:
    """Ask on the terminal. A thread waits for the answer, so that the event loop notices Ctrl-C, which means no."""
    print(question, end="", file=sys.stderr, flush=True)
    stopped = asyncio.Event()
    signals.on_stop(stopped.set)
    stopping = asyncio.ensure_future(stopped.wait())
    answer = Worker("question").call(os.read, sys.stdin.fileno(), 100)
    await asyncio.wait((answer, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if answer.done() and answer.exception() is None:
        return answer.result().strip().lower() in (b"y", b"yes")
    print(file=sys.stderr)  # no line feed of the user's has ended the line
    return False
