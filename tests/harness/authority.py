"""An auth server as nsqd and q-broker ask one. In: secrets and what they allow. Out: answers to GET /auth."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Authority:
    """Knows one secret, which may do everything, and others as given: secret → authorizations."""

    def __init__(self, secrets: dict[str, list[dict[str, Any]]]) -> None:
        self.secrets = secrets
        self.asked: list[str] = []  # the secrets that were asked about
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                secret = parse_qs(urlsplit(self.path).query, keep_blank_values=True).get("secret", [""])[0]
                authority.asked.append(secret)
                known = authority.secrets.get(secret)
                told = {"ttl": 60, "identity": "tester", "identity_url": "", "authorizations": known or []}
                body = json.dumps(told).encode() if known is not None else b"{}"
                self.send_response(200 if known is not None else 403)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


EVERYTHING: list[dict[str, Any]] = [{"topic": ".*", "channels": [".*"], "permissions": ["subscribe", "publish"]}]
