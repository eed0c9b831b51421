"""Forms from JSON Schema: every field has its own kind, and what is typed becomes the data that was meant."""

from __future__ import annotations

import pytest
from werkzeug.datastructures import MultiDict

from axme_celery import forms
from axme_celery.forms import FieldError
from axme_celery.web import fields


def read(schema, **given):
    """The data of a filled-in form; names as in the schema."""
    typed = MultiDict()
    for name, value in given.items():
        typed.setlist(f"field.{name.replace('__', '.')}", value if isinstance(value, list) else [value])
    return fields.data_of(fields.fields_of(forms.check_schema(schema)), typed)


def of(node, **more):
    return {"type": "object", "properties": {"x": node}, **more}


@pytest.mark.parametrize(
    ("node", "kind", "typed", "meant"),
    [
        ({"type": "string"}, "text", " as it is ", " as it is "),
        ({"type": "string", "maxLength": 4000}, "textarea", "a\r\nb", "a\nb"),
        ({"type": "integer"}, "number", "12", 12),
        ({"type": "number"}, "number", "1.5", 1.5),
        ({"type": "number"}, "number", "7", 7),
        ({"type": "integer"}, "number", "1e3", "1e3"),
        ({"type": "number"}, "number", "nan", "nan"),
        ({"enum": ["a", 2, None]}, "choice", "2", 2),
        ({"enum": ["a", 2, None]}, "choice", '"a"', "a"),
        ({"enum": ["a", "b"]}, "choice", "forged", "forged"),
        ({"type": "boolean"}, "checkbox", "on", True),
        ({"type": "string", "format": "date"}, "text", "2026-10-21", "2026-10-21"),
        ({"type": "string", "format": "date-time"}, "text", "2026-10-21T10:00", "2026-10-21T10:00Z"),
        ({"type": "array", "items": {"type": "string"}}, "lines", "a\r\n\r\n b ", ["a", "b"]),
        ({"type": "array", "items": {"enum": ["a", "b", "c"]}}, "choices", ['"a"', '"c"', "forged"], ["a", "c"]),
        ({"type": "array", "items": {"type": "array"}}, "json", "[[1]]", [[1]]),
        ({"type": "array", "items": {"type": "array"}}, "json", "[[1", "[[1"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "number", "3", 3),
    ],
)  # fmt: skip
def test_what_is_typed_is_what_was_meant(node, kind, typed, meant):
    """And what makes no sense stays as it is, for the schema to refuse in its own words."""
    (field,) = fields.fields_of(of(node))

    assert field.kind == kind
    assert read(of(node), x=typed) == {"x": meant}


def test_what_is_left_empty_is_not_there():
    """So that "required" is what is said of it; but for a box, which is either ticked or not."""
    assert read(of({"type": "string"})) == {}
    assert read(of({"type": "integer"}), x="  ") == {}
    assert read(of({"type": "boolean"})) == {"x": False}
    assert read(of({"type": "array", "items": {"enum": ["a"]}}, required=["x"])) == {"x": []}


def test_parts_that_are_referred_to_and_parts_within_parts():
    """As Pydantic writes them; dots in names are names."""
    schema = {
        "type": "object",
        "$defs": {
            "Size": {"enum": ["S", "M"]},
            "Box": {"type": "object", "properties": {"size": {"$ref": "#/$defs/Size"}}},
        },
        "properties": {"box": {"$ref": "#/$defs/Box"}, "a.b": {"type": "string"}},
    }

    made = fields.fields_of(forms.check_schema(schema))
    typed = MultiDict({made[0].fields[0].name: '"M"', made[1].name: "dotted"})

    assert (made[0].kind, made[0].fields[0].kind) == ("group", "choice")
    assert fields.data_of(made, typed) == {"box": {"size": "M"}, "a.b": "dotted"}


def test_a_schema_that_contains_itself_ends_somewhere():
    """Below that it is typed as JSON."""
    schema = {
        "type": "object",
        "$defs": {
            "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "v": {"type": "string"}}}
        },
        "properties": {"node": {"$ref": "#/$defs/Node"}},
    }

    field, depth = fields.fields_of(forms.check_schema(schema))[0], 0
    while field.kind == "group":
        field, depth = field.fields[0], depth + 1

    assert field.kind == "json" and depth <= 4


def test_errors_are_tied_to_the_nearest_field():
    """Also those of a list's items; what belongs to none comes back."""
    made = fields.fields_of(of({"type": "array", "items": {"type": "string"}}))

    left = fields.blame(made, [FieldError(("x", 1), "is too long"), FieldError(("x",), "is odd"), FieldError((), "no")])

    assert made[0].error == "is too long; is odd" and left == [FieldError((), "no")]


def test_what_was_typed_and_defaults_are_shown_again():
    """As they were."""
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "default": 3}, "c": {"enum": ["a", "b"], "default": "b"},
            "m": {"type": "array", "items": {"enum": ["a", "b"]}, "default": ["a"]}, "t": {"type": "boolean", "default": True},
        },
    }  # fmt: skip
    made = fields.fields_of(schema)
    assert [each.value for each in made] == ["3", '"b"', ['"a"'], True]

    fields.fill(made, MultiDict([("field.n", "many"), ("field.m", '"b"'), ("field.m", '"a"')]))

    assert [each.value for each in made] == ["many", "", ['"b"', '"a"'], False]
