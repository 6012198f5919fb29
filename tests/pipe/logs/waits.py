"""A reader of logs that waits for nothing."""

from __future__ import annotations

import pytest

from qtools.pipe.logs import log_reader, open_files, rotating_log


def no_waiting(patch: pytest.MonkeyPatch) -> None:
    for module in (log_reader, open_files, rotating_log):
        for name in ("POLL", "POLL_PER_LOG", "RESCAN", "QUIET"):
            if hasattr(module, name):
                patch.setattr(module, name, 0.0)
