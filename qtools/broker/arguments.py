"""nsqd's command lines and configuration files. In: arguments; a TOML file. Out: arguments and defaults for click.

    -tcp-address=0.0.0.0:4150 -snappy=false     Go's flags: one dash or two, the value of a boolean after `=`
    msg_timeout = "60s"   max_msg_timeout = 900000        nsqd's keys; a bare number of time is in ms

A command line or a configuration file of nsqd starts q-broker as it is. Options that only tune nsqd's own files and
queues are ignored, with a warning that names the reason. An option that nsqd does not have is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from qtools.cli.types import Duration
from qtools.errors import StartError, UsageError

# Options of nsqd 1.3.0 that have no meaning here, and why. Each takes a value.
IGNORED = {
    "max-bytes-per-file": "all messages are in one database, there are no files to roll",
    "sync-every": "a message is written before it is answered, and --sync says whether it is synced too",
    "sync-timeout": "a message is written before it is answered, and --sync says whether it is synced too",
    "queue-scan-selection-count": "messages that time out are known by their deadlines, and not searched for",
    "queue-scan-worker-pool-max": "messages that time out are known by their deadlines, and not searched for",
}

# Keys of nsqd's config file that differ from the name of the flag by more than underscores.
_KEYS = {
    "lookupd-tcp-address": "nsqlookupd_tcp_addresses",
    "auth-http-address": "auth_http_addresses",
    "e2e-processing-latency-percentile": "e2e_processing_latency_percentiles",
    "node-id": "id",
}
_FLAG = re.compile(r"--?([a-z][a-z0-9-]+)(?:=(.*))?", re.DOTALL)
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # Go's strconv.ParseBool
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def _by_name(params: Sequence[click.Parameter]) -> dict[str, click.Option]:
    """Options by their long names, without dashes."""
    return {
        name.removeprefix("--"): one
        for one in params
        if isinstance(one, click.Option)
        for name in (*one.opts, *one.secondary_opts)
        if name.startswith("--")
    }


def _boolean(text: str, name: str = "") -> bool:
    if text not in _TRUE | _FALSE:
        raise UsageError(f"{name} takes true or false, not {text!r}".lstrip())
    return text in _TRUE


def from_go(arguments: Sequence[str], params: Sequence[click.Parameter], ignored: list[str] | None = None) -> list[str]:
    """Convert arguments in the form of Go's flags to that of click. Options without a meaning here go into
    `ignored`."""
    known = _by_name(params)
    out: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        found = _FLAG.fullmatch(argument)
        if found is None:
            out += [argument, *rest]  # a subcommand, or --: the arguments after it are not for q-broker itself
            break
        name, value = found[1], found[2]
        option = known.get(name)
        if name in IGNORED:
            if value is None and next(rest, None) is None:
                raise UsageError(f"--{name} needs a value")
            if ignored is not None:
                ignored.append(f"--{name} is ignored: {IGNORED[name]}")
            continue
        if option is not None and name == "tls-required" and value in _TRUE | _FALSE:
            value = str(_boolean(value)).lower()
        if option is not None and isinstance(option.type, click.Choice) and value == "":
            continue  # an empty value: the flag counts as left out
        if option is not None and option.is_flag and value is not None:
            if _boolean(value, f"--{name}"):
                out.append(f"--{name}")
            elif option.secondary_opts:
                out.append(option.secondary_opts[0])
            continue
        out.append(f"--{name}" if value is None else f"--{name}={value}")
        if option is not None and value is None and not option.is_flag and name != "tls-required":
            out += [following for following in (next(rest, None),) if following is not None]
    return out


def read_config(
    path: str, params: Sequence[click.Parameter], context: click.Context, ignored: list[str] | None = None
) -> dict[str, Any]:
    """Convert a config file of nsqd to click's default_map. Options without a meaning here go into `ignored`.

    Raises UsageError or StartError, which name the file and the key.
    """
    import tomllib

    try:
        with open(path, "rb") as file:
            settings = tomllib.loads(file.read().decode("utf-8-sig"))
    except OSError as error:
        raise StartError(f"--config {path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from error
    by_key = {
        _KEYS.get(name, name.replace("-", "_")): option
        for name, option in _by_name(params).items()
        if name not in ("config", "version", "help") and f"--{name}" in option.opts
    }
    chosen: dict[str, Any] = {}
    for key, value in settings.items():
        reason = IGNORED.get(key.replace("_", "-"))
        if reason is not None:
            if ignored is not None:
                ignored.append(f"{key} in {path} is ignored: {reason}")
            continue
        option = by_key.get(key)
        if option is None or option.name is None:
            from difflib import get_close_matches

            meant = _KEYS.get(key.replace("_", "-"))
            near = [meant] if meant else get_close_matches(key, by_key, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise UsageError(f"--config {path} has {key}, which is no key of nsqd's{hint}")
        if value == "" and isinstance(option.type, click.Choice):
            continue  # as in nsqd: the option counts as left out
        try:
            chosen[option.name] = _read(option, value)
            option.type_cast_value(context, chosen[option.name])
        except (click.ClickException, UsageError) as error:
            text = error.message.rstrip(".") if isinstance(error, click.ClickException) else str(error)
            raise UsageError(f"--config {path}: {key}: {text}") from error
    return chosen


def _read(option: click.Option, value: Any) -> Any:
    """Convert a TOML value to the text that the flag takes on a command line."""
    if isinstance(value, (Mapping, list)) and not (isinstance(value, list) and option.multiple):
        raise UsageError("takes one value")
    if option.multiple:
        several = value if isinstance(value, list) else str(value).split(",")
        return [str(one).strip() for one in several]
    if option.is_flag:
        return value if isinstance(value, bool) else _boolean(str(value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(option.type, Duration) and isinstance(value, int):
        return f"{value}ms"
    return str(value)
