"""What the build adds to the wheel: the man pages, and the pages that `qtools help` shows. In: docs/**/*.md.

share/man/man1/q-tail.1        where man looks beside the bin directory of the environment
qtools/manual/pages/*.md       without the folders of docs/; not in an editable install, which reads docs/ itself
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatchling before and after it makes a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        try:
            from qtools import __version__
            from qtools.manual import pages
            from qtools.manual.document import parse
            from qtools.manual.roff import man_page
        finally:
            sys.path.remove(self.root)
        built = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())), UTC)
        self._made = tempfile.TemporaryDirectory(prefix="qtools-man-")
        for name in pages.PROGRAMS:
            path = Path(self._made.name, f"{name}.1")
            path.write_text(man_page(name, parse(pages.read(name)), __version__, f"{built:%Y-%m-%d}"), encoding="utf-8")
            build_data["shared_data"][str(path)] = f"share/man/man1/{path.name}"
        if version != "editable":
            for page in sorted(Path(self.root, "docs").rglob("*.md")):
                build_data["force_include"][str(page)] = f"qtools/manual/pages/{page.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._made.cleanup()
