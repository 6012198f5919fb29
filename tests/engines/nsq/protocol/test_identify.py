"""The handshake's values: what is asked, what is granted, and the words of refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qtools.engines.nsq.protocol.identify import IdentifyRequest, IdentifyResponse
from qtools.engines.nsq.protocol.negotiate import NegotiatedClient, NotGranted, ServerLimits, negotiate
from qtools.errors import ProtocolError


def asked(grants: ServerLimits | None = None, **fields: Any) -> NegotiatedClient:
    body = json.dumps({"feature_negotiation": True, **fields}).encode()
    return negotiate(body, grants or ServerLimits())


def refused(grants: ServerLimits | None = None, **fields: Any) -> str:
    with pytest.raises(NotGranted) as caught:
        asked(grants, **fields)
    return f"{caught.value.code} {caught.value.text}"


def test_what_a_client_wishes_is_what_a_broker_reads() -> None:
    wishes = IdentifyRequest(
        client_id="me", hostname="here", user_agent="qtools/1", heartbeat_interval=5000, msg_timeout=9000, deflate=True
    )
    client = negotiate(wishes.encode(), ServerLimits())
    assert client == NegotiatedClient(
        client_id="me",
        hostname="here",
        user_agent="qtools/1",
        heartbeat_interval=5000,
        msg_timeout=9000,
        negotiates=True,
        agreed=IdentifyResponse(
            version="1.3.0",
            msg_timeout=9000,
            deflate=True,
            output_buffer_size=65536,
            output_buffer_timeout=25,
        ),
    )


def test_what_a_broker_agreed_to_is_what_a_client_reads() -> None:
    agreed = asked(ServerLimits(tls=True, auth_required=True), tls_v1=True, snappy=True, sample_rate=7).agreed
    assert agreed.tls_v1
    assert agreed.snappy
    assert agreed.auth_required
    assert IdentifyResponse.decode(agreed.encode()) == agreed


def test_the_answer_is_the_json_that_nsqd_gives() -> None:
    assert asked().agreed.encode() == (
        b'{"version":"1.3.0","max_rdy_count":2500,"msg_timeout":60000,"max_msg_timeout":900000,"tls_v1":false,'
        b'"snappy":false,"deflate":false,"deflate_level":6,"max_deflate_level":6,"sample_rate":0,'
        b'"auth_required":false,"output_buffer_size":16384,"output_buffer_timeout":250}'
    )


@pytest.mark.parametrize(
    ("field", "words", "least", "most", "default", "off"),
    [
        ("heartbeat_interval", "heartbeat interval", 1000, 60_000, 30_000, 0),
        ("output_buffer_size", "output buffer size", 64, 65_536, 16_384, 1),
        ("output_buffer_timeout", "output buffer timeout", 25, 30_000, 250, 0),
        ("msg_timeout", "msg timeout", 1000, 900_000, 60_000, None),
        ("sample_rate", "sample rate", 0, 99, 0, None),
    ],
)
def test_a_number_is_taken_within_its_range_and_refused_outside(
    field: str, words: str, least: int, most: int, default: int, off: int | None
) -> None:
    def got(value: int) -> int:
        client = asked(**{field: value})
        return client.heartbeat_interval if field == "heartbeat_interval" else getattr(client.agreed, field)

    assert got(least) == least
    assert got(most) == most
    assert got(0) == default
    for bad in (most + 1, -2, *([-1] if off is None else []), *([least - 1] if least else [])):
        assert refused(**{field: bad}) == f"E_BAD_BODY IDENTIFY {words} ({bad}) is invalid"
    if off is not None:
        assert got(-1) == off


def test_without_a_buffer_there_is_no_time_to_wait_for_it() -> None:
    agreed = asked(output_buffer_size=-1, output_buffer_timeout=100).agreed
    assert (agreed.output_buffer_size, agreed.output_buffer_timeout) == (1, 0)


def test_snappy_and_deflate_exclude_each_other() -> None:
    text = "E_IDENTIFY_FAILED cannot enable both deflate and snappy compression"
    assert refused(snappy=True, deflate=True) == text
    agreed = asked(ServerLimits(snappy=False), snappy=True, deflate=True).agreed
    assert (agreed.snappy, agreed.deflate) == (False, True)


def test_the_level_of_deflate_is_at_most_the_broker_s() -> None:
    levels = [asked(deflate=True, deflate_level=level).agreed.deflate_level for level in (-1, 0, 1, 6, 9, 1000)]
    assert levels == [6, 6, 1, 6, 6, 6]
    assert asked(ServerLimits(max_deflate_level=2), deflate=True, deflate_level=5).agreed.deflate_level == 2


def test_who_does_not_negotiate_is_granted_nothing() -> None:
    client = negotiate(b'{"tls_v1": true, "snappy": true, "deflate": true}', ServerLimits(tls=True))
    assert not client.negotiates
    assert not any((client.agreed.tls_v1, client.agreed.snappy, client.agreed.deflate))


def test_unknown_fields_are_ignored_and_null_is_as_good_as_absent() -> None:
    assert asked(short_id="x", long_id="y", msg_timeout=None, client_id=None, snappy=None) == asked()
    assert negotiate(b"null", ServerLimits()) == negotiate(b"{}", ServerLimits())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nope",
        b"[]",
        b"5",
        b'"text"',
        b"{} {}",
        b'{"client_id": 5}',
        b'{"msg_timeout": "1000"}',
        b'{"msg_timeout": 1000.0}',
        b'{"msg_timeout": true}',
        b'{"snappy": 1}',
        b'{"msg_timeout": 99999999999999999999}',
        b'{"msg_timeout": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        '{"client_id": "x"}'.encode("utf-16"),
        '\ufeff{"client_id": "x"}'.encode(),
    ],
)
def test_what_is_no_identify_is_refused_with_nsqd_s_words(body: bytes) -> None:
    with pytest.raises(NotGranted) as caught:
        negotiate(body, ServerLimits())
    assert caught.value.code == "E_BAD_BODY"
    assert caught.value.text == "IDENTIFY failed to decode JSON body"


@pytest.mark.parametrize("body", [b'{"client_id": "a\\ud800b"}', b'{"client_id": "a\xffb"}'])
def test_text_that_is_none_is_mended_as_go_mends_it(body: bytes) -> None:
    """Such text could not be encoded again, and would break whoever shows it."""
    assert negotiate(body, ServerLimits()).client_id == "a\ufffdb"


def test_text_beyond_the_basic_plane_is_left_as_it_is() -> None:
    assert asked(client_id="a\U0001f600é\ufeff").client_id == "a\U0001f600é\ufeff"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_rdy_count": 0}, "max_rdy_count = 0"),
        ({"max_rdy_count": -5}, "max_rdy_count = -5"),
        ({"msg_timeout": 0}, "msg_timeout = 0"),
        ({"msg_timeout": -1}, "msg_timeout = -1"),
        ({"msg_timeout": 2**31}, "msg_timeout = 2147483648"),
        ({"max_msg_timeout": 0}, "max_msg_timeout = 0"),
        ({"deflate": True, "deflate_level": 10}, "deflate_level = 10"),
        ({"deflate": True, "deflate_level": 10**400}, "deflate_level = 1000"),
        ({"deflate": True, "deflate_level": 0}, "deflate_level = 0"),
        ({"msg_timeout": 60.0}, "no int"),
        ({"msg_timeout": True}, "no int"),
        ({"version": 1}, "no str"),
        ({"snappy": "x" * 10_000}, "no bool"),
    ],
)
def test_an_answer_that_cannot_be_is_a_breach_of_protocol(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ProtocolError, match=words) as caught:
        IdentifyResponse.decode(json.dumps(fields).encode())
    assert len(str(caught.value)) < 200


def test_fields_that_an_answer_lacks_are_nsqd_s_defaults() -> None:
    assert IdentifyResponse.decode(b'{"max_rdy_count": 10, "something_new": [1]}') == IdentifyResponse(max_rdy_count=10)
