"""The page."""

FILES: dict[str, tuple[bytes, list[tuple[bytes, bytes]]]] = {}
