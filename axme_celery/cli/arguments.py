"""Values on the command line: JSON, durations and moments."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click


class JsonValue(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """JSON text; ``@file`` reads it from a file, ``@-`` from standard input."""

    name = "JSON"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = value
        if isinstance(value, str) and value.startswith("@"):
            try:
                text = sys.stdin.read() if value == "@-" else Path(value[1:]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                self.fail(f"cannot read {value[1:]}: {error}", param, ctx)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            self.fail(
                f"this is no JSON ({error}); text needs double quotes, within the shell's own: '\"text\"'", param, ctx
            )


class DurationValue(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A duration, as seconds: "90s", "15m", "4h", "2d", "1d12h", or a number."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from ..durations import seconds
        from ..errors import BadInput

        try:
            return seconds(_number(value), "the duration")
        except BadInput as refused:
            self.fail(str(refused), param, ctx)


class Since(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A moment: ISO 8601 with its offset, or a duration before now. As a datetime, or as seconds."""

    name = "WHEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | datetime:
        from ..durations import moment, seconds
        from ..errors import BadInput

        try:
            return seconds(_number(value), "the duration")
        except BadInput:
            try:
                return moment(value, "the moment")
            except BadInput as refused:
                self.fail(f'{refused}; or write how long ago: "2d", "90m"', param, ctx)


def _number(value: Any) -> Any:
    """Bare digits are seconds here, where everything is text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A moment: ISO 8601 with its offset."""

    name = "WHEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        from ..durations import moment
        from ..errors import BadInput

        try:
            return moment(value, "the moment")
        except BadInput as refused:
            self.fail(str(refused), param, ctx)


JSON, DURATION, SINCE, MOMENT = JsonValue(), DurationValue(), Since(), Moment()
