"""Write docs/reference.md and docs/cli.md from the code. ``python -m tests.docs.write_reference``

The reference is made of docstrings, signatures and ``Settings.documented()``; the command line's options of what click
knows of each verb.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import click

import axme_celery
from axme_celery import model, notifiers
from axme_celery.cli import VERBS, main
from axme_celery.config import Settings
from axme_celery.durations import words
from axme_celery.people import People
from axme_celery.testing import Stage

from .generated import Parts, write
from .pages import ROOT

WRITER = "tests.docs.write_reference"
REFERENCE, COMMANDS = "docs/reference.md", "docs/cli.md"

#: What a task calls; what holds an intent; what it gives back.
INSIDE = ("step", "current_step", "wait_for_human", "wait_for_tool", "wait_for_time", "wait_for_agent", "callback_url")
INSIDE_TOO = ("current_intent", "progress")
RECORDS = (model.Decision, model.Event, model.Leg, model.Checkpoint, model.Wait, model.Progress, model.DeadLetter)


# -- settings ---------------------------------------------------------------------


def settings() -> str:
    """Every setting."""
    return _table(key for key, _, _ in Settings.documented())


def _table(keys: Any) -> str:
    known = {key: (default, meaning) for key, default, meaning in Settings.documented()}
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key in keys:
        default, meaning = known[key]
        lines.append(f"| `{key}` | {_default(key, default)} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def _default(key: str, default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, tuple) and default and all(isinstance(each, float) for each in default):
        return ", ".join(words(each) for each in default)
    if isinstance(default, (tuple, dict)) and not default:
        return "empty"
    if isinstance(default, float) and key.endswith("_seconds"):
        return f"{default:g}"
    return f"`{default!r}`"


# -- Python -------------------------------------------------------------------------


def extension() -> str:
    """``Axme``: making it, and its methods."""
    made = _entry("Axme", axme_celery.Axme, heading="###")
    return "\n\n".join([made, *_methods("axme", axme_celery.Axme, ("app", "settings")), *_methods("axme", People)])


def intent() -> str:
    """``Intent``: its attributes and methods."""
    described = _text(axme_celery.Intent.__doc__)
    attributes = [name for name, value in vars(axme_celery.Intent).items() if isinstance(value, property)]
    lines = [f"- `{name}`{_of_property(name)}" for name in attributes]
    return "\n\n".join([described, "\n".join(lines), *_methods("intent", axme_celery.Intent)])


def inside() -> str:
    """What a task calls."""
    return "\n\n".join(_entry(name, getattr(axme_celery, name)) for name in (*INSIDE, *INSIDE_TOO))


def records() -> str:
    """What comes back: frozen records and their fields."""
    return "\n\n".join(f"### `{noun.__name__}`\n\n{_text(noun.__doc__)}\n\n{_fields(noun)}" for noun in RECORDS)


def notice() -> str:
    """What a notifier is given."""
    return _fields(notifiers.Notice)


def stage() -> str:
    """``Stage`` for users' own tests."""
    return "\n\n".join([_entry("Stage", Stage, heading="###"), *_methods("stage", Stage, ("now", "engine"))])


def _methods(owner: str, of: type, properties: tuple[str, ...] = ()) -> Iterator[str]:
    for name, value in vars(of).items():
        if name in properties:
            yield f"#### `{owner}.{name}`\n\n{_text(value.__doc__)}"
        elif (
            inspect.isfunction(value)
            and not name.startswith("_")
            and value.__doc__
            and not (of is axme_celery.Axme and name in _INNER)
        ):
            yield _entry(f"{owner}.{name}", value)


#: Methods of ``Axme`` that its own rooms call.
_INNER = ("call", "adopt", "read_canvas", "read_called", "read_work", "read_settings", "assemble", "lent", "notice")


def _entry(name: str, value: Callable[..., Any], heading: str = "####") -> str:
    return f"{heading} `{name}{_signature(value)}`\n\n{_text(value.__doc__)}"


