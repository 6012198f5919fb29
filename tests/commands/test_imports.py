"""What a plain run imports: a message published or printed, with no flag but the broker's.

Each module costs a quarter millisecond of every start, and a library many. What only some runs use is imported there.
"""

from __future__ import annotations

import re
import sys

import pytest
from harness.brokers import Broker
from harness.shell import NOT_MEASURED, Shell

BASE = """
    qtools qtools.attributes qtools.backoff qtools.descriptors qtools.durations qtools.entry qtools.errors
    qtools.host_port qtools.message qtools.names qtools.receive_buffer
    qtools.cli qtools.cli.broker qtools.cli.ending qtools.cli.flag_rules qtools.cli.logs qtools.cli.metrics
    qtools.cli.metrics.operations
    qtools.cli.options qtools.cli.program qtools.cli.progress_line qtools.cli.run qtools.cli.types qtools.cli.worker
    qtools.cli.schemas qtools.cli.schemas.options
    qtools.engines qtools.engines.capabilities qtools.engines.choice qtools.engines.connection_options
    qtools.engines.contract qtools.engines.requirements qtools.engines.url
    qtools.engines.connections qtools.engines.connections.keep_connected
    qtools.engines.connections.open_connection qtools.engines.connections.stream_connection
    qtools.engines.nsq qtools.engines.nsq.address qtools.engines.nsq.connect qtools.engines.nsq.connection
    qtools.engines.nsq.connection_pool qtools.engines.nsq.discovery qtools.engines.nsq.engine
    qtools.engines.connections.in_flight qtools.engines.nsq.options qtools.engines.nsq.settings
    qtools.engines.nsq.protocol qtools.engines.nsq.protocol.client_states qtools.engines.nsq.protocol.commands
    qtools.engines.nsq.protocol.frames qtools.engines.nsq.protocol.identify
    qtools.engines.nsq.protocol.session qtools.engines.nsq.protocol.stamped_messages
    qtools.engines.nsq.protocol.transforms
    qtools.flow qtools.flow.contract qtools.flow.gather qtools.flow.loop qtools.flow.throttle
    qtools.formats qtools.formats.lines
"""
PIPE = """
    qtools.cli.checkpoint qtools.cli.metrics.histogram qtools.cli.upload_run
    qtools.engines.nsq.publish qtools.engines.nsq.publish.batch_splitter qtools.engines.nsq.publish.load_balancing
    qtools.engines.nsq.publish.publish_queue qtools.engines.nsq.publish.publisher
    qtools.flow.ledger qtools.flow.topic_sink
    qtools.pipe qtools.pipe.app qtools.pipe.blocks qtools.pipe.command qtools.pipe.input qtools.pipe.options
"""
TAIL = """
    qtools.cli.consume_run qtools.imports
    qtools.engines.nsq.consume qtools.engines.nsq.consume.backlog_guard qtools.engines.nsq.consume.backlog_warnings
    qtools.engines.nsq.consume.consumer qtools.engines.nsq.consume.drain qtools.engines.connections.flow_control
    qtools.engines.nsq.consume.source qtools.engines.nsq.http_client
    qtools.formats.encoders
    qtools.tail qtools.tail.app qtools.tail.command qtools.tail.flags qtools.tail.options qtools.tail.output
"""
# Libraries and slow modules of Python. asyncio and click import some slow ones too, which are not listed.
SLOW = frozenset({"httpx", "isal", "orjson", "uvloop", "sqlite3", "tomllib", "pathlib", "urllib.request"})


@NOT_MEASURED
@pytest.mark.parametrize(
    ("function", "words", "may_import"),
    [("pipe", ["TOPIC"], BASE + PIPE), ("tail", ["TOPIC/me", "-n", "1"], BASE + TAIL)],
    ids=["pipe", "tail"],
)
def test_a_plain_run_imports_little(
    function: str, words: list[str], may_import: str, shell: Shell, broker: Broker, topic: str
) -> None:
    assert shell.run("q-pipe", topic, *broker.flags, input=b"before\n").status == 0
    words = [word.replace("TOPIC", topic) for word in words]
    program = [sys.executable, "-X", "importtime", "-c", f"from qtools.entry import {function}; {function}()"]
    done = shell.run(f"q-{function}", argv=[*program, *words, *broker.flags], input=b"a\n")
    assert done.status == 0
    imported = set(re.findall(r"^import time:[ 0-9|]+ (\S+)$", done.err, re.MULTILINE))
    ours = {name for name in imported if name.split(".")[0] == "qtools"}
    assert ours - set(may_import.split()) == set()
    assert imported & SLOW == set()
