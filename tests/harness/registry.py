"""A small schema registry with the part of Confluent's documented API that clients use. In: schemas. Out: an URL.

It checks nothing about the schemas: what a real registry does with them is tried in tests/schemas/test_apicurio.py. It
counts what it is asked, and answers as a test says: slowly, with errors, with garbage.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote
from uuid import UUID, uuid5

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Behaviour = Callable[[str], Answer | None]  # a path → what is answered instead; None for what is true


class Registry:
    """Serves until `close`. credentials: "USER:PASSWORD" that a request has to have. tls: certificate and key."""

    def __init__(self, *, credentials: str = "", tls: tuple[str, str] | None = None) -> None:
        self.asked: Counter[str] = Counter()
        self.behaviour: Behaviour = lambda path: None
        self._schemas: dict[int, dict[str, Any]] = {}
        self._subjects: dict[str, list[int]] = {}
        self._credentials = credentials
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(registry._get)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._answer(lambda path: registry._post(path, json.loads(body)))

            def _answer(self, find: Callable[[str], Answer]) -> None:
                path = unquote(self.path.partition("?")[0])
                registry.asked[path] += 1
                wanted = registry._credentials
                if (
                    wanted
                    and self.headers.get("Authorization") != f"Basic {base64.b64encode(wanted.encode()).decode()}"
                ):
                    answer = _error(401, 401, "Unauthorized")
                else:
                    answer = registry.behaviour(path) or find(path)
                self.send_response(answer.status)
                for name, value in answer.headers or (("Content-Type", MEDIA_TYPE),):
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *words: object) -> None: ...

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that does not trust the certificate, or has gone, is none of the server's business."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.port: int = self._server.server_address[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def add(
        self,
        schema: Any,
        *,
        subject: str = "",
        kind: str = "AVRO",
        references: Sequence[tuple[str, str, int]] = (),
        number: int = 0,
    ) -> int:
        """Register a schema, a text or what is written as JSON; return its id. references: (name, subject, version)."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        found = {"schema": text} | ({} if kind == "AVRO" else {"schemaType": kind})
        if references:
            found["references"] = [dict(zip(("name", "subject", "version"), each, strict=True)) for each in references]
        number = number or next((key for key, known in self._schemas.items() if known == found), 0)
        number = number or max(self._schemas, default=0) + 1
        self._schemas[number] = found
        if subject and number not in (versions := self._subjects.setdefault(subject, [])):
            versions.append(number)
        return number

    @staticmethod
    def guid_of(number: int) -> UUID:
        return uuid5(UUID(int=0), str(number))

    def versions(self, subject: str) -> list[int]:
        """The ids of the versions of a subject."""
        return self._subjects.get(subject, [])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _get(self, path: str) -> Answer:
        if path == "/schemas/types":
            return _ok(["JSON", "PROTOBUF", "AVRO"])
        if found := re.fullmatch(r"/schemas/ids/(\d+)", path):
            return self._schema(int(found[1]))
        if found := re.fullmatch(r"/schemas/guids/([0-9a-f-]+)", path):
            return self._schema(next((each for each in self._schemas if str(self.guid_of(each)) == found[1]), -1))
        if found := re.fullmatch(r"/subjects/(.+)/versions/(latest|\d+)", path):
            versions = self._subjects.get(found[1])
            if versions is None:
                return _error(404, 40401, f"Subject '{found[1]}' not found.")
            version = len(versions) if found[2] == "latest" else int(found[2])
            if not 0 < version <= len(versions):
                return _error(404, 40402, f"Version {version} not found.")
            number = versions[version - 1]
            return _ok({"subject": found[1], "version": version, "id": number, **self._schemas[number]})
        return _error(404, 404, "HTTP 404 Not Found")

    def _schema(self, number: int) -> Answer:
        if number not in self._schemas:
            return _error(404, 40403, "Schema not found")
        return _ok({**self._schemas[number], "guid": str(self.guid_of(number))})

    def _post(self, path: str, given: dict[str, Any]) -> Answer:
        found = re.fullmatch(r"/subjects/(.+)/versions", path)
        if found is None:
            return _error(404, 404, "HTTP 404 Not Found")
        number = self.add(given["schema"], subject=found[1], kind=given.get("schemaType", "AVRO"))
        return _ok({"id": number, "guid": str(self.guid_of(number)), **self._schemas[number]})


def _ok(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode())


def _error(status: int, code: int, message: str) -> Answer:
    return Answer(status, json.dumps({"error_code": code, "message": message}).encode())
