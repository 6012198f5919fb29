"""The page at /: one file each of HTML, CSS and JavaScript, read once. Its policy forbids to load from other sites."""

from __future__ import annotations

from pathlib import Path

_FILES = {
    "/": ("index.html", b"text/html; charset=utf-8"),
    "/page.css": ("page.css", b"text/css; charset=utf-8"),
    "/page.js": ("page.js", b"text/javascript; charset=utf-8"),
}
# Content Security Policy 3: no content of a message is executed as a script, and no other page can frame this one.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
]


def read_files() -> dict[str, tuple[bytes, list[tuple[bytes, bytes]]]]:
    """path → (content, headers)."""
    directory = Path(__file__).with_name("static")
    return {
        path: ((directory / file).read_bytes(), [(b"content-type", kind), *_HEADERS])
        for path, (file, kind) in _FILES.items()
    }


FILES = read_files()
