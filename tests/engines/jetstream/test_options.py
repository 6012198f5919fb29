"""Options of nats:// URLs, profiles and --engine-option: what they become, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from qtools.engines.jetstream.engine import JetStreamEngine
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.errors import UsageError
from tests.engines.jetstream.test_connection import SEED
from tests.engines.jetstream.using import engine


def settings_of(
    url: str, environ: dict[str, str] | None = None, fields: Any = None, **options: str
) -> JetStreamSettings:
    return cast(JetStreamEngine, engine(url, environ, fields, **options)).settings


def test_what_a_url_says() -> None:
    made = settings_of(
        "natss://a,b:1/?ping_interval=2s&ack-wait=1m&domain=hub", stream_max_age="1d", stream_replicas="3"
    )
    assert made.hosts == ("a:4222", "b:1")
    assert (made.tls, made.ping_interval, made.ack_wait, made.domain) == (True, 2.0, 60.0, "hub")
    assert dict(made.stream) == {"max_age": 86_400_000_000_000, "num_replicas": 3}
    assert made.api_prefix == "$JS.hub.API."
    assert (str(made), made.client_name[:6]) == ("a:4222,b:1", "tests/")


def test_no_secret_is_shown() -> None:
    made = settings_of("a", {"QTOOLS_NATS_USER": "u", "QTOOLS_NATS_PASSWORD": "hush"})
    assert (made.user, made.password, made.token) == ("u", "hush", "")
    assert "hush" not in repr(made) + str(made)


def test_a_secret_without_a_user_is_a_token(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hush\n")
    assert settings_of("a", {"QTOOLS_NATS_PASSWORD": "hush"}).token == "hush"
    assert settings_of("a", password_file=str(file)).token == "hush"
    assert settings_of("a", fields={"secret_file": str(file)}).token == "hush"
    made = settings_of("a", password_file=str(file), user="u")
    assert (made.user, made.password, made.token) == ("u", "hush", "")
    assert settings_of("a").token == ""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"nothing": "1"}, "--engine-option: unknown option 'nothing' of NATS; known are ack_wait, "),
        ({"ping_interval": "soon"}, "--engine-option: ping_interval: 'soon' is not a duration"),
        ({"ping_interval": "1ms"}, "--engine-option: ping_interval: '1ms' is not between 50ms and 1d"),
        ({"stream_replicas": "0"}, "--engine-option: stream_replicas: '0' is not a number above 0"),
        ({"stream_storage": "tape"}, "--engine-option: stream_storage: 'tape' is not one of file, memory"),
        ({"tls_first": "perhaps"}, "--engine-option: tls_first: 'perhaps' is neither true nor false"),
    ],
)
def test_what_is_refused(options: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings_of("a", **options)
    assert str(caught.value).startswith(text)


def test_one_way_to_say_who_the_user_is(tmp_path: Path) -> None:
    file = tmp_path / "seed"
    file.write_text(SEED)
    assert settings_of("a", nkey_file=str(file)).nkey_seed == SEED
    with pytest.raises(UsageError, match="creds_file and nkey_file both say who the user is"):
        settings_of("a", nkey_file=str(file), creds_file=str(file))


def test_flags_of_nsq_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--msg-timeout: NATS \(--broker\) has no such setting: leave the flag out"):
        settings_of("a", fields={"msg_timeout": 1000})
