"""Which cluster it is that some addresses lead to. In: brokers. Out: names of its processes.

Two lists of brokers are the same cluster when they share an nsqd or an nsqlookupd, whatever it is called: host names
are resolved, and an nsqlookupd is asked which nsqds it knows.
"""

from __future__ import annotations

import asyncio
import os
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.settings import Settings

Name = tuple[str, ...]  # ("nsqd" or "nsqlookupd", IP address, port), or ("nsqd", path of a unix socket)


async def cluster_identity(brokers: Brokers, settings: Settings) -> frozenset[Name]:
    """The names of all nsqlookupds and nsqds of `brokers`. StartError when no nsqlookupd answers."""
    found: set[Name] = set()
    for base in brokers.lookupd:
        parts = urlsplit(base)
        found |= await _resolved("nsqlookupd", parts.hostname or "", parts.port or 80)
    discovery = Discovery(brokers, None, settings)
    try:
        addresses = await discovery.look()
    finally:
        await discovery.close()
    for address in addresses:
        if address.path:
            found.add(("nsqd", os.path.realpath(address.path)))  # noqa: ASYNC240 - a local path, looked at once
        else:
            found |= await _resolved("nsqd", address.host, address.port)
    return frozenset(found)


async def _resolved(kind: str, host: str, port: int) -> set[Name]:
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return {(kind, host, str(port))}  # connecting will tell what is wrong with it
    return {(kind, _plain(str(each[4][0])), str(port)) for each in answers}


def _plain(ip: str) -> str:
    """The address; one of IPv4 that is written as one of IPv6 (::ffff:127.0.0.1) as IPv4."""
    address = ip_address(ip.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)
