"""A broker in the foreground, until a signal. In: flags. Out: an exit status; on stderr where it listens."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from qtools.broker.daemon import Daemon
from qtools.broker.options import Options
from qtools.cli.logs import set_up
from qtools.cli.run import Signals, run_program

log = logging.getLogger("qtools.broker")

_VERBOSE = {"debug": 2, "info": 1, "warn": 0, "error": 0}


def run(flags: Mapping[str, Any]) -> int:
    """Serve as `flags` say."""
    given = dict(flags)
    given["auth_http_addresses"] = given.pop("auth_http_address")
    given["tls_client_auth_policy"] = given["tls_client_auth_policy"] or ""
    if given["tls_client_auth_policy"] and given["tls_required"] == "false":
        given["tls_required"] = "true"
    if given["broadcast_address"] is None:
        del given["broadcast_address"]
    options = Options(**given)
    set_up("q-broker", quiet=options.log_level == "error", verbose=_VERBOSE[options.log_level])

    async def serve(signals: Signals) -> int:
        daemon = Daemon(options)
        await daemon.start()
        signals.on_stop(daemon.stop)
        log.info("TCP on %s", daemon.tcp_address)
        if daemon.http_address:
            log.info("HTTP on %s", daemon.http_address)
        await daemon.serve()
        return 0

    return run_program(serve, server=True)
