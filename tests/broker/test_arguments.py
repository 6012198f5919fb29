"""nsqd's command lines and config files, given to q-broker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click
import pytest
from harness.brokers import nsqd_binary

from qtools.broker.arguments import IGNORED, from_go, read_config
from qtools.broker.command import main
from qtools.broker.core.block import message_ids
from qtools.broker.options import Options
from qtools.errors import StartError, UsageError

from .inside import Peer, identify, mpub, serving, subscribed
from .running import Running, running, until
from .test_program import q_broker

# What `nsqd --help` of 1.3.0 lists.
NSQD = re.findall(
    r"\S+",
    """
    auth-http-address broadcast-address broadcast-http-port broadcast-tcp-port config data-path deflate
    e2e-processing-latency-percentile e2e-processing-latency-window-time http-address http-client-connect-timeout
    http-client-request-timeout https-address log-level log-prefix lookupd-tcp-address max-body-size max-bytes-per-file
    max-channel-consumers max-deflate-level max-heartbeat-interval max-msg-size max-msg-timeout max-output-buffer-size
    max-output-buffer-timeout max-rdy-count max-req-timeout mem-queue-size min-output-buffer-timeout msg-timeout node-id
    output-buffer-timeout queue-scan-selection-count queue-scan-worker-pool-max snappy statsd-address
    statsd-exclude-ephemeral statsd-interval statsd-mem-stats statsd-prefix statsd-udp-packet-size sync-every
    sync-timeout tcp-address tls-cert tls-client-auth-policy tls-key tls-min-version tls-required tls-root-ca-file
    verbose version worker-id
