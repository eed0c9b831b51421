"""A form's fields from its JSON Schema, and the data from what was filled in. The schema is checked by ``forms``.

Text, numbers, yes or no, choices, dates, lists of text or of choices, and objects of these. What is anything else is
asked for as JSON, so that no schema a task may use cannot be answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..forms import FieldError

#: Fields in the form are named so, that no name in a schema can be taken for one of ours.
PREFIX = "field."
_INPUTS = {
    "date": "date", "date-time": "datetime-local", "time": "time", "email": "email", "uri": "url",
}  # fmt: skip


@dataclass
class Field:
    """One thing to fill in."""

    path: tuple[str, ...]
    #: text, textarea, number, checkbox, choice, choices, lines, json or group.
    kind: str
    label: str
    help: str = ""
    required: bool = False
    #: The ``type`` of an input.
    input: str = "text"
    #: (value as JSON, words) of a choice.
    options: list[tuple[str, str]] = field(default_factory=list)
    #: HTML attributes that say the limits.
    limits: dict[str, str] = field(default_factory=dict)
    #: What is filled in: text; for choices, a list.
    value: Any = ""
    error: str = ""
    fields: list[Field] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name in the form."""
        return PREFIX + ".".join(part.replace("\\", "\\\\").replace(".", "\\.") for part in self.path)

    @property
    def id(self) -> str:
        """Its id in the page."""
        return "f-" + "-".join("".join(c if c.isalnum() else "_" for c in part) for part in self.path)


def fields_of(schema: Mapping[str, Any]) -> list[Field]:
    """The fields of a form, with its defaults filled in."""
    return list(_fields(schema, _resolved(schema, schema), (), 0))


def data_of(fields: list[Field], given: Any) -> dict[str, Any]:
    """What was filled in, as data to be checked. ``given``: the form as it came, a MultiDict."""
    data: dict[str, Any] = {}
    for each in fields:
        if each.kind == "group":
            inner = data_of(each.fields, given)
            if inner or each.required:
                data[each.path[-1]] = inner
            continue
        found, value = _read(each, given)
        if found:
            data[each.path[-1]] = value
    return data


def fill(fields: list[Field], given: Any) -> None:
    """Put what was filled in into the fields, as it was typed."""
    for each in fields:
        if each.kind == "group":
            fill(each.fields, given)
        elif each.kind == "choices":
            each.value = given.getlist(each.name)
        elif each.kind == "checkbox":
            each.value = each.name in given
        else:
            each.value = given.get(each.name, "")


def blame(fields: list[Field], errors: list[FieldError]) -> list[FieldError]:
    """Tie errors to their fields; those that belong to none come back."""
    by_path = {each.path: each for each in _all(fields)}
    left = []
    for error in errors:
        path = tuple(str(part) for part in error.path)
        while path and path not in by_path:
            path = path[:-1]
        if not path:
            left.append(error)
            continue
        at = by_path[path]
        at.error = f"{at.error}; {error.words}" if at.error else error.words
    return left


def _all(fields: list[Field]) -> Iterator[Field]:
    for each in fields:
        yield each
        yield from _all(each.fields)


