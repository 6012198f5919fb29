"""`q-broker status` and `q-broker stop` for the private local broker. In: its lock and its HTTP socket. Out: text.

The status comes from the broker's HTTP API. To stop it, a signal is sent to the process that holds the lock.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from qtools.broker.lock import holder
from qtools.errors import QtoolsError
from qtools.imports import import_without_extras
from qtools.paths import LocalBrokerPaths, local_broker_paths

PATIENCE = 15.0  # s that the broker has to end in order
_PAUSE = 0.02


def _ask(places: LocalBrokerPaths) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answers of /info and /stats. Raises QtoolsError when the broker does not answer."""
    import_without_extras("httpx")
    import httpx

    transport = httpx.HTTPTransport(uds=str(places.http_socket))
    try:
        with httpx.Client(transport=transport, base_url="http://local", timeout=10.0) as client:
            info = client.get("/info").raise_for_status().json()
            stats = client.get("/stats", params={"format": "json", "include_mem": "true"}).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise QtoolsError(f"the local broker does not answer on {places.http_socket}: {error}") from error
    return info, stats


def status() -> tuple[int, list[str]]:
    """The exit status, 0 when the broker runs and 1 when it does not, and lines to print."""
    from qtools.broker.observe.stats import duration

    places = local_broker_paths()
    pid = holder(places.data)
    if pid is None:
        return 1, ["the local broker is not running"]
    info, stats = _ask(places)
    memory = stats["memory"]["heap_in_use_bytes"] / 1e6
    lines = [
        f"the local broker is running: pid {pid}, up {duration(time.time() - info['start_time'])}, {memory:.0f} MB",
        f"tcp     {places.tcp_socket}",
        f"http    {places.http_socket}",
        f"data    {places.data}",
        f"log     {places.log}",
        f"health  {stats['health']}",
    ]
    for topic in stats["topics"] or ():
        paused = ", paused" if topic["paused"] else ""
        lines.append(
            f"topic   {topic['topic_name']}: depth {topic['depth']:,},"
            f" {topic['message_count']:,} published since it started{paused}"
        )
        for channel in topic["channels"]:
            paused = ", paused" if channel["paused"] else ""
            dropped = f", dropped {channel['dropped_count']:,}" if channel["dropped_count"] else ""
            lines.append(
                f"        {topic['topic_name']}/{channel['channel_name']}: depth {channel['depth']:,},"
                f" in flight {channel['in_flight_count']:,}, deferred {channel['deferred_count']:,},"
                f" clients {channel['client_count']}{dropped}{paused}"
            )
    return 0, lines


def stop(force: bool) -> tuple[int, list[str]]:
    """Stop the broker in order. Returns the exit status and lines to print. Raises QtoolsError when the broker does not
    answer, unless `force` is given."""
    places = local_broker_paths()
    pid = holder(places.data)
    if pid is None:
        return 0, ["the local broker is not running"]
    if not force:
        _ask(places)
    if not pid:
        raise QtoolsError(f"the process that holds the lock in {places.data} has not written its pid yet: try again")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise QtoolsError(f"pid {pid}, which holds the lock in {places.data}, belongs to another user") from error
    until = time.monotonic() + PATIENCE
    while holder(places.data) == pid:
        if time.monotonic() > until:
            raise QtoolsError(f"pid {pid} received SIGTERM, and still runs after {PATIENCE:g} s")
        time.sleep(_PAUSE)
    return 0, [f"the local broker (pid {pid}) has stopped"]