""",
)


def ours() -> set[str]:
    return {name.removeprefix("--") for one in main.params for name in one.opts}


def test_every_flag_of_nsqd_is_honoured_or_named_as_ignored() -> None:
    assert {*NSQD} - ours() - IGNORED.keys() == set()
    assert not ours() & IGNORED.keys()


@pytest.mark.nsqd
def test_these_are_all_flags_of_nsqd() -> None:
    binary = nsqd_binary()
    assert binary is not None
    told = subprocess.run([binary, "--help"], capture_output=True, text=True, check=False).stderr
    assert sorted(re.findall(r"^  -([a-z0-9-]+)", told, re.MULTILINE)) == sorted(NSQD)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["-tcp-address=:4150"], ["--tcp-address=:4150"]),
        (["-tcp-address", ":4150"], ["--tcp-address", ":4150"]),
        (["--tcp-address", "-snappy=false"], ["--tcp-address", "-snappy=false"]),  # a value, however it looks
        (["-snappy=false", "--deflate=T"], ["--no-snappy", "--deflate"]),
        (["-snappy"], ["--snappy"]),
        (["-statsd-exclude-ephemeral=false", "-statsd-mem-stats=0"], ["--no-statsd-mem-stats"]),
        (["-tls-required=1"], ["--tls-required=true"]),
        (["-tls-required", "-snappy=true"], ["--tls-required", "--snappy"]),
        (["-tls-required=tcp-https"], ["--tls-required=tcp-https"]),
        (["-verbose=true", "-worker-id"], ["--verbose", "--worker-id"]),
        (["stop", "-force"], ["stop", "-force"]),
        (["--log-level", "warn", "--", "-snappy=false"], ["--log-level", "warn", "--", "-snappy=false"]),
        (["-h"], ["-h"]),
        (["-log-prefix="], ["--log-prefix="]),
        (["-tls-client-auth-policy=", "-snappy"], ["--snappy"]),
        (["-tcp-address"], ["--tcp-address"]),
    ],
)
def test_gos_flags_are_understood(given: list[str], meant: list[str]) -> None:
    assert from_go(given, main.params) == meant


def test_what_only_tunes_nsqds_files_is_ignored_with_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "nsqd.cfg"
    file.write_text("".join(f"{name.replace('-', '_')} = 5\n" for name in IGNORED))
    flags = [word for name in IGNORED for word in (f"-{name}=5", f"--{name}", "5")]
    with running("--config", str(file), *flags) as broker:
        assert broker.http
        for name, reason in IGNORED.items():
            assert broker.log.count(f"q-broker: --{name} is ignored: {reason}") == 2
            assert broker.log.count(f"q-broker: {name.replace('-', '_')} in {file} is ignored: {reason}") == 1


def test_an_ignored_flag_needs_its_value_all_the_same() -> None:
    done = q_broker("-sync-every")
    assert (done.returncode, done.stderr) == (2, "q-broker: --sync-every needs a value (see q-broker --help)\n")


# Values that nsqd 1.3.0 takes, of each of its flags that takes one and needs nothing beside it.
VALUES = {
    "auth-http-address": "127.0.0.1:1", "broadcast-address": "localhost", "broadcast-http-port": "4151",
    "broadcast-tcp-port": "4150", "deflate": "false", "e2e-processing-latency-percentile": "1.0,0.99",
    "e2e-processing-latency-window-time": "10m0s", "http-client-connect-timeout": "2s",
    "http-client-request-timeout": "5s", "https-address": "127.0.0.1:0", "log-level": "debug", "log-prefix": "[x] ",
    "lookupd-tcp-address": "127.0.0.1:1", "max-body-size": "5242880", "max-bytes-per-file": "104857600",
    "max-channel-consumers": "0", "max-deflate-level": "6", "max-heartbeat-interval": "1m0s", "max-msg-size": "1048576",
    "max-msg-timeout": "15m0s", "max-output-buffer-size": "65536", "max-output-buffer-timeout": "30s",
    "max-rdy-count": "2500", "max-req-timeout": "1h0m0s", "mem-queue-size": "0", "min-output-buffer-timeout": "25ms",
    "msg-timeout": "100ms", "node-id": "617", "output-buffer-timeout": "250ms", "queue-scan-selection-count": "20",
    "queue-scan-worker-pool-max": "4", "snappy": "true", "statsd-address": "127.0.0.1:1",
    "statsd-exclude-ephemeral": "true", "statsd-interval": "1m0s", "statsd-mem-stats": "false",
    "statsd-prefix": "nsq.%s", "statsd-udp-packet-size": "508", "sync-every": "2500", "sync-timeout": "2s",
    "tls-min-version": "tls1.0", "tls-required": "false", "verbose": "true", "worker-id": "true",
}  # fmt: skip


def test_every_flag_of_nsqd_with_one_dash_starts_it() -> None:
    beside = {"config", "data-path", "http-address", "tcp-address", "version"}  # given in every test here
    files = {"tls-cert", "tls-client-auth-policy", "tls-key", "tls-root-ca-file"}  # see test_upgrades.py
    assert {*VALUES} == {*NSQD} - beside - files
    with running(*(f"-{name}={value}" for name, value in VALUES.items())) as broker:
        until(lambda: any("HTTP: listening on" in line for line in broker.log) or broker.process.poll() is not None)
        assert broker.process.poll() is None, broker.log
        assert ask(broker, "msg_timeout") == 100_000_000
        assert sum("is ignored" in line for line in broker.log) == len(IGNORED)


def test_a_configuration_file_with_every_key_of_nsqds_example_starts_it(tmp_path: Path) -> None:
    file = tmp_path / "nsqd.cfg"
    file.write_text(
        """
        verbose = false
        id = 515
        tcp_address = "127.0.0.1:0"
        http_address = "127.0.0.1:0"
        https_address = "127.0.0.1:0"
        broadcast_address = ""
        nsqlookupd_tcp_addresses = [ "127.0.0.1:1" ]
        http_client_connect_timeout = "2s"
        http_client_request_timeout = "5s"
        mem_queue_size = 10000
        max_bytes_per_file = 104857600
        sync_every = 2500
        sync_timeout = "2s"
        msg_timeout = "60s"
        max_msg_timeout = "15m"
        max_msg_size = 1024768
        max_req_timeout = "1h"
        max_body_size = 5123840
        max_heartbeat_interval = "60s"
        max_rdy_count = 2500
        max_output_buffer_size = 65536
        max_output_buffer_timeout = "1s"
        statsd_address = "127.0.0.1:1"
        statsd_prefix = "nsq.%s"
        statsd_interval = "60s"
        statsd_mem_stats = true
        e2e_processing_latency_percentiles = [ 1.0, 0.99, 0.95 ]
        e2e_processing_latency_window_time = "10m"
        tls_cert = ""
        tls_key = ""
        tls_client_auth_policy = ""
        tls_root_ca_file = ""
        tls_required = false
        tls_min_version = ""
        deflate = true
        max_deflate_level = 6
        snappy = true
        """
    )
    with running("--config", str(file)) as broker:
        assert ask(broker, "max_msg_size") == 1_024_768
        assert ask(broker, "id") == 515
        assert sum("is ignored" in line for line in broker.log) == 3


def test_called_by_nsqds_name_it_answers_version_as_nsqd_does(tmp_path: Path) -> None:
    alias = tmp_path / "nsqd"
    alias.write_text(f"#!{sys.executable}\nfrom qtools.broker.command import main\nmain()\n")
    alias.chmod(0o755)
    for flag in ("--version", "-version", "-version=true"):
        done = subprocess.run([alias, flag], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(r"nsqd v1\.3\.0 \(q-broker \S+\)\n", done.stdout)
    assert re.fullmatch(r"q-broker \S+\n", q_broker("--version").stdout)


def config(text: str, tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "nsqd.cfg"
    file.write_text(text)
    return read_config(str(file), main.params, click.Context(main))


def test_a_config_file_says_what_flags_do(tmp_path: Path) -> None:
    text = """
        id = 7
        tcp_address = "127.0.0.1:0"
        msg_timeout = 61000
        max_msg_timeout = "2m"
        mem_queue_size = "500"
        max_msg_size = 2048
        snappy = false
        tls_required = false
        nsqlookupd_tcp_addresses = ["a:4160", "b:4160"]
        auth_http_addresses = "c:1,d:2"
        e2e_processing_latency_percentiles = [1.0, 0.99]
        statsd_prefix = "nsq.%s"
        verbose = true
        tls_client_auth_policy = ""
    """
    assert config(text, tmp_path) == {
        "node_id": "7",
        "tcp_address": "127.0.0.1:0",
        "msg_timeout": "61000ms",
        "max_msg_timeout": "2m",
        "mem_queue_size": "500",
        "max_msg_size": "2048",
        "snappy": False,
        "tls_required": "false",
        "lookupd_tcp_address": ["a:4160", "b:4160"],
        "auth_http_address": ["c:1", "d:2"],
        "e2e_processing_latency_percentile": ["1.0", "0.99"],
        "statsd_prefix": "nsq.%s",
        "verbose": True,
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("msg_timeout = 'soon'", "msg_timeout: 'soon' is not a duration"),
        ("statsd_interval = 5", "statsd_interval: 5ms is not at least 1s"),
        ("mem_queue_size = 'x'", "mem_queue_size: 'x' is not a whole number"),
        ("mem_queue_size = [5]", "mem_queue_size: takes one value"),
        ("snappy = 'maybe'", "snappy: takes true or false, not 'maybe'"),
        ("tls_min_version = 'ssl2'", "tls_min_version: 'ssl2' is not one of"),
        ("e2e_processing_latency_percentiles = '2'", "is no share above 0 and at most 1"),
        ("mem_que_size = 5", "has mem_que_size, which is no key of nsqd's: did you mean mem_queue_size?"),
        ("node_id = 5", "has node_id, which is no key of nsqd's: did you mean id?"),
        ("config = 'x'", "which is no key of nsqd's"),
        ("[table]\nx = 1", "has table, which is no key of nsqd's"),
        ("msg_timeout = = 5", "is not TOML: "),
    ],
)
def test_what_is_wrong_in_a_config_file_is_named(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        config(text, tmp_path)
    assert str(caught.value).startswith(f"--config {tmp_path / 'nsqd.cfg'}")
    assert "\n" not in str(caught.value)


def test_a_config_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="--config /no/such/file cannot be read: no such file or directory"):
        read_config("/no/such/file", main.params, click.Context(main))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not TOML"):
        read_config(str(tmp_path / "binary"), main.params, click.Context(main))


def ask(broker: Any, name: str) -> Any:
    host, port = broker.http
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/config/{name}", timeout=10) as answer:
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        return error.code
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


def test_a_flag_goes_before_the_file_and_the_file_before_the_default(tmp_path: Path) -> None:
    file = tmp_path / "nsqd.cfg"
    file.write_text('max_msg_size = 2048\nmsg_timeout = 30000\nlog_prefix = "[nsqd] "\nbroadcast_address = ""\n')
    with running("-config", str(file), "-msg-timeout=20s", "-max-body-size", "4096") as broker:
        assert ask(broker, "max_msg_size") == 2048
        assert ask(broker, "msg_timeout") == 20 * 10**9
        assert ask(broker, "max_body_size") == 4096
        assert ask(broker, "max_rdy_count") == 2500
        assert ask(broker, "broadcast_address")
        assert all(line.startswith("[nsqd] ") for line in broker.log)


def test_every_option_is_there_under_nsqds_name() -> None:
    keys = {name.replace("-", "_") for name in {*NSQD} - IGNORED.keys()}
    keys -= {"config", "verbose", "version", "worker_id"}  # which nsqd does not tell either
    keys -= {"lookupd_tcp_address", "auth_http_address", "e2e_processing_latency_percentile", "node_id"}
    keys |= {"nsqlookupd_tcp_addresses", "auth_http_addresses", "e2e_processing_latency_percentiles", "id"}
    with running("-node-id=617", "-e2e-processing-latency-percentile=0.5,1") as broker:
        told = {key: ask(broker, key) for key in keys}
    assert not [key for key, value in told.items() if value == 400]
    assert told["id"] == 617
    assert told["e2e_processing_latency_percentiles"] == [1, 0.5]
    assert told["output_buffer_timeout"] == 250_000_000


async def test_a_node_id_is_a_part_of_every_messages_id() -> None:
    for node in (0, 1023):
        async with serving(id=node) as daemon:
            consumer = await subscribed(daemon)
            producer = await Peer.to(daemon, mpub("t", *[b"x"] * 3))
            numbers = [int(message.id, 16) for message in await consumer.messages(3)]
            assert [number >> 53 for number in numbers] == [node] * 3
            assert numbers[1:] == [numbers[0] + 1, numbers[0] + 2]
            consumer.say(b"FIN %b\n" % message_ids(numbers[0], numbers[0] + 1)[0])
            await consumer.close()
            await producer.close()


def test_ids_go_on_where_time_is() -> None:
    options, year_2043 = Options(id=1023), 2_300_000_000 * 10**9
    assert options.first_id(year_2043) < 1 << 63  # sqlite has signed integers
    assert options.first_id(2000) < options.first_id(2000 + 256)
    assert Options(id=5).first_id(year_2043) + (1 << 40) < Options(id=6).first_id(0)
    assert Options().first_id(4711) == 4711


def test_a_node_id_that_would_go_back_is_told(tmp_path: Path) -> None:
    def publish(broker: Running) -> None:
        url = "http://{}:{}/pub?topic=t".format(*broker.http)
        assert urllib.request.urlopen(urllib.request.Request(url, b"x", method="POST"), timeout=10).read() == b"OK"

    for node, warned in ((900, False), (900, False), (5, True)):
        with running("--data-path", str(tmp_path), f"--node-id={node}") as broker:
            publish(broker)
            assert broker.stop() == 0
        assert any("stored messages have higher ids" in line for line in broker.log) == warned, broker.log


async def test_a_client_is_told_the_buffer_times_that_were_chosen() -> None:
    async with serving(output_buffer_timeout=0.05, min_output_buffer_timeout=0.04) as daemon:
        peer = await Peer.to(daemon, identify())
        assert json.loads(await peer.answer())["output_buffer_timeout"] == 50
        await peer.close()
        peer = await Peer.to(daemon, identify(output_buffer_timeout=39))
        assert (await peer.answer()).startswith(b"E_BAD_BODY IDENTIFY output buffer timeout (39) is invalid")
        await peer.close()


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error", "fatal"])
def test_a_log_level_says_no_more_than_it_should(level: str, tmp_path: Path) -> None:
    address = tmp_path / "socket"
    broker = Running(f"-log-level={level.upper()}", f"-tcp-address={address}", "-http-address=")
    try:
        until(address.exists)
        assert broker.stop() == 0
        assert bool(broker.log) == (level in ("debug", "info")), broker.log
    finally:
        broker.close()
