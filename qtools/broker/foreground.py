"""A broker in the foreground, until a signal. In: flags. Out: an exit status; its addresses on stderr."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qtools.broker.daemon import Daemon
from qtools.broker.lock import holder, try_lock
from qtools.broker.options import LOG_LEVELS, Options
from qtools.cli.logs import set_up
from qtools.cli.run import Signals, run_program
from qtools.errors import StartError, UsageError
from qtools.paths import broker_data, make_directory

log = logging.getLogger("qtools.broker")


def prepare(directory: Path) -> None:
    """Make the data directory, and lock it for this process. Raises StartError."""
    try:
        make_directory(directory)
    except OSError as error:
        raise StartError(f"cannot use --data-path {directory}: {(error.strerror or str(error)).lower()}") from error
    if try_lock(directory) is None:
        by = holder(directory)
        raise StartError(
            f"{directory} is used by another broker{f' (pid {by})' if by else ''}: choose another --data-path"
        )


def run(flags: Mapping[str, Any], ignored: Sequence[str] = ()) -> int:
    """Serve with the options `flags`. ignored: sentences for the log, about options that have no meaning here."""
    given = {name: value for name, value in flags.items() if name not in ("config", "verbose", "worker_id")}
    given["auth_http_addresses"] = given.pop("auth_http_address")
    given["id"] = given.pop("node_id")
    given["nsqlookupd_tcp_addresses"] = given.pop("lookupd_tcp_address")
    shares = given.pop("e2e_processing_latency_percentile")
    given["e2e_processing_latency_percentiles"] = tuple(sorted({one for some in shares for one in some}, reverse=True))
    given["tls_client_auth_policy"] = given["tls_client_auth_policy"] or ""
    if given["tls_client_auth_policy"] and given["tls_required"] == "false":
        given["tls_required"] = "true"
    if not given["broadcast_address"]:
        del given["broadcast_address"]
    given["max_memory"] = given["max_memory"] or 0
    retain = given.pop("retain")
    given["retain_age"], given["retain_size"] = retain if retain is not None else (0.0, 0)
    in_memory = given.pop("memory")
    if in_memory and given["data_path"]:
        raise UsageError("--memory and --data-path exclude each other: give one of them")
    given["data_path"] = "" if in_memory else given["data_path"] or str(broker_data())
    as_json = given.pop("log_format") == "json"
    options = Options(**given)
    set_up("q-broker", as_json=as_json, prefix=options.log_prefix)
    logging.getLogger("qtools").setLevel(LOG_LEVELS[options.log_level])
    for sentence in ignored:
        log.warning("%s", sentence)

    async def serve(signals: Signals) -> int:
        if options.data_path:
            prepare(Path(options.data_path))
        daemon = Daemon(options)
        await daemon.start()
        signals.on_stop(daemon.stop)
        log.info("TCP: listening on %s", daemon.tcp_address)  # nsqd's text: scripts wait for it
        if daemon.http_address:
            log.info("HTTP: listening on %s", daemon.http_address)
        if daemon.https_address:
            log.info("HTTPS: listening on %s", daemon.https_address)
        log.info("messages in %s", f"{options.data_path} (--sync {options.sync})" if options.data_path else "memory")
        await daemon.serve()
        return 0

    return run_program(serve, server=True)
