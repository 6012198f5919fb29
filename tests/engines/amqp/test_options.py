"""Settings of amqp:// from URLs, options and the environment, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest

from qtools.engines.amqp.engine import AmqpEngine
from qtools.engines.choice import BrokerFlags, choose_broker, engine_of
from qtools.engines.connection_options import ConnectionFlags
from qtools.errors import StartError, UsageError

USER = {"QTOOLS_AMQP_USER": "archivist", "QTOOLS_AMQP_PASSWORD": "secret"}


def engine(
    url: str, environ: dict[str, str] | None = None, options: dict[str, str] | None = None, **fields: Any
) -> AmqpEngine:
    choice = choose_broker(BrokerFlags(broker=[url]), environ={})
    made = engine_of("tests", choice, ConnectionFlags(fields, options or {}), environ or {})
    assert isinstance(made, AmqpEngine)
    return made


def test_a_url() -> None:
    made = engine("amqp://r1,r2:5673?vhost=%2Fshop&queue=old")
    assert made.settings.hosts == ("r1:5672", "r2:5673")
    assert (made.settings.vhost, made.settings.queue, made.settings.tls) == ("/shop", "old", False)
    assert str(made) == "r1:5672,r2:5673"
    assert (made.settings.login().user, made.settings.login().password) == ("guest", "guest")


def test_tls_has_a_port_of_its_own() -> None:
    made = engine("amqps://r1")
    assert (made.settings.hosts, made.settings.tls) == (("r1:5671",), True)


def test_user_and_password() -> None:
    made = engine("amqp://r1", USER)
    assert (made.settings.login().user, made.settings.login().password) == ("archivist", "secret")
    assert "secret" not in repr(made.settings)


def test_options() -> None:
    options = {
        "heartbeat_interval": "5s", "queue_type": "classic", "exchange_type": "topic", "management": "http://r1:15672/",
        "sasl_mechanism": "plain",
    }  # fmt: skip
    found = engine("amqp://r1", options=options).settings
    assert (found.heartbeat, found.queue_type, found.exchange_type) == (5, "classic", "topic")
    assert (found.management, found.mechanism) == ("http://r1:15672", "PLAIN")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"queue_type": "stream"}, "queue_type: 'stream' is not one of quorum, classic"),
        ({"exchange_type": "direct"}, "exchange_type: 'direct' is not one of fanout, topic, headers"),
        ({"sasl_mechanism": "SCRAM"}, "sasl_mechanism: 'SCRAM' is not one of PLAIN, EXTERNAL"),
        ({"sasl_mechanism": "EXTERNAL"}, "EXTERNAL authenticates by a certificate: give amqps:// and --tls-cert"),
        ({"heartbeat_interval": "0s"}, "heartbeat_interval: 0s is not 1s to 60m"),
        ({"management": "r1:15672"}, "management: 'r1:15672' is no URL such as http://HOST:15672"),
        ({"management": "http://u:p@r1"}, "management: it has a user and a password"),
        ({"queue": "x" * 201}, "queue: it has more than 200 bytes"),
        ({"prefetch": "5"}, "unknown option 'prefetch' of RabbitMQ"),
    ],
)
def test_wrong_options(options: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        engine("amqp://r1", options=options)


def test_a_password_without_a_user() -> None:
    with pytest.raises(UsageError, match="a password and no user: give user in a profile, or QTOOLS_AMQP_USER"):
        engine("amqp://r1", {"QTOOLS_AMQP_PASSWORD": "secret"})


def test_a_flag_of_another_engine() -> None:
    with pytest.raises(UsageError, match=r"--snappy: RabbitMQ .* has no such setting"):
        engine("amqp://r1", snappy=True)


def test_a_password_on_a_command_line() -> None:
    with pytest.raises(UsageError, match="QTOOLS_AMQP_PASSWORD"):
        engine("amqp://u:secret@r1")


def test_topics_need_the_management() -> None:
    with pytest.raises(
        StartError, match=r"AMQP does not tell which exchanges there are: .* management=http://HOST:15672"
    ):
        engine("amqp://r1").topics()
