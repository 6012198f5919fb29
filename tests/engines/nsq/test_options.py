"""NSQ's options by key: what a text or a value of TOML becomes, and what is refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from qtools.engines.connection_options import convert_options
from qtools.engines.nsq.options import ENGINE
from qtools.engines.nsq.settings import Settings
from qtools.errors import UsageError


@pytest.mark.parametrize(
    ("key", "value", "made"),
    [
        ("client_id", "me", {"client_id": "me"}),
        ("tls", "true", {"tls": True}), ("tls", True, {"tls": True}), ("tls", "OFF", {"tls": False}),
        ("tls_insecure_skip_verify", "1", {"tls_insecure": True}),
        ("deflate_level", "9", {"deflate_level": 9}), ("deflate_level", 1, {"deflate_level": 1}),
        ("msg_timeout", "1m30s", {"msg_timeout": 90_000}), ("msg_timeout", 2, {"msg_timeout": 2000}),
        ("heartbeat_interval", 1.5, {"heartbeat_interval": 1500}),
        ("nsqd_http_address", "a:1,b:2", {"nsqd_http": ["a:1", "b:2"]}),
        ("auth_secret_file", "s", {"secret_file": "in/s"}), ("password-file", "s", {"secret_file": "in/s"}),
        ("tls_ca", "c", {"tls_ca": "in/c"}),
    ],
)  # fmt: skip
def test_a_value_is_converted(key: str, value: Any, made: dict[str, Any]) -> None:
    assert convert_options(ENGINE, {key: value}, "x", "in/{}".format) == made


def test_every_option_is_a_field_of_settings() -> None:
    known = {field.name for field in fields(Settings)} | {"secret_file", "tls_key_password_file", "nsqd_http"}
    assert {option.field for option in ENGINE.options.values()} <= known


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tls", "maybe", "x: tls: 'maybe' is neither true nor false"),
        ("tls", 2, "x: tls: 2 is neither true nor false"),
        ("client_id", "", "x: client_id: it is empty"),
        ("client_id", 7, "x: client_id: 7 is not a string"),
        ("tls_ca", True, "x: tls_ca: True is not a string"),
        ("deflate_level", "0", "x: deflate_level: '0' is not a whole number from 1 to 9"),
        ("deflate_level", 10, "x: deflate_level: 10 is not a whole number from 1 to 9"),
        ("deflate_level", True, "x: deflate_level: True is not a whole number from 1 to 9"),
        ("deflate_level", "²", "x: deflate_level: '²' is not a whole number from 1 to 9"),
        ("msg_timeout", "soon", "x: msg_timeout: 'soon' is not a duration such as 250ms, 10s, 1m30s or 2h"),
        ("msg_timeout", True, "x: msg_timeout: True is not a duration such as 250ms, 10s, 1m30s or 2h"),
        ("msg_timeout", "999ms", "x: msg_timeout: 999ms is not 1s to 15m"),
        ("msg_timeout", float("nan"), "x: msg_timeout: nan is not 1s to 15m"),
        ("heartbeat_interval", "2h", "x: heartbeat_interval: 2h is not 1s to 60m"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        convert_options(ENGINE, {key: value}, "x")
    assert str(caught.value) == message


def test_an_unknown_key_is_an_error_with_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        convert_options(ENGINE, {"tls_caa": ""}, "--engine-option")
    assert str(caught.value).startswith("--engine-option: unknown option 'tls_caa' of NSQ; known are auth_secret_file,")