def _fields(root: Mapping[str, Any], node: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Iterator[Field]:
    required = node.get("required", [])
    for name, given in node.get("properties", {}).items():
        each, optional = _unwrapped(root, given)
        made = _field(root, each, (*path, name), depth)
        made.required = name in required and not optional
        yield made


def _field(root: Mapping[str, Any], node: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Field:
    label = str(node.get("title") or path[-1].replace("_", " ").capitalize())
    made = Field(path, "json", label, str(node.get("description") or ""))
    kind = node.get("type")
    if "const" in node:
        made.kind, made.options = "choice", _options([node["const"]])
    elif "enum" in node:
        made.kind, made.options = "choice", _options(node["enum"])
    elif kind == "object" and node.get("properties") and depth < 3:
        made.kind, made.fields = "group", list(_fields(root, node, path, depth + 1))
    elif kind == "boolean":
        made.kind = "checkbox"
    elif kind in ("integer", "number"):
        made.kind, made.input = "number", "number"
        made.limits = {"step": "1" if kind == "integer" else "any"} | _limits(
            node, {"minimum": "min", "maximum": "max"}
        )
    elif kind == "string":
        made.input = _INPUTS.get(str(node.get("format")), "text")
        long = made.input == "text" and (node.get("maxLength", 0) > 200 or node.get("format") == "textarea")
        made.kind = "textarea" if long else "text"
        made.limits = _limits(node, {"minLength": "minlength", "maxLength": "maxlength"})
    elif kind == "array" and isinstance(node.get("items"), dict):
        items, _ = _unwrapped(root, node["items"])
        if "enum" in items:
            made.kind, made.options = "choices", _options(items["enum"])
        elif items.get("type") == "string":
            made.kind = "lines"
            made.help = (made.help + " One on each line.").strip()
    if "default" in node:
        made.value = _typed(made, node["default"])
    return made


def _typed(made: Field, default: Any) -> Any:
    """A default as it would be typed."""
    match made.kind:
        case "checkbox":
            return bool(default)
        case "choices":
            return [json.dumps(each) for each in default] if isinstance(default, list) else []
        case "choice":
            return json.dumps(default)
        case "lines":
            return "\n".join(map(str, default)) if isinstance(default, list) else ""
        case "json":
            return json.dumps(default, indent=2)
    return "" if default is None else str(default)


def _read(each: Field, given: Any) -> tuple[bool, Any]:
    """Whether something was filled in, and what."""
    if each.kind == "checkbox":
        return True, each.name in given
    if each.kind == "choices":
        known = {text for text, _ in each.options}
        chosen = [json.loads(text) for text in given.getlist(each.name) if text in known]
        return bool(chosen) or each.required, chosen
    text = given.get(each.name, "").replace("\r\n", "\n")
    if not text.strip():
        return False, None
    match each.kind:
        case "choice":
            known = {option for option, _ in each.options}
            return True, json.loads(text) if text in known else text
        case "lines":
            return True, [line.strip() for line in text.split("\n") if line.strip()]
        case "number":
            return True, _number(text.strip(), whole=each.limits.get("step") == "1")
        case "json":
            try:
                return True, json.loads(text)
            except (ValueError, RecursionError):
                return True, text
    if each.input == "datetime-local" and len(text) <= 19:
        text += "Z"  # which the field's help says
    return True, text


def _number(text: str, *, whole: bool) -> Any:
    """The number; the text itself where it is none, which the schema then refuses in its own words."""
    try:
        number = int(text) if whole or text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return text
    return number if number == number and abs(number) != float("inf") else text


def _options(values: list[Any]) -> list[tuple[str, str]]:
    return [(json.dumps(each), each if isinstance(each, str) else json.dumps(each)) for each in values]


def _limits(node: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    return {html: str(node[name]) for name, html in names.items() if isinstance(node.get(name), int | float)}


def _unwrapped(root: Mapping[str, Any], node: Any) -> tuple[Mapping[str, Any], bool]:
    """A field's own schema, whether it may also be nothing: Optional is a choice of it and null."""
    resolved = _resolved(root, node)
    for word in ("anyOf", "oneOf"):
        choices = [_resolved(root, each) for each in resolved.get(word, ())]
        real = [each for each in choices if each.get("type") != "null"]
        if len(real) == 1 and len(choices) == 2:
            around = {name: value for name, value in resolved.items() if name != word}
            return {**real[0], **around}, True
    return resolved, False


def _resolved(root: Mapping[str, Any], node: Any) -> Mapping[str, Any]:
    """A schema, with its reference followed."""
    for _ in range(20):
        if not isinstance(node, dict):
            return {}
        if "$ref" not in node:
            return node
        found: Any = root
        for part in str(node["$ref"]).split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, dict) else {}
        node = {**found, **{name: value for name, value in node.items() if name != "$ref"}}
    return {}
