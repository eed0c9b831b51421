"""What may be asked of a person, and what they are told about what they filled in."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axme_celery.errors import BadInput
from axme_celery.forms import DEEPEST, LARGEST_BYTES, FieldError, check_form, check_schema, form_errors

# How long an example takes depends on who else uses the machine, and says nothing here.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def form(**fields) -> dict:
    return {"type": "object", "properties": fields}


ADDRESS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "zip": {"type": "string"}},
    "required": ["city"],
}
REFUND = {
    **form(
        amount={"type": "number", "minimum": 0, "maximum": 500},
        reason={"type": "string", "minLength": 3},
        kind={"enum": ["full", "part"]},
        address=ADDRESS,
        lines={"type": "array", "items": {"type": "integer"}},
    ),
    "required": ["amount", "reason"],
    "additionalProperties": False,
}


def test_data_that_fits_is_accepted():
    """Nothing is said, nothing is changed."""
    data = {"amount": 12.5, "reason": "late", "kind": "part", "address": {"city": "Ulm"}, "lines": [1, 2]}
    assert check_form(check_schema(REFUND), data) is None
    assert data["lines"] == [1, 2]


def test_every_field_at_fault_is_named_with_its_path_in_words():
    """All at once, so that a person corrects a form in one go."""
    data = {"amount": 900, "kind": "half", "address": {"zip": 5}, "lines": [1, "two"], "note": "x"}
    with pytest.raises(BadInput) as refused:
        check_form(check_schema(REFUND), data)

    assert str(refused.value) == (
        "form data: address, city is required; address, zip must be text, not 5; amount must be 500 or less; "
        'kind must be one of "full", "part"; lines, number 2 must be a whole number, not "two"; '
        "note is not asked for; reason is required"
    )


def test_a_page_gets_the_path_of_each_error_as_data():
    """To put it beside its field."""
    assert form_errors(REFUND, {"amount": 1, "reason": "abc", "lines": ["x"]}) == [
        FieldError(("lines", 0), 'must be a whole number, not "x"')
    ]


@pytest.mark.parametrize("data", [None, [], "text", 5, True])
def test_data_that_is_no_object_is_refused(data):
    """Also no data at all."""
    with pytest.raises(BadInput, match="form data: the form must be an object with its fields, not "):
        check_form(REFUND, data)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ({"type": "string"}, 1, "x must be text, not 1"),
        ({"type": "boolean"}, "yes", 'x must be true or false, not "yes"'),
        ({"type": ["number", "null"]}, "1", 'x must be a number or empty, not "1"'),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1, "x must be text or empty, not 1"),
        ({"anyOf": [{"type": "string", "minLength": 3}, {"type": "null"}]}, "ab", "x must have at least 3 characters"),
        ({"oneOf": [ADDRESS, {"type": "null"}]}, {"zip": "1"}, "x, city is required"),
        ({"const": "yes"}, "no", 'x must be "yes"'),
        ({"exclusiveMinimum": 0}, 0, "x must be more than 0"),
        ({"exclusiveMaximum": 9}, 9, "x must be less than 9"),
        ({"multipleOf": 5}, 7, "x must be a multiple of 5"),
        ({"maxLength": 1}, "ab", "x must have at most 1 character"),
        ({"pattern": "^[a-z]+$"}, "A1", "x must match the pattern ^[a-z]+$"),
        ({"minItems": 1}, [], "x must have at least 1 item"),
        ({"maxItems": 1}, [1, 2], "x must have at most 1 item"),
        ({"uniqueItems": True}, [1, 1], "x must not have an item twice"),
        ({"minProperties": 1}, {}, "x must have at least 1 field"),
        ({"not": {"type": "string"}}, "a", "x does not fit ("),
        ({"format": "date"}, "31.10.2026", "x must be a date like 2026-10-31"),
        ({"format": "date-time"}, "2026-10-31T18:00:00", "x must be a time like 2026-10-31T18:00:00Z"),
        ({"format": "date-time"}, "2026-10-31", "x must be a time like 2026-10-31T18:00:00Z"),
        ({"format": "time"}, "25:00", "x must be a time like 18:00"),
        ({"format": "email"}, "ana", "x must be an e-mail address"),
        ({"format": "uri"}, "example", "x must be an address like https://example.com/x"),
        ({"format": "uri"}, "https://a b", "x must be an address like https://example.com/x"),
        ({"format": "uuid"}, "7", "x must be a UUID"),
        ({"format": "ipv4"}, "300.1.1.1", "x must be of the format ipv4"),
        ({"type": "string"}, ["y" * 10_000], "x must be text, not ["),
        pytest.param({"maximum": 5}, 10**5000, "the form has a number too large to check", id="huge"),
    ],
)
def test_each_fault_is_told_in_plain_words(field, value, words):
    """For people who never heard of a schema, and briefly."""
    with pytest.raises(BadInput) as refused:
        check_form(check_schema(form(x=field)), {"x": value})
    assert str(refused.value).startswith("form data: " + words)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ({"format": "date-time"}, "2026-10-31T18:00:00+01:00"),
        ({"format": "date-time"}, "2026-10-31t18:00:00.5z"),
        ({"format": "date-time"}, 5),
        ({"format": "time"}, "18:00"),
        ({"format": "uri"}, "mailto:ana@example.com"),
        ({"format": "email"}, "ana@example.com"),
    ],
)
def test_what_has_the_format_is_accepted(field, value):
    """A format says nothing of what is no text."""
    check_form(check_schema(form(x=field)), {"x": value})


def test_a_form_with_very_many_faults_names_fifty():
    """An error must stay readable, and cheap."""
    data = {"lines": ["x"] * 100_000}
    assert len(form_errors(check_schema(REFUND), data)) == 50


class Model:
    """Stands in for a Pydantic model that contains itself: Pydantic then puts a reference at the top."""

    @classmethod
    def model_json_schema(cls):
        node = {
            "properties": {
                "amount": {"exclusiveMinimum": 0, "title": "Amount", "type": "integer"},
                "more": {"default": [], "items": {"$ref": "#/$defs/Node"}, "title": "More", "type": "array"},
            },
            "required": ["amount"],
            "title": "Node",
            "type": "object",
        }
        return {"$defs": {"Node": node}, "$ref": "#/$defs/Node"}


def test_a_model_class_is_taken_by_its_schema():
    """No dependency on Pydantic: whatever can tell its JSON Schema will do."""
    schema = check_schema(Model)
    assert schema == Model.model_json_schema()
    assert [str(each) for each in form_errors(schema, {"amount": 1, "more": [{"amount": 0}, {}]})] == [
        "more, number 1, amount must be more than 0",
        "more, number 2, amount is required",
    ]


def test_the_schema_returned_is_plain_and_its_own():
    """Later changes by the author do not reach a form that is being shown."""
    mine = form(x={"type": "string"}, y={"enum": (1, 2)})
    kept = check_schema(mine)
    mine["properties"]["x"]["type"] = "integer"
    assert kept == form(x={"type": "string"}, y={"enum": [1, 2]})


def deep(levels: int) -> dict:
    inner: dict = {"type": "string"}
    for _ in range(levels):
        inner = {"items": inner}
    return inner


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (None, "form is a NoneType; pass a JSON Schema"),
        ([], "form is a list"),
        ('{"type": "object"}', "form is a str"),
        (form(x={"default": {1, 2}}), "form is no JSON: "),
        (form(x={"default": float("nan")}), "form is no JSON: "),
        (form(x={"description": "d" * LARGEST_BYTES}), "over the limit of 65536; ask for less at once"),
        (form(x=deep(DEEPEST - 2)), "form is more than 16 levels deep"),
        (form(x=deep(50_000)), "form is "),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}, "use JSON Schema 2020-12"),
        ({}, "form has the type None; its top must be"),
        ({"type": "string"}, "form has the type 'string'"),
        ({"type": ["object", "null"]}, "form has the type ['object', 'null']"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array"}}}, "form has the type 'array'"),
        (form(x={"type": "numbr"}), "form is no JSON Schema: #/properties/x/type"),
        ({"type": "object", "required": "x"}, "form is no JSON Schema: #/required"),
        ({"type": "object", "properties": []}, "form is no JSON Schema: #/properties"),
        ({"type": "object", "$schema": 5}, "form"),
        ({"type": "object", "$ref": 5}, "form is no JSON Schema: #/$ref"),
        (form(x={"pattern": "("}), "form is no JSON Schema: #/properties/x/pattern: '(' is not a 'regex'"),
        (form(x={"pattern": "a{99999999999999999999}"}), "form has a pattern that cannot be read"),
        (form(x={"pattern": "(" * 5000 + ")" * 5000}), "form has a pattern that cannot be read"),
        ({"type": "object", "patternProperties": {"[": {}}}, "form is no JSON Schema: #/patternProperties: '[' is not"),
        (form(x={"$ref": "https://example.com/schema"}), "only references within the form"),
        (form(x={"$ref": "file:///etc/passwd"}), "only references within the form"),
        (form(x={"$ref": "other.json"}), "only references within the form"),
        (form(x={"$dynamicRef": "https://example.com/schema"}), "only references within the form"),
        (form(x={"$ref": "#/$defs/missing"}), "which is not in the form; add it under $defs"),
        (form(x={"$ref": "#name"}), "which is not in the form"),
        (form(x={"$id": "https://example.com/", "$ref": "#/properties/x"}), "names itself"),
        ({"type": "object", "$ref": "#"}, "form refers to itself without end"),
        (form(x={"allOf": [{"$ref": "#/properties/x"}]}), "form refers to itself without end"),
        (
            {"type": "object", "$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}},
            "form refers to itself without end",
        ),
    ],
)  # fmt: skip
def test_a_schema_no_answer_could_pass_or_that_reaches_outside_is_refused_when_the_wait_opens(schema, words):
    """Not days later, in the face of whoever answers."""
    with pytest.raises(BadInput) as refused:
        check_schema(schema)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 400


def test_data_that_looks_like_a_reference_is_data():
    """In a default, an example or a list of choices, and as the name of a field."""
    schema = form(**{"$ref": {"type": "string"}, "x": {"default": {"$ref": "https://a"}, "enum": [{"$id": "b"}]}})
    check_form(check_schema(schema), {"$ref": "a", "x": {"$id": "b"}})


def test_a_form_may_contain_itself_further_down():
    """A tree of comments, for example."""
    tree = form(title={"type": "string"}, replies={"type": "array", "items": {"$ref": "#"}})
    schema = check_schema(tree)
    check_form(schema, {"title": "a", "replies": [{"title": "b", "replies": []}]})
    with pytest.raises(BadInput, match="replies, number 1, title must be text"):
        check_form(schema, {"replies": [{"title": 5}]})


keywords = st.sampled_from(
    ["type", "properties", "items", "$ref", "allOf", "not", "$defs", "required", "pattern", "enum"]
)
junk = st.recursive(
    st.none() | st.integers() | st.sampled_from(["object", "#", "#/$defs/a", "(", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords | st.just("a"), inner, max_size=4),
    max_leaves=12,
)


@settings(UNHURRIED)
@given(st.dictionaries(keywords, junk, max_size=4), junk)
def test_no_schema_breaks_the_check_and_no_data_breaks_a_checked_schema(rest, data):
    """Refused, or it works."""
    try:
        schema = check_schema({**rest, "type": "object"})
    except BadInput:
        return
    for filled in (data, {}, {"a": data}):
        form_errors(schema, filled)


def test_a_worker_that_asks_nobody_anything_does_not_load_the_checker():
    """It takes longer to import than the rest."""
    code = "import sys, axme_celery.forms; sys.exit('jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