def _signature(value: Callable[..., Any]) -> str:
    """Names and defaults; what each takes is said below it."""
    signature = inspect.signature(value)
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def _of_property(name: str) -> str:
    value = vars(axme_celery.Intent)[name]
    if value.fget.__doc__:
        return f": {_plain(value.fget.__doc__)}"
    known = {each.name: comment for each, comment in _commented(model.Intent)}
    comment = known.get(name, "")
    return f": {comment}" if comment else ""


# -- records -------------------------------------------------------------------------


def _fields(noun: type) -> str:
    lines = []
    for each, comment in _commented(noun):
        lines.append(f"- `{each.name}`{': ' + comment if comment else ''}")
    properties = [(name, value) for name, value in vars(noun).items() if isinstance(value, property)]
    lines += [f"- `{name}`: {_plain(value.fget.__doc__ or '')}" for name, value in properties]
    return "\n".join(lines)


def _commented(noun: Any) -> Iterator[tuple[dataclasses.Field[Any], str]]:
    """Each field with the ``#:`` lines above it."""
    comments: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(noun).splitlines():
        if found := re.match(r"\s*#: (.*)", line):
            above.append(found[1])
        elif found := re.match(r"    (\w+): ", line):
            comments[found[1]], above = _plain(" ".join(above)), []
        else:
            above = []
    for each in dataclasses.fields(noun):
        if not each.name.startswith("_"):
            yield each, comments.get(each.name, "")


# -- docstrings as Markdown --------------------------------------------------------------

_ITEM = re.compile(r"^(?P<names>\w+(?:, \w+)*): +(?P<text>\S.*)$")


def _text(docstring: str | None) -> str:
    """A docstring's paragraphs; lines like "timeout:  how long" become a list."""
    assert docstring, "everything public says what it is"
    return "\n\n".join(_paragraph(each) for each in inspect.cleandoc(docstring).split("\n\n"))


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if all(line.startswith("    ") for line in lines):
        return "\n".join(["```text", *(line[4:] for line in lines), "```"])
    if not _ITEM.match(lines[0]):
        return _plain(text)
    items: list[str] = []
    for line in lines:
        if found := _ITEM.match(line):
            names = ", ".join(f"`{name}`" for name in found["names"].split(", "))
            items.append(f"- {names}: {found['text']}")
        else:
            items[-1] += f" {line.strip()}"
    return "\n".join(_plain(item) for item in items)


def _plain(text: str) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", " ".join(text.split()))


# -- the command line ----------------------------------------------------------------------


def verb(path: str) -> Callable[[], str]:
    """One verb: how it is called, and its options."""

    def part() -> str:
        command = command_of(path)
        context = click.Context(command, info_name=path)
        project = "" if path == "demo" else "-A proj "
        usage = " ".join([f"axme-celery {project}{path}", *command.collect_usage_pieces(context)])
        lines = [f"`{usage}`", "", _plain(command.help or "")]
        options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
        rows = [row for option in options if (row := option.get_help_record(context))]
        if rows:
            lines += ["", "| option | |", "|---|---|"]
            lines += [f"| `{names.replace('|', chr(92) + '|')}` | {_escaped(words)} |" for names, words in rows]
        return "\n".join(lines)

    return part


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def command_of(path: str) -> click.Command:
    """The command of a verb, or of one in a group ("dead-letters list")."""
    command: click.Command = main
    context = click.Context(main)
    for name in path.split():
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None, f"no verb {path}"
        command = found
    return command


def verbs() -> list[str]:
    """Every verb, groups taken apart: "submit", "dead-letters list", ..."""
    found: list[str] = []
    for name in VERBS:
        command = command_of(name)
        if isinstance(command, click.Group):
            found += [f"{name} {each}" for each in command.list_commands(click.Context(command))]
        else:
            found.append(name)
    return found


PAGES: dict[str, Parts] = {
    REFERENCE: {
        "settings": settings,
        "Axme": extension,
        "Intent": intent,
        "inside": inside,
        "records": records,
        "Notice": notice,
        "Stage": stage,
    },
    COMMANDS: {name: verb(name) for name in verbs()},
}

if __name__ == "__main__":
    write(WRITER, PAGES)
    assert ROOT
