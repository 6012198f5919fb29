"""Values of options that mean the same for every engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtools.engines.option_values import parse_switch, read_secret_file
from qtools.errors import StartError, UsageError


def test_switches() -> None:
    assert [parse_switch(word) for word in (True, "true", "YES", "on", "1", 1)] == [True] * 6
    assert [parse_switch(word) for word in (False, "false", "No", "off", "0", 0)] == [False] * 6
    for word in ("", "2", "maybe", None):
        with pytest.raises(ValueError, match="is neither true nor false"):
            parse_switch(word)


def test_secret_files(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for content, secret in ((b"a\n", b"a"), (b"a\r\n", b"a"), (b" a\n\n", b" a\n"), (b"\xff", b"\xff")):
        path.write_bytes(content)
        assert read_secret_file(str(path)) == secret
    path.write_bytes(b"\n")
    with pytest.raises(UsageError, match=f"the secret file {path} is empty"):
        read_secret_file(str(path))
    with pytest.raises(StartError, match=f"cannot read the secret file {tmp_path}/none: No such file"):
        read_secret_file(f"{tmp_path}/none")
