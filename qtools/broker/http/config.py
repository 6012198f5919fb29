"""Options over HTTP, with nsqd's names: GET and PUT /config/OPTION. In: names, values. Out: values, or a Refusal.

As in nsqd, only `log_level` and `nsqlookupd_tcp_addresses` can be changed while the broker runs.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from qtools.broker.lookup import Lookups
from qtools.broker.options import LOG_LEVELS, Options
from qtools.errors import UsageError
from qtools.web.request_body import Refusal


class Config:
    """The options of a running broker."""

    def __init__(self, options: Options, lookups: Lookups) -> None:
        self._options = options
        self._lookups = lookups

    def get(self, name: str) -> bytes | Any:
        """The value of an option: a text as bytes, anything else for JSON. Raises Refusal."""
        known = self._options.by_name()
        if name not in known:
            raise Refusal(400, "INVALID_OPTION")
        value = known[name]
        return value.encode() if isinstance(value, str) else value

    def put(self, name: str, body: bytes) -> None:
        """Change an option. Raises Refusal."""
        if not body:
            raise Refusal(413, "INVALID_VALUE")
        if name == "log_level":
            level = body.decode("utf-8", "replace").strip().lower()
            if level not in LOG_LEVELS:
                raise Refusal(400, "INVALID_VALUE")
            self._options.log_level = level
            logging.getLogger("qtools").setLevel(LOG_LEVELS[level])
        elif name == "nsqlookupd_tcp_addresses":
            addresses = _addresses(body)
            try:
                self._lookups.follow(addresses)
            except UsageError as error:
                raise Refusal(400, "INVALID_VALUE") from error
            self._options.nsqlookupd_tcp_addresses = addresses
        else:
            raise Refusal(400, "INVALID_OPTION")


def _addresses(body: bytes) -> tuple[str, ...]:
    try:
        addresses = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "INVALID_VALUE") from error
    if addresses is None:
        return ()
    if not isinstance(addresses, list) or not all(isinstance(one, str) for one in addresses):
        raise Refusal(400, "INVALID_VALUE")
    return tuple(addresses)
