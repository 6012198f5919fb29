"""Values of options that mean the same for every engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtools.engines.connection_options import (
    BrokerChoice,
    ConnectionFlags,
    ConnectionRequest,
    merged_fields,
    parse_switch,
    read_secret_file,
    secret_as_text,
)
from qtools.engines.nsq.options import ENGINE
from qtools.errors import StartError, UsageError


def test_switches() -> None:
    assert [parse_switch(word) for word in (True, "true", "YES", "on", "1", 1)] == [True] * 6
    assert [parse_switch(word) for word in (False, "false", "No", "off", "0", 0)] == [False] * 6
    for word in ("", "2", "maybe", None):
        with pytest.raises(ValueError, match="is neither true nor false"):
            parse_switch(word)


def test_secret_files(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for content, secret in (
        (b"a", b"a"), (b"a\n", b"a"), (b"a\r\n", b"a"), (b" a\n\n", b" a\n"), (b"\xff\x00", b"\xff\x00"),
    ):  # fmt: skip
        path.write_bytes(content)
        assert read_secret_file(str(path)) == secret
    for content in (b"", b"\n", b"\r\n"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=f"the secret file {path} is empty"):
            read_secret_file(str(path))
    with pytest.raises(StartError, match=f"cannot read the secret file {tmp_path}/none: No such file"):
        read_secret_file(f"{tmp_path}/none")
    with pytest.raises(StartError, match=f"cannot read the secret file {tmp_path}: "):
        read_secret_file(str(tmp_path))


def test_a_secret_of_the_environment_may_have_any_bytes() -> None:
    def secret(**environ: str) -> bytes | None:
        found = merged_fields(ConnectionRequest("q-test", BrokerChoice(), ConnectionFlags({}, {}), environ), ENGINE)
        made: bytes | None = found["secret"]
        return made

    assert secret(QTOOLS_AUTH_SECRET="s3cret") == b"s3cret"
    assert secret(QTOOLS_AUTH_SECRET="gr\udcfcn") == b"gr\xfcn"  # as the system gives them
    assert secret(QTOOLS_AUTH_SECRET="") is None
    assert secret() is None


def test_a_password_of_an_engine_with_text() -> None:
    assert (secret_as_text(None, "x"), secret_as_text("ü".encode(), "x")) == ("", "ü")
    with pytest.raises(StartError, match=r"x: the password is not UTF-8 \(at byte 1\)"):
        secret_as_text(b"a\xff", "x")
