"""Write the source of Python's own standard library, all files one after another, to stdout.

Text that nobody made for this: every machine that runs the demo has it, some hundred thousand lines, among them
some that are not UTF-8, some that end in CR LF, and many empty ones.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

OTHERS = {"site-packages", "dist-packages"}  # what is installed beside it is not its own


def main() -> None:
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if OTHERS.isdisjoint(path.relative_to(library).parts) and path.is_file():
            source = path.read_bytes()
            # A last line without its newline would become one with the first line of the next file.
            sys.stdout.buffer.write(source if source.endswith(b"\n") or not source else source + b"\n")


if __name__ == "__main__":
    main()
