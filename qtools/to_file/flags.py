"""Checks the flags of q-to-file together. In: the values from click. Out: ArchiveOptions, or UsageError."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click

from qtools.cli import options as shared
from qtools.cli.broker import check_names, engine_of, topics_of
from qtools.cli.schemas.options import decoder_if_given
from qtools.errors import ExpressionError, UsageError
from qtools.expressions.expression import Expression, compile_expression
from qtools.names import LONGEST_NAME, check_channel, parse_source
from qtools.paths import state_directory
from qtools.to_file.archive.archive import Rotation
from qtools.to_file.archive.compression import LEVELS
from qtools.to_file.archive.layout import DEFAULT_NAME, DEFAULT_PARTITION, EXTENSIONS, LONGEST_TOPIC, OFFSETS_NAME
from qtools.to_file.options import ArchiveOptions, DedupeOptions, Sync

LATENESS = 600.0  # s
OPEN_FILES = 64
OPEN_FILES_OF_LOG = 256  # one for each partition that this process reads; each has two descriptors
DEDUPE_WINDOW = 3600.0  # s
DEDUPE_KEYS = 1_000_000


def options_of(sources: tuple[str, ...], given: dict[str, Any]) -> ArchiveOptions:
    """The options for the flags in `given`; UsageError if they do not go together."""
    show = shared.set_up_logging("q-to-file", given)
    given["is_default_format"] = _is_default("format")
    if given["format"] != "raw" and (given["delimiter"] is not None or given["null"]):
        raise UsageError("--delimiter and -0 go with --format raw only")
    where = _output_of(given)
    readers = [given[name] for name in ("where", "select", "partition_by", "dedupe")]
    decoder = decoder_if_given(given, readers, "--where, --partition-by, --dedupe, or --select (. stores it as JSON)")
    channel = check_channel(given.pop("channel"), LONGEST_NAME)
    compression, level = _compression_of(given)
    partition, partition_by = given.pop("partition_format") or "", given.pop("partition_by")
    if partition_by is not None:
        partition = partition or DEFAULT_PARTITION
    pattern = _pattern_of(given)
    address, names = topics_of(sources, "q-to-file reads from")
    parsed = tuple(dict.fromkeys(parse_source(source, channel, LONGEST_NAME) for source in names))
    if len({source.topic for source in parsed}) < len(parsed):
        raise UsageError("give each topic once: two channels of it would be archived twice")
    engine = engine_of("q-to-file", given, address)
    check_names(engine, parsed)
    check_channel(channel, engine.capabilities.longest_name)
    can = engine.capabilities
    # With --dedupe the keys tell what is archived already.
    by_offsets = can.exclusive_partitions and given["dedupe"] is None
    default = OFFSETS_NAME if by_offsets else DEFAULT_NAME
    name = given.pop("filename_format") or default + EXTENSIONS[given["format"]]
    if "<TOPIC>" not in name and (len(parsed) > 1 or pattern is not None):
        raise UsageError("--filename-format needs <TOPIC> where there may be several")
    for topic, _ in parsed:
        if "<TOPIC>" in name and len(topic) > LONGEST_TOPIC:
            raise UsageError(f"{topic} is too long for the name of a file: give --filename-format without <TOPIC>")
    lateness = given.pop("lateness")
    if not given.pop("complete_marker"):
        if lateness is not None:
            raise UsageError("--lateness goes with --complete-marker only")
    elif not partition:
        raise UsageError("--complete-marker needs --partition-by or --partition-format")
    elif not where.get("spool", True):
        raise UsageError("--complete-marker needs a work directory: it does not go with --no-spool")
    else:
        lateness = LATENESS if lateness is None else lateness
    given["max_open_files"] = given["max_open_files"] or (OPEN_FILES_OF_LOG if by_offsets else OPEN_FILES)
    given["max_in_flight"] = given["max_in_flight"] or engine.capabilities.default_max_in_flight
    return ArchiveOptions(
        sources=parsed,
        engine=engine,
        ends=shared.ends_of(given),
        delimiter=shared.delimiter_of(given),
        operations=shared.operations_of(given),
        rules=shared.filter_of(given, "pass"),
        decoder=decoder,
        compression=compression,
        level=level,
        name=name,
        host=given.pop("host_identifier") or socket.gethostname().partition(".")[0],
        partition=partition,
        partition_by=None if partition_by is None else _expression("--partition-by", partition_by),
        rotation=Rotation(given.pop("rotate_size"), given.pop("rotate_interval"), given.pop("rotate_count")),
        sync=Sync(
            given.pop("sync_count") or max(1, given["max_in_flight"] // 2),
            given.pop("sync_bytes"),
            given.pop("sync_interval") or (1.0 if where.get("spool", True) else 10.0),
        ),
        dedupe=_dedupe_of(given, where),
        by_offsets=by_offsets,
        lateness=lateness,
        pattern=pattern,
        channel=channel,
        show=show,
        **where,
        **given,
    )


def _is_default(name: str) -> bool:
    """Whether the flag `name` was not given, neither on the command line nor otherwise."""
    return click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.DEFAULT


def _output_of(given: dict[str, Any]) -> dict[str, Any]:
    """The options for the work directory, the output directory or spool, and the store."""
    output, work, spool = given.pop("output_dir") or "", given.pop("work_dir"), given.pop("spool_dir")
    endpoint, direct = given.pop("s3_endpoint") or "", given.pop("no_spool")
    if not output:
        raise UsageError("give --output: a directory, or s3://BUCKET/PREFIX, gs://…, az://…")
    scheme, separator, rest = output.partition("://")
    if not separator or scheme == "file":
        if endpoint or direct or spool:
            raise UsageError("--s3-endpoint, --spool-dir and --no-spool go with --output s3://…, gs://… or az://…")
        if separator and not rest.startswith("/"):
            raise UsageError(f"--output {output!r} is not absolute: file:///DIRECTORY")
        place = Path(unquote(rest) if separator else output)
        return {"output": place, "work_dir": Path(work) if work else place / ".work"}
    if scheme not in ("s3", "gs", "az"):
        raise UsageError(f"--output {output!r} is neither a directory nor s3://…, gs://…, az://…")
    if direct:
        if spool or work or given["skip_if_running"]:
            raise UsageError("--spool-dir, --work-dir and --skip-if-running mean nothing with --no-spool")
        if any(given[name] for name in ("rotate_size", "rotate_interval", "rotate_count")):
            raise UsageError("--rotate-… means nothing with --no-spool: what is synced together is an object")
        return {"output": Path(), "work_dir": Path(), "store": output, "s3_endpoint": endpoint, "spool": False}
    place = Path(spool) if spool else default_spool(output)
    work_dir = Path(work) if work else place / ".work"
    return {"output": place, "work_dir": work_dir, "store": output, "s3_endpoint": endpoint}


def _dedupe_of(given: dict[str, Any], where: dict[str, Any]) -> DedupeOptions | None:
    key, path = given.pop("dedupe"), given.pop("dedupe_file")
    window, most = given.pop("dedupe_window"), given.pop("dedupe_keys")
    if key is None:
        if path or window is not None or most is not None:
            raise UsageError("--dedupe-file, --dedupe-window and --dedupe-keys go with --dedupe only")
        return None
    if not path and not where.get("spool", True):
        raise UsageError("--dedupe with --no-spool needs --dedupe-file: there is no work directory to keep keys in")
    place = Path(path) if path else where["work_dir"] / "dedupe"
    return DedupeOptions(_expression("--dedupe", key), place, window or DEDUPE_WINDOW, most or DEDUPE_KEYS)


def default_spool(url: str) -> Path:
    """The default spool for the store at `url`, which is different for each store."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", url)[:100]
    return state_directory() / "spool" / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _expression(flag: str, text: str) -> Expression:
    try:
        return compile_expression(text)
    except ExpressionError as error:
        raise UsageError(f"{flag}: {error}") from error


def _compression_of(given: dict[str, Any]) -> tuple[str, int | None]:
    compression, gzip, level = given.pop("compression"), given.pop("gzip"), given.pop("compression_level")
    if gzip and compression not in (None, "gzip"):
        raise UsageError(f"give --gzip or --compression {compression}, not both")
    compression = "gzip" if gzip else compression or "none"
    if level is not None:
        levels = LEVELS.get(compression)
        if levels is None:
            raise UsageError("--compression-level needs --compression gzip or zstd")
        if level not in levels:
            raise UsageError(f"--compression-level of {compression} is {levels[0]} to {levels[-1]}, not {level}")
    return compression, level


def _pattern_of(given: dict[str, Any]) -> re.Pattern[str] | None:
    regex, glob = given.pop("topic_pattern"), given.pop("topic_glob")
    if regex and glob:
        raise UsageError("give --topic-pattern or --topic-glob, not both")
    if glob:
        regex = r"\A" + fnmatch.translate(glob)
    if not regex:
        return None
    try:
        return re.compile(regex)
    except re.error as error:
        raise UsageError(f"--topic-pattern {regex!r} is no regular expression: {error}") from error
