"""The flags of q-to-file become options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qtools.cli import run
from qtools.to_file import app, command
from qtools.to_file.options import ArchiveOptions


@pytest.mark.parametrize(
    ("flags", "is_default"), [([], True), (["--format", "raw"], False), (["--format", "envelope"], False)]
)
def test_whether_a_format_was_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: list[str], is_default: bool
) -> None:
    found: list[ArchiveOptions] = []

    def run_program(start: Callable[[None], None]) -> int:
        start(None)
        return 0

    monkeypatch.setattr(run, "run_program", run_program)
    monkeypatch.setattr(app, "archive", lambda options, _signals: found.append(options))
    with pytest.raises(SystemExit):
        command.main.main(["events", "-b", "nsq://127.0.0.1:4150", "-o", str(tmp_path), *flags])
    assert [options.is_default_format for options in found] == [is_default]
