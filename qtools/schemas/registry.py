"""The client of a schema registry, with Confluent's API. In: references and subjects. Out: schemas as they are written.

    GET  /schemas/types                          asked once at the start: is it a registry, and may this user read
    GET  /schemas/ids/ID, /schemas/guids/GUID    a schema that a message names
    GET  /subjects/SUBJECT/versions/VERSION      a schema that another refers to, or the latest one of a topic
    POST /subjects/SUBJECT/versions              registers a schema, only if the user says so

Errors tell what happens next: RegistryAway (tried again), SchemaUnknown and AnswerInvalid (a message's), QtoolsError
(the run ends). An answer 200 that holds no schema is a message's too, if the registry still answers /schemas/types: a
page of a proxy in its place means that it is away. An answer is read up to MOST_BYTES, and no redirect is followed, as
it could lead the password elsewhere. httpx is imported where it is used, and its exceptions are translated here and
nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

import orjson

from qtools.errors import NetworkError, QtoolsError, StartError, UsageError, one_line, without_userinfo
from qtools.imports import import_in_thread
from qtools.schemas.contract import SchemaText
from qtools.schemas.wire_format import SchemaReference

if TYPE_CHECKING:
    import httpx

TIMEOUT = 10.0  # s for one answer as a whole
MOST_BYTES = 4 * 1024 * 1024  # of an answer: far above any schema
MOST_REFERENCES = 200  # schemas that one schema refers to, directly or not
MOST_SUBJECT = 1000  # characters of a subject that a schema refers to: servers refuse long paths
AUTH_VARIABLE = "QTOOLS_SCHEMA_REGISTRY_AUTH"
_TYPES = "/schemas/types"
_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


class RegistryAway(NetworkError):
    """The registry gives no answer that can be used now; the request is tried again."""


class SchemaUnknown(QtoolsError):
    """The registry does not know a schema, or a reference of it: this will not change by asking again soon."""


class AnswerInvalid(QtoolsError):
    """An answer 200 that holds no schema that can be used: this will not change by asking again soon."""


class RegistrySettings(NamedTuple):
    """Where the registry is. url: without user name, password and a final "/". credentials: "USER:PASSWORD", or "".
    ca: a file with CA certificates (PEM), or "" for the system's."""

    url: str
    credentials: str = ""
    ca: str = ""


