"""/openapi.json says what is served, and what is served is what it says: asked by schemathesis."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from harness.gateway import Gateway
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ensure_resource_availability,
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
    use_after_free,
)

from qtools.engines.kafka.engine import CAPABILITIES as KAFKA
from qtools.pubsub_http.api.capabilities import NOT_SUPPORTED
from qtools.pubsub_http.api.openapi import document
from qtools.pubsub_http.api.routes import ROUTES


def accepted_or_refused_by_a_rule(ctx: Any, response: Any, case: Any) -> None:
    """What the schemas allow is accepted, or refused with a word whose rule the document states, or because the broker
    cannot do it."""
    if response.status_code == 501:
        return  # see no_error_of_its_own
    if response.status_code in (400, 413, 422):
        told = response.json()
        rules = case.operation.definition.raw["responses"][str(response.status_code)]["description"]
        if f"{told['message']}: " in rules:
            return
    positive_data_acceptance(ctx, response, case)


def no_error_of_its_own(ctx: Any, response: Any, case: Any) -> None:
    """The only 5xx is 501 NOT_SUPPORTED: the broker is NSQ, which has no keys, headers and tombstones."""
    if response.status_code == 501 and response.json()["message"] == NOT_SUPPORTED:
        lacking = {"key", "key_base64", "header", "tombstone"}
        assert lacking & set(case.query or {}), case
        return
    not_a_server_error(ctx, response, case)


CHECKS = [
    no_error_of_its_own,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    accepted_or_refused_by_a_rule,
    missing_required_header,
    unsupported_method,
    ignored_auth,
    use_after_free,
    ensure_resource_availability,
]


def test_every_route_is_told_with_every_parameter(gateway: Gateway) -> None:
    told = gateway.get("/openapi.json").json()
    assert told == document()
    operations = {(path, method) for path, methods in told["paths"].items() for method in methods}
    assert operations == {(route.path, route.method.lower()) for route in ROUTES}
    for route in ROUTES:
        parameters = told["paths"][route.path][route.method.lower()]["parameters"]
        names = {each["name"]: each for each in parameters if each["in"] == "query"}
        assert list(names) == [each.name for each in route.query.parameters]
        for each in route.query.parameters:
            assert names[each.name]["required"] == each.required


def test_names_are_as_long_as_the_engine_accepts() -> None:
    def longest(told: dict[str, Any]) -> set[int]:
        parameters = [
            each for methods in told["paths"].values() for one in methods.values() for each in one["parameters"]
        ]
        return {each["schema"]["maxLength"] for each in parameters if each["name"] in ("topic", "channel")}

    assert longest(document()) == {64}
    assert longest(document(KAFKA.longest_name)) == {249}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_every_route_is_served(gateway: Gateway, route: Any) -> None:
    answer = gateway.client.request(route.method, route.path, params={"no_such": "1"})
    assert answer.json()["message"] == "UNKNOWN_ARG"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_defaults_and_bounds_are_what_is_read(route: Any) -> None:
    for each in route.query.parameters:
        schema = each.schema
        if "default" in schema:
            assert each.default == schema["default"]
        if schema["type"] in ("integer", "number"):
            assert each.read(str(schema["minimum"])) == schema["minimum"]
            assert each.read(str(schema["maximum"])) == schema["maximum"]
            for beyond in (schema["maximum"] + 1, schema["minimum"] - 1):
                with pytest.raises(ValueError, match="from"):
                    each.read(str(beyond))
        for word in schema.get("enum", ()):
            assert each.read(word) == word


def explore(gateway: Gateway, examples: int) -> None:
    """Ask what the document allows, and what it does not: there is no answer that it does not tell of."""
    schema = schemathesis.openapi.from_dict(document())
    asked = 0
    for operation in schema.get_all_operations():
        api = operation.ok()
        most = examples if api.path not in ("/sub", "/message") else examples // 4  # these take their time
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not list(api.query) and not list(api.body):
                continue  # there is nothing about it that could be wrong

            @hypothesis.given(case=api.as_strategy(generation_mode=mode))
            @hypothesis.settings(
                max_examples=most, deadline=None, database=None, derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
            )  # fmt: skip
            def ask(case: Any) -> None:
                nonlocal asked
                asked += 1
                is_allowed = case.meta.generation.mode is GenerationMode.POSITIVE
                if is_allowed and case.operation.path == "/sub":  # which would stream for ever
                    case.query = {**(case.query or {}), "timeout": "0.01"}
                elif is_allowed and case.operation.path == "/message":  # which would wait for an hour
                    case.query.pop("wait", None)
                case.call_and_validate(base_url=gateway.url, checks=CHECKS, timeout=30)

            ask()
    assert asked > 10 * examples
    assert "internal error" not in gateway.process.err


def test_schemathesis_finds_nothing(gateway: Gateway) -> None:
    explore(gateway, 6)


@pytest.mark.slow
def test_schemathesis_finds_nothing_for_long(gateway: Gateway) -> None:
    explore(gateway, 100)
