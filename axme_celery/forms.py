"""Forms: the JSON Schema of what a person is asked to fill in, and the check of what they filled in.

A schema is checked when the wait opens, so that nobody finds out days later that no answer can pass it.
Schemas come from a task's author, never from whoever answers.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any
from urllib.parse import urlsplit

from .errors import BadInput

#: Size of a schema as compact JSON, and lists and objects within one another.
LARGEST_BYTES = 65536
DEEPEST = 16

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MOST_ERRORS = 50


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field of a filled-in form."""

    #: Keys and positions down to the field, ("address", "city"); () is the form as a whole.
    path: tuple[str | int, ...]
    #: What is wrong, to be read after the field's name: "is required".
    words: str

    def __str__(self) -> str:
        return f"{field_name(self.path)} {self.words}"


def field_name(path: tuple[str | int, ...]) -> str:
    """A field in words: "address, city", "items, number 2"; the form itself is "the form"."""
    return ", ".join(f"number {each + 1}" if isinstance(each, int) else each for each in path) or "the form"


def check_schema(schema: Any) -> dict[str, Any]:
    """A form's schema as plain JSON, fit to be stored.

    schema: JSON Schema (2020-12) of an object, or a Pydantic model, from which it is taken.

    Raises BadInput for a schema that is not one, refers to outside itself, is over 64 KiB or 16 levels,
    or describes anything but one object.
    """
    made = getattr(schema, "model_json_schema", None)
    source = made() if callable(made) else schema
    if not isinstance(source, dict):
        raise BadInput(f"form is a {type(schema).__name__}; pass a JSON Schema as a dict, or a Pydantic model")
    try:
        text = json.dumps(source, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as wrong:
        raise BadInput(f"form is no JSON: {wrong}") from wrong
    if len(text) > LARGEST_BYTES:
        raise BadInput(f"form is {len(text)} bytes, over the limit of {LARGEST_BYTES}; ask for less at once")
    plain: dict[str, Any] = json.loads(text)
    if _depth(plain) > DEEPEST:
        raise BadInput(f"form is more than {DEEPEST} levels deep; flatten it")
    if str(plain.get("$schema", _DIALECT)).rstrip("#") != _DIALECT:
        raise BadInput(f"form is written in {plain['$schema']!r}; use JSON Schema 2020-12, or leave $schema out")
    _check_keywords(plain)
    top = plain
    while "type" not in top and "$ref" in top:  # a model that contains itself is a reference at its top
        top = _target(plain, top["$ref"])
    if top.get("type") != "object":
        raise BadInput(f'form has the type {top.get("type")!r}; its top must be {{"type": "object", ...}}')
    return plain


def check_form(schema: Mapping[str, Any], data: Any) -> None:
    """Refuse data that does not fit the form.

    schema: what ``check_schema`` returned.

    Raises BadInput that names every field at fault: "form data: amount is required; address, city must be text".
    """
    errors = form_errors(schema, data)
    if errors:
        raise BadInput("form data: " + "; ".join(str(each) for each in errors))


def form_errors(schema: Mapping[str, Any], data: Any) -> list[FieldError]:
    """Everything wrong with the data, field by field, at most 50; empty when it fits."""
    if not isinstance(data, dict):
        return [FieldError((), f"must be an object with its fields, not {_shown(data)}")]
    try:
        found = []
        for each in _validator(schema).iter_errors(data):
            found += _in_words(each)
            if len(found) >= _MOST_ERRORS:
                break
    except RecursionError:
        return [FieldError((), "cannot be checked: its schema, or what was filled in, goes on without end")]
    except (ValueError, ArithmeticError):  # an integer of thousands of digits, in a sum or in a message
        return [FieldError((), "has a number too large to check")]
    unique = dict.fromkeys(sorted(found, key=lambda each: [str(part) for part in each.path]))
    return list(unique)[:_MOST_ERRORS]


# -- schemas -----------------------------------------------------------------


def _check_keywords(schema: dict[str, Any]) -> None:
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as wrong:
        raise BadInput(f"form is no JSON Schema: {_place(wrong.absolute_path)}: {_cut(wrong.message)}") from None
    except (RecursionError, OverflowError) as wrong:  # patterns that are too much to compile
        raise BadInput(f"form has a pattern that cannot be read: {wrong}") from None
    for where, node in _nodes(schema):
        for word in ("$ref", "$dynamicRef"):
            if word in node:
                _check_ref(schema, node[word], f"{where}/{word}")
        if "$id" in node or "$anchor" in node or "$dynamicAnchor" in node:
            raise BadInput(f"form: {where} names itself ($id, $anchor); refer to parts by #/$defs/... instead")
    _check_ends(schema)


def _check_ref(schema: dict[str, Any], ref: str, where: str) -> None:
    if not ref.startswith("#"):
        raise BadInput(f"form: {where} is {_shown(ref)}; only references within the form (#/$defs/...) are followed")
    if not isinstance(_target(schema, ref), (dict, bool)):
        raise BadInput(f"form: {where} is {_shown(ref)}, which is not in the form; add it under $defs")


def _target(schema: dict[str, Any], ref: str) -> Any:
    """What a reference within the form names; None where there is nothing."""
    node: Any = schema
    start, *parts = ref.split("/")
    if start != "#":
        return None
    for part in parts:
        key = part.replace("~1", "/").replace("~0", "~")
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _check_ends(schema: dict[str, Any]) -> None:
    """Refuse references that lead back to themselves without going down into the data: no check would ever end."""
    done: set[int] = set()
    above: list[int] = []

    def visit(node: Any) -> None:
        if not isinstance(node, dict) or id(node) in done:
            return
        if id(node) in above:
            raise BadInput("form refers to itself without end; a $ref may lead back only through a property or an item")
        above.append(id(node))
        for word in _SAME:
            if word in node:
                visit(node[word])
        for each in (one for word in _LIST - {"prefixItems"} for one in node.get(word, ())):
            visit(each)
        for each in node.get("dependentSchemas", {}).values():
            visit(each)
        for word in ("$ref", "$dynamicRef"):
            if word in node:
                visit(_target(schema, node[word]))
        done.add(above.pop())

    for _, node in _nodes(schema):
        visit(node)


# Keywords whose value is a schema, a list of schemas, or a mapping of names to schemas. What stands anywhere else
# ("default", "enum", "examples") is data, and may well contain a "$ref".
_ONE = frozenset({
    "not", "if", "then", "else", "items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems",
    "unevaluatedProperties",
})  # fmt: skip
_SAME = ("not", "if", "then", "else")  # of these, what applies to the same data
_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def _nodes(schema: Any, where: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, with its place."""
    if not isinstance(schema, dict):
        return
    yield where, schema
    for key, value in schema.items():
        if key in _ONE:
            yield from _nodes(value, f"{where}/{key}")
        elif key in _LIST:
            for n, each in enumerate(value):
                yield from _nodes(each, f"{where}/{key}/{n}")
        elif key in _NAMED:
            for name, each in value.items():
                yield from _nodes(each, f"{where}/{key}/{name}")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, (dict, list))]:
        depth += 1
        level = [one for each in level for one in (each.values() if isinstance(each, dict) else each)]
    return depth


# -- the validator: jsonschema takes 60 ms to import, which no worker should pay that asks nobody anything --


def _validator(schema: Mapping[str, Any]) -> Any:
    import jsonschema
    from referencing import Registry

    # An empty registry of our own: the default one would fetch what a $ref names.
    return jsonschema.Draft202012Validator(schema, registry=Registry(), format_checker=_formats())


@functools.cache
def _formats() -> Any:
    import jsonschema

    # The library knows these only with further packages installed, and lets everything pass without them.
    checker = jsonschema.FormatChecker()
    own: dict[str, Callable[[str], bool]] = {"date-time": _is_date_time, "time": _is_time, "uri": _is_uri}
    for name, fits in own.items():
        checker.checkers[name] = (lambda text, fits=fits: not isinstance(text, str) or fits(text), ValueError)
    return checker


def _is_date_time(text: str) -> bool:
    return "T" in text.upper() and datetime.fromisoformat(text.upper()).utcoffset() is not None


def _is_time(text: str) -> bool:
    time.fromisoformat(text)
    return ":" in text


def _is_uri(text: str) -> bool:
    parts = urlsplit(text)
    return bool(parts.scheme) and bool(parts.netloc or parts.path) and not re.search(r"[\s<>\"]", text)


# -- errors in words ---------------------------------------------------------

_TYPES = {
    "string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false", "null": "empty",
    "array": "a list", "object": "an object",
}  # fmt: skip
_FORMATS = {
    "date": "a date like 2026-10-31", "date-time": "a time like 2026-10-31T18:00:00Z", "time": "a time like 18:00",
    "email": "an e-mail address", "uri": "an address like https://example.com/x", "uuid": "a UUID",
}  # fmt: skip
_WORDS: dict[str, Callable[[Any], str]] = {
    "enum": lambda limit: f"must be one of {', '.join(_shown(each) for each in limit[:20])}",
    "const": lambda limit: f"must be {_shown(limit)}",
    "minimum": lambda limit: f"must be {limit} or more",
    "maximum": lambda limit: f"must be {limit} or less",
    "exclusiveMinimum": lambda limit: f"must be more than {limit}",
    "exclusiveMaximum": lambda limit: f"must be less than {limit}",
    "multipleOf": lambda limit: f"must be a multiple of {limit}",
    "minLength": lambda limit: f"must have at least {_many(limit, 'character')}",
    "maxLength": lambda limit: f"must have at most {_many(limit, 'character')}",
    "minItems": lambda limit: f"must have at least {_many(limit, 'item')}",
    "maxItems": lambda limit: f"must have at most {_many(limit, 'item')}",
    "minProperties": lambda limit: f"must have at least {_many(limit, 'field')}",
    "maxProperties": lambda limit: f"must have at most {_many(limit, 'field')}",
    "uniqueItems": lambda _: "must not have an item twice",
    "pattern": lambda limit: f"must match the pattern {_cut(limit)}",
    "format": lambda limit: f"must be {_FORMATS.get(limit, 'of the format ' + _cut(str(limit)))}",
}


def _in_words(error: Any) -> list[FieldError]:
    path, limit = tuple(error.absolute_path), error.validator_value
    match error.validator:
        case "type":
            return [FieldError(path, f"must be {_kinds(limit)}, not {_shown(error.instance)}")]
        case "required":
            # The library reports each missing field by itself; the field is at fault, not the object around it.
            return [FieldError((*path, name), "is required") for name in limit if name not in error.instance]
        case "additionalProperties" if limit is False:
            known, patterns = error.schema.get("properties", {}), error.schema.get("patternProperties", ())
            extra = [
                name for name in error.instance if name not in known and not any(re.search(p, name) for p in patterns)
            ]
            return [FieldError((*path, _cut(name)), "is not asked for") for name in extra[:_MOST_ERRORS]]
        case "anyOf" | "oneOf" if error.context:
            # Of the alternatives, the one that came nearest says most ("or nothing" is what Optional makes).
            kinds = [
                each["type"]
                for each in limit
                if isinstance(each, dict) and set(each) <= {"type", "title"} and "type" in each
            ]
            if len(kinds) == len(limit):
                return [FieldError(path, f"must be {_kinds(kinds)}, not {_shown(error.instance)}")]
            near = [each for each in error.context if each.validator != "type" or len(each.path)]
            return _in_words(near[0] if near else error.context[0])
        case word if word in _WORDS:
            return [FieldError(path, _WORDS[word](limit))]
    return [FieldError(path, f"does not fit ({_cut(error.message)})")]


def _kinds(kinds: str | list[str]) -> str:
    names = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_TYPES.get(each, str(each)) for each in names)


def _many(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _place(path: Any) -> str:
    return "#" + "".join(f"/{each}" for each in path)


def _shown(value: Any) -> str:
    try:
        return _cut(json.dumps(value, ensure_ascii=False, default=repr))
    except (ValueError, TypeError, RecursionError):
        return f"a {type(value).__name__}"


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
