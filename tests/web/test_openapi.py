"""``/openapi.json`` and ``/metrics``: what is described is what is there."""

from __future__ import annotations

import re

from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from axme_celery import keys, subscriptions, wait_for_human
from axme_celery.web.openapi import document
from tests.web.described import path_of

METHODS = ("get", "post", "put", "delete", "patch")


def described() -> set[tuple[str, str]]:
    return {
        (method.upper(), path) for path, found in document()["paths"].items() for method in METHODS if method in found
    }


def served(web) -> set[tuple[str, str]]:
    """Every route of the interface, its actions one by one."""
    found = set()
    for rule in web.url_map.iter_rules():
        path = path_of(rule.rule)
        if not path.startswith("/v1/") and path not in ("/health", "/metrics", "/openapi.json", "/mcp"):
            continue
        actions = re.search(r"any\(([^)]*)\):action", rule.rule)
        for action in re.split(r",\s*", actions[1]) if actions else [""]:
            whole = path.replace("{action}", action)
            found |= {(method, whole) for method in rule.methods - {"HEAD", "OPTIONS"}}
    return found


def test_every_route_is_described_and_every_described_route_is_there(web):
    assert described() == served(web)


def test_the_document_is_openapi_and_its_references_lead_somewhere():
    whole = document()
    assert whole["openapi"].startswith("3.1")
    ids = [operation["operationId"] for found in whole["paths"].values() for operation in found.values()]
    assert len(ids) == len(set(ids))

    def references(node):
        if isinstance(node, dict):
            yield from ([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
            for each in node.values():
                yield from references(each)
        elif isinstance(node, list):
            for each in node:
                yield from references(each)

    for reference in set(references(whole)):
        node = whole
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for schema in whole["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_a_path_says_what_may_be_done_there(web, stage, make_key):
    """Not what may be done at another that looks like it."""
    headers = {"x-api-key": make_key("x", role="operator")}
    for path, methods in (
        ("/v1/intents/bulk-cancel", {"POST"}), ("/v1/agents/a/b/intents", {"GET"}),
        ("/v1/agents/a/b/intents/stream", {"GET"}), ("/v1/agents/a/b", {"GET", "PUT"}), ("/v1/intents/x", {"GET"}),
    ):  # fmt: skip
        answer = web.test_client().open(path, method="OPTIONS", headers=headers)
        assert set(answer.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == methods, path
    assert web.test_client().put("/v1/agents/a/b/intents", json={}, headers=headers).status_code == 405


def test_every_path_parameter_is_described():
    for path, found in document()["paths"].items():
        for operation in found.values():
            named = {p["name"] for p in operation.get("parameters", []) if p.get("in") == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), path


def test_it_is_served_to_whoever_has_a_key(web, stage, make_key):
    client = web.test_client()
    key = {"x-api-key": make_key("x")}

    assert client.get("/openapi.json").status_code == 401
    assert client.get("/openapi.json", headers=key).json["servers"] == [{"url": "/"}]
    mounted = client.get("/openapi.json", headers=key, environ_overrides={"SCRIPT_NAME": "/intents"})
    assert mounted.json["servers"] == [{"url": "/intents"}]


# -- metrics -------------------------------------------------------------------------


def figures(web, key):
    answer = web.test_client().get("/metrics", headers={"x-api-key": key})
    assert answer.status_code == 200, answer.text
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_are_the_ledgers_figures(web, axme, stage, make_key):
    @axme.task
    def asks():
        return wait_for_human("Well?", to="ana")

    @axme.task
    def fails():
        raise ValueError("no")

    stage.submit(asks.s())
    stage.submit(fails.s())
    subscriptions.subscribe(axme.runtime, "https://a.example/", ["a.b"])
    subscriptions.tell(axme.runtime, "a.b", {}, source="test")
    stage.run()
    stage.pass_time("10m")
    found = figures(web, make_key("prometheus"))

    assert found["axme_intents", "WAITING"] == found["axme_intents", "FAILED"] == 1
    assert found["axme_waits_open", "HUMAN"] == 1 and found["axme_waits_open", "TOOL"] == 0
    assert found["axme_webhook_deliveries", "DELIVERED"] == 1
    assert found["axme_dead_letters_open",] == 1
    assert 600 <= found["axme_oldest_open_wait_seconds",] <= 601
    stage.pass_time("2d")
    assert figures(web, make_key("other"))["axme_intents", "FAILED"] == 0


def test_metrics_need_a_key(web, stage):
    assert web.test_client().get("/metrics").status_code == 401


def test_nothing_but_health_answers_without_a_key(web, stage):
    """No route, nor a tool's report without its token."""
    client = web.test_client()
    for method, path in sorted(described() - {("GET", "/health")}):
        answer = client.open(re.sub(r"{\w+}", "x", path), method=method, json={} if method != "GET" else None)
        assert answer.status_code == 401, (method, path, answer.text)
    assert client.get("/health").status_code == 200


def test_nothing_answers_with_a_key_that_was_revoked(web, stage, axme):
    """At once."""
    client, (key, secret) = web.test_client(), keys.create(axme.runtime, name="x", role="admin")
    headers = {"x-api-key": secret}
    assert client.get("/v1/capabilities", headers=headers).status_code == 200
    keys.revoke(axme.runtime, key.id)

    for method, path in sorted(described() - {("GET", "/health")}):
        answer = client.open(
            re.sub(r"{\w+}", "x", path), method=method, json={} if method != "GET" else None, headers=headers
        )
        assert answer.status_code == 401, (method, path, answer.text)
