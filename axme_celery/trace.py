"""W3C trace context: taken in with a request or a task, kept in the intent, and sent on with every leg.

Where OpenTelemetry is installed (the extra ``otel``), its present span is what is carried on, and each run of a leg is
a span of its own. Without it the two headers are passed on as they came.

Source: W3C Trace Context, Recommendation of 2021-11-23.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
#: The headers' names: in HTTP, and in Celery's messages.
NAMES = ("traceparent", "tracestate")

_here: ContextVar[dict[str, str] | None] = ContextVar("axme_trace", default=None)


def read(headers: Mapping[str, Any]) -> dict[str, str] | None:
    """The trace context in headers; None where there is none that is well formed."""
    parent, state = headers.get("traceparent"), headers.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return None
    found = {"traceparent": parent}
    if isinstance(state, str) and _TRACESTATE.fullmatch(state):
        found["tracestate"] = state
    return found


def carried() -> dict[str, str] | None:
    """What whatever is begun here goes on with: OpenTelemetry's span where there is one, else what came in."""
    api = _otel()
    if api is not None:
        found: dict[str, str] = {}
        api["inject"](found)
        if found.get("traceparent"):
            return {name: found[name] for name in NAMES if found.get(name)}
    return _here.get()


@contextlib.contextmanager
def within(context: Mapping[str, str] | None) -> Iterator[None]:
    """What is begun meanwhile goes on with this trace."""
    token = _here.set(dict(context) if context else None)
    try:
        yield
    finally:
        _here.reset(token)


def enter(context: Mapping[str, str] | None) -> None:
    """The same for the rest of this thread's request."""
    _here.set(dict(context) if context else None)


@contextlib.contextmanager
def span(name: str, context: Mapping[str, str] | None, attributes: Mapping[str, Any]) -> Iterator[None]:
    """A span of OpenTelemetry's that continues the context; without OpenTelemetry, only ``within``."""
    api = _otel()
    if api is None:
        with within(context):
            yield
        return
    parent = api["extract"](dict(context or {}))
    with (
        within(context),
        api["tracer"]().start_as_current_span(
            name, context=parent, attributes=dict(attributes), record_exception=False, set_status_on_exception=False
        ),
    ):
        yield


@functools.cache
def _otel() -> dict[str, Any] | None:
    """What is needed of OpenTelemetry; None where it is not installed."""
    try:
        from opentelemetry import trace
        from opentelemetry.propagate import extract, inject
    except ImportError:
        return None
    return {"inject": inject, "extract": extract, "tracer": lambda: trace.get_tracer("axme_celery")}


__all__ = ["NAMES", "carried", "enter", "read", "span", "within"]
