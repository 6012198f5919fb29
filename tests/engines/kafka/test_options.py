"""Which settings a kafka:// URL, options, flags and the environment give; what would break a guarantee is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness.certificates import Certificates

from qtools.engines.choice import BrokerFlags, check_engines, choose_broker, engine_of
from qtools.engines.connection_options import ConnectionFlags
from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import StartError, UsageError


def settings_of(
    url: str, *, options: dict[str, str] | None = None, environ: dict[str, str] | None = None, **fields: Any
) -> KafkaSettings:
    flags = ConnectionFlags(fields, options or {})
    engine = engine_of("q-tail", choose_broker(BrokerFlags(broker=(url,))), flags, environ or {})
    check_engines(engine)
    assert isinstance(engine, KafkaEngine)
    return engine.settings


def test_hosts_and_tls(certificates: Certificates) -> None:
    assert settings_of("kafka://a,b:9093").hosts == ("a:9092", "b:9093")
    assert settings_of("kafkas://a").configuration()["security.protocol"] == "SSL"
    assert settings_of("kafka://a?tls=true").tls
    ca = str(certificates.ca)
    assert settings_of("kafka://a", tls=True, tls_ca=ca).configuration()["ssl.ca.location"] == ca
    with pytest.raises(StartError, match=r"cannot use the CA file .*\.py: it has no certificate in PEM"):
        settings_of("kafka://a", tls=True, tls_ca=__file__)
    with pytest.raises(StartError, match=r"cannot use the CA file /nowhere/ca.pem: No such file"):
        settings_of("kafka://a", tls=True, tls_ca="/nowhere/ca.pem")


def test_any_property_reaches_librdkafka() -> None:
    made = settings_of("kafka://a?compression.type=zstd", options={"linger_ms": "50"}).configuration()
    assert (made["compression.type"], made["linger.ms"]) == ("zstd", "50")


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("enable.auto.commit", "a message is committed when it is finished"),
        ("acks", "all replicas in sync"),
        ("enable_idempotence", "once and in order"),
        ("message.timeout.ms", "--retry-timeout"),
        ("group.id", "a channel's name"),
        ("sasl.password", "a secret on a command line"),
        ("message.max.bytes", "this program sets it"),
    ],
)
def test_a_property_that_breaks_a_guarantee_is_refused(key: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        settings_of("kafka://a", options={key: "0"})
    assert str(refused.value).startswith(f"--engine-option: {key}: it cannot be set: ")


def test_user_and_password(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2\n")
    made = settings_of("kafkas://a", secret_file=str(file), environ={"QTOOLS_KAFKA_USER": "me"})
    assert made.configuration()["security.protocol"] == "SASL_SSL"
    assert (made.mechanism, made.user, made.password) == ("PLAIN", "me", "hunter2")
    assert "hunter2" not in f"{made!r}{made}"
    environ = {"QTOOLS_KAFKA_USER": "me", "QTOOLS_KAFKA_PASSWORD": "p"}
    assert settings_of("kafka://a?sasl_mechanism=scram-sha-512", environ=environ).mechanism == "SCRAM-SHA-512"


def test_tokens() -> None:
    made = settings_of("kafkas://a?sasl_mechanism=oauthbearer&token_file=t")
    assert made.configuration()["sasl.mechanism"] == "OAUTHBEARER"
    with pytest.raises(UsageError, match="give token_command or token_file"):
        settings_of("kafkas://a?sasl_mechanism=OAUTHBEARER")


@pytest.mark.parametrize(
    ("url", "given", "why"),
    [
        ("kafka://a?sasl_mechanism=GSSAPI", {}, "is not one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER"),
        ("kafka://a?sasl_mechanism=PLAIN", {}, "needs a user and a password"),
        ("kafka://a?sasl.mechanism=GSSAPI", {}, "is not one of PLAIN"),
        ("kafka://a?sasl.username=me", {}, "PLAIN needs a user and a password"),
        ("kafka://a", {"secret_file": __file__}, "there is a password and no user"),
        ("kafka://a?tls=perhaps", {}, "neither true nor false"),
        ("kafkas://a?tls=false", {}, "leave out one"),
        ("kafka://a", {"snappy": True}, r"--snappy: Kafka \(--broker\) has no such setting: leave the flag out"),
        ("kafka://a", {"msg_timeout": 5000}, "--msg-timeout: Kafka"),
        ("kafka://a", {"tls_ca": "ca.pem"}, "need --tls, or a kafkas:// URL"),
        ("kafkas://a", {"tls_key": "k"}, "--tls-key needs --tls-cert"),
        ("kafka://me:secret@a", {}, "kafka://a:9092 has a password: every user"),
        ("kafka://a", {"options": {"\udcff": "1"}}, "the name of the option .* is not UTF-8"),
        ("kafka://a?client.rack=%ff", {}, "the option 'client.rack' is not UTF-8"),
        ("kafka://a?client.rack=a%00b", {}, "the option 'client.rack' has a NUL byte"),
        ("kafka://a?client_id=a%00b", {}, "client_id has a NUL byte"),
        ("kafkas://a?tls_ca=%ff", {}, "tls_ca is not UTF-8"),
        ("kafka://me@a", {}, "kafka://a:9092 has a user name: give it in QTOOLS_KAFKA_USER, with the password in"),
    ],
)
def test_contradictions(url: str, given: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        settings_of(url, **given)
    assert "secret" not in str(refused.value).replace("--auth-secret-file", "").replace("QTOOLS_AUTH_SECRET", "")


def test_a_secret_file_that_cannot_be_read() -> None:
    with pytest.raises(StartError, match="cannot read the secret file /nowhere: No such file"):
        settings_of("kafka://a", secret_file="/nowhere")
