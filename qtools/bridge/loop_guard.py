"""Refuses a bridge that would feed itself. In: where it reads and writes. Out: the topics it must not write to.

Two lists of brokers are the same cluster when they share an nsqd or an nsqlookupd, whatever it is called: names are
resolved, and of an nsqlookupd the nsqds that it knows are compared.
"""

from __future__ import annotations

import asyncio
import os
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from qtools.bridge.options import BridgeOptions
from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.settings import Settings
from qtools.errors import NameInvalid, UsageError
from qtools.routing.dead_letter import dead_letter_topic

Place = tuple[str, str | int]  # an IP address and a port, or "unix" and a path


async def forbidden_topics(options: BridgeOptions) -> frozenset[str]:
    """Those that are read, where what is written could be read again; none where it could not."""
    if options.to_brokers is not None:
        theirs = options.to_brokers, options.to_settings
        if not await same_cluster((options.brokers, options.settings), theirs):
            return frozenset()
    return frozenset(source.topic for source in options.sources)


def dead_letter_topics(options: BridgeOptions) -> dict[str, str]:
    """For each topic that is read, where its dead letters go; UsageError where that cannot be."""
    topics: dict[str, str] = {}
    read = {source.topic for source in options.sources}
    for topic in read:
        try:
            topics[topic] = options.dead_letter_topic or dead_letter_topic(topic)
        except NameInvalid as error:
            raise UsageError(f"dead letters of {topic}: {error} (--dead-letter-topic names another)") from error
        if topics[topic] in read:
            raise UsageError(
                f"{topics[topic]} is read, and takes the dead letters of {topic}: they would come round again;"
                " name another with --dead-letter-topic, or choose --on-error"
            )
    return topics


async def same_cluster(ours: tuple[Brokers, Settings], theirs: tuple[Brokers, Settings]) -> bool:
    """Whether what is published to `theirs` may be read from `ours`."""
    if await _lookupds(ours[0]) & await _lookupds(theirs[0]):
        return True
    return bool(await _nsqds(*ours) & await _nsqds(*theirs))


async def _lookupds(brokers: Brokers) -> set[Place]:
    found: set[Place] = set()
    for base in brokers.lookupd:
        parts = urlsplit(base)
        found |= await _resolved(parts.hostname or "", parts.port or 80)
    return found


async def _nsqds(brokers: Brokers, settings: Settings) -> set[Place]:
    discovery = Discovery(brokers, None, settings)
    try:
        addresses = await discovery.look()
    finally:
        await discovery.close()
    found: set[Place] = set()
    for address in addresses:
        found |= {_socket(address)} if address.path else await _resolved(address.host, address.port)
    return found


def _socket(address: Address) -> Place:
    return "unix", os.path.realpath(address.path)


async def _resolved(host: str, port: int) -> set[Place]:
    try:
        told = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return {(host, port)}  # the connection will say what is wrong with it
    return {(_plain(str(each[4][0])), port) for each in told}


def _plain(ip: str) -> str:
    """The address, out of the clothes that IPv6 may put on one of IPv4's (::ffff:127.0.0.1)."""
    address = ip_address(ip.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)