def registry_settings(
    url: str, auth_file: str = "", ca: str = "", environ: Mapping[str, str] = os.environ
) -> RegistrySettings:
    """The settings for --schema-registry. UsageError, StartError."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    shown = without_userinfo(url)
    if not is_valid or parts.query or parts.fragment:
        raise UsageError(f"--schema-registry {shown!r} is no URL such as http://HOST:8081 or https://HOST/PATH")
    if "@" in parts.netloc:
        raise UsageError(
            f"--schema-registry {shown} has a user name or a password: every user of this machine can read a command"
            f" line; put USER:PASSWORD into a file (--registry-auth-file) or the environment ({AUTH_VARIABLE})"
        )
    if ca and parts.scheme != "https":
        raise UsageError("--registry-ca needs a --schema-registry that begins with https://")
    credentials = _credentials(auth_file, environ)
    return RegistrySettings(url.rstrip("/"), credentials, ca)


def _credentials(path: str, environ: Mapping[str, str]) -> str:
    origin, text = AUTH_VARIABLE, environ.get(AUTH_VARIABLE, "")
    if path:
        origin = path
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(65536).removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise StartError(f"cannot read --registry-auth-file {path}: {why}") from error
    if (path or text) and (":" not in text or "\n" in text):
        raise UsageError(f"{origin} is not one line with USER:PASSWORD")
    return text


class Registry:
    """Sends requests to one registry. Call `start` first, and `close` at the end."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._client: httpx.AsyncClient | None = None

    @property
    def url(self) -> str:
        return self._settings.url

    async def start(self) -> None:
        """Connect, and find out whether it is a registry. StartError if it cannot be used."""
        if self._client is not None:  # two decoders may have one registry
            return
        await import_in_thread("httpx")
        import httpx

        settings = self._settings
        user, _, password = settings.credentials.partition(":")
        verify: ssl.SSLContext | bool = settings.url.startswith("https:")
        if settings.ca:
            try:
                verify = ssl.create_default_context(cafile=settings.ca)
            except (OSError, ssl.SSLError) as error:
                why = getattr(error, "strerror", None) or "it holds no certificates (PEM)"
                raise StartError(f"cannot use --registry-ca {settings.ca}: {why}") from error
        # No proxy and no .netrc from the environment: like a broker, a registry is not on the public web.
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT,
            trust_env=False,
            verify=verify,
            auth=(user, password) if settings.credentials else None,
            # Without compression, MOST_BYTES limits the memory too.
            headers={"Accept": f"{_MEDIA_TYPE}, application/json", "Accept-Encoding": "identity"},
        )
        try:
            status, _ = await self._ask("GET", _TYPES)
        except QtoolsError as error:
            await self.close()
            raise StartError(f"{error}") from error
        if status != 200:
            await self.close()
            raise StartError(
                f"{self.url}{_TYPES} answers {status}: that is no schema registry with Confluent's API"
                " (Apicurio's is at /apis/ccompat/v7)"
            )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    # ── what is asked ──

    async def schema(self, reference: SchemaReference) -> SchemaText:
        """The schema that a message names, with those that it refers to. RegistryAway, SchemaUnknown, AnswerInvalid,
        QtoolsError."""
        path = f"/schemas/guids/{reference.guid}" if reference.guid else f"/schemas/ids/{reference.number}"
        try:
            status, answer = await self._ask("GET", path)
            if status != 200:
                raise SchemaUnknown(f"the schema registry does not know {reference}")
            return await self._schema_text(answer, str(reference), path)
        except AnswerInvalid:
            await self._check_presence()
            raise

    async def _check_presence(self) -> None:
        """Raise RegistryAway if something else answers in the registry's place."""
        try:
            status, answer = await self._ask("GET", _TYPES)
        except AnswerInvalid as error:
            raise RegistryAway(self.url, f"{_TYPES} answers 200 and no JSON") from error
        if status != 200 or not isinstance(answer, list):
            raise RegistryAway(self.url, f"{_TYPES} answers {status} and no list of formats")

    async def latest(self, subject: str) -> tuple[int, SchemaText]:
        """The id and the latest schema of `subject`. RegistryAway, SchemaUnknown, AnswerInvalid, QtoolsError."""
        path = f"/subjects/{quote(subject, safe='')}/versions/latest"
        status, answer = await self._ask("GET", path)
        if status != 200:
            raise SchemaUnknown(f"the schema registry has no subject {subject!r}")
        return self._number(answer, path), await self._schema_text(answer, f"the schema of {subject!r}", path)

    async def register(self, subject: str, schema: SchemaText) -> int:
        """Register `schema` as a version of `subject`, unless it is one; returns its id. RegistryAway, AnswerInvalid,
        QtoolsError."""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        body = {"schema": schema.text} | ({} if schema.kind == "AVRO" else {"schemaType": schema.kind})
        status, answer = await self._ask("POST", path, orjson.dumps(body))
        if status != 200:
            raise QtoolsError(f"the schema registry refuses {schema.name} for {subject!r}: {_message(answer)}")
        return self._number(answer, path)

    async def _schema_text(self, answer: Any, name: str, path: str) -> SchemaText:
        found: dict[tuple[str, int], tuple[str, str]] = {}
        text, kind = await self._with_references(answer, path, found, set())
        return SchemaText(kind, text, name, tuple(found.values()))

    async def _with_references(
        self, answer: Any, path: str, found: dict[tuple[str, int], tuple[str, str]], above: set[tuple[str, int]]
    ) -> tuple[str, str]:
        """The text and the kind in `answer`; adds what it refers to to `found`, the innermost first."""
        if not isinstance(answer, dict) or not isinstance(answer.get("schema"), str):
            raise AnswerInvalid(f"{self.url}{path} answers 200 and no schema")
        kind = answer.get("schemaType") or "AVRO"
        if not isinstance(kind, str):
            raise AnswerInvalid(f"{self.url}{path} answers 200 and a schemaType that is no text")
        references = answer.get("references") or []
        if not isinstance(references, list):
            raise AnswerInvalid(f"{self.url}{path} answers 200 and references that are no list")
        for each in references:
            name, key = self._reference(each, path)
            if key in above:
                raise SchemaUnknown(f"a schema refers to itself, through version {key[1]} of {key[0]!r}")
            if key in found:
                continue
            if len(found) + len(above) >= MOST_REFERENCES:
                raise SchemaUnknown(f"a schema refers to more than {MOST_REFERENCES} others")
            where = f"/subjects/{quote(key[0], safe='')}/versions/{key[1]}"
            status, referred = await self._ask("GET", where)
            if status != 200:
                raise SchemaUnknown(f"the schema registry has no version {key[1]} of {key[0]!r}, a reference")
            text, _ = await self._with_references(referred, where, found, above | {key})
            found[key] = name, text
        return answer["schema"], kind

    def _reference(self, given: Any, path: str) -> tuple[str, tuple[str, int]]:
        """The name of a reference, and its subject and version."""
        name, subject, version = (
            (given.get("name"), given.get("subject"), given.get("version")) if isinstance(given, dict) else ("", "", "")
        )
        if not isinstance(name, str) or not isinstance(subject, str) or not subject:
            raise AnswerInvalid(f"{self.url}{path} answers 200 and references without a subject")
        if len(subject) > MOST_SUBJECT:
            raise AnswerInvalid(
                f"{self.url}{path} answers 200 and a reference with a subject of {len(subject):,} characters"
            )
        if version.__class__ is not int or not -1 <= version < 1 << 31:
            raise AnswerInvalid(f"{self.url}{path} answers 200 and a reference without a version")
        return name, (subject, version)

    def _number(self, answer: Any, path: str) -> int:
        number = answer.get("id") if isinstance(answer, dict) else None
        if number.__class__ is not int or not 0 <= number < 1 << 32:
            raise AnswerInvalid(f"{self.url}{path} answers 200 and no id")
        return int(number)

    # ── a request ──

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """The status, 200 or of a refusal (4xx), and the answer as JSON; None for a refusal that is no JSON."""
        import httpx

        assert self._client is not None
        headers = {"Content-Type": _MEDIA_TYPE} if body is not None else None
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                self._client.stream(method, self.url + path, content=body, headers=headers) as response,
            ):
                data = b""
                async for piece in response.aiter_bytes():
                    data += piece
                    if len(data) > MOST_BYTES:
                        raise AnswerInvalid(f"{self.url}{path} answers more than {MOST_BYTES:,} bytes")
        except (TimeoutError, httpx.TimeoutException) as error:
            raise RegistryAway(self.url, f"no answer within {TIMEOUT:.4g} s") from error
        except httpx.InvalidURL as error:
            raise AnswerInvalid(f"{self.url}{path[:200]} cannot be asked for: {_reason(error)}") from error
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise RegistryAway(self.url, _reason(error)) from error
        return self._judge(response, path, data)

    def _judge(self, response: httpx.Response, path: str, data: bytes) -> tuple[int, Any]:
        status = response.status_code
        if status in (401, 403):
            what = "refuses the credentials" if self._settings.credentials else "asks for credentials"
            raise QtoolsError(
                f"{self.url}{path} answers {status}: the schema registry {what} (--registry-auth-file, or"
                f" {AUTH_VARIABLE}, with USER:PASSWORD)"
            )
        if 300 <= status < 400:
            there = without_userinfo(response.headers.get("location", "another address"))
            raise QtoolsError(
                f"{self.url}{path} answers {status}, a redirect to {one_line(there)}, which is not followed: name"
                " that registry with --schema-registry"
            )
        if status >= 500 or status in (408, 429):
            raise RegistryAway(self.url, f"{path} answers {status}")
        try:
            answer = orjson.loads(data)
        except orjson.JSONDecodeError:
            if status != 200:
                return status, None
            raise AnswerInvalid(f"{self.url}{path} answers 200 and no JSON") from None
        return status, answer

    def __repr__(self) -> str:
        return f"<Registry {self.url}>"


def _message(answer: Any) -> str:
    """What the registry says in a refusal."""
    message = answer.get("message") if isinstance(answer, dict) else None
    return one_line(str(message or "without a reason"))


def _reason(error: BaseException) -> str:
    """Why httpx failed, as a text for users."""
    import httpx

    from qtools.sockets import network_reason

    if reason := network_reason(error):
        return reason
    if isinstance(error, httpx.RemoteProtocolError):
        return "what listens there closed the connection, or does not speak HTTP"
    return one_line(str(error)) or type(error).__name__
