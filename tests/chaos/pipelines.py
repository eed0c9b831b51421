"""What must hold of the pipeline that is killed (``links.py``)."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from axme_celery import audit
from axme_celery.graph import WAIT_TASKS, Join, JoinStatus
from axme_celery.lifecycle import MOVES, NOTES
from axme_celery.model import Leg, LegStatus, Status

from .checker import Finding, Rule
from .links import LINK, digest_of
from .witness import Line


def check(axme: Any, lines: list[Line], faults: int) -> list[Finding]:
    """Everything that is broken of the one pipeline in the ledger."""
    ledger = axme.runtime.ledger
    handles = list(axme.intents())
    if len(handles) != 1:
        return [Finding(Rule.LOST, "", f"{len(handles)} intents; 1 was to come")]
    (handle,) = handles
    intent, legs, joins = ledger.intent(handle.id), ledger.legs(handle.id), ledger.joins(handle.id)
    if intent.status is not Status.COMPLETED:
        where = ", ".join(f"{leg.node} {leg.status} run {leg.run}" for leg in legs if leg.status is not LegStatus.DONE)
        return [Finding(Rule.LOST, intent.id, f"{intent.status} {intent.error or ''}: {where}")]
    events, secret = handle.events(), axme.settings.secret_key
    found = [*_graph(intent, legs, joins), *_runs(legs, lines, faults), *_history(intent, events)]
    trouble = audit.verify(intent, events, secret.encode() if secret else None)
    found += [(Rule.AUDIT, trouble)] if trouble else []
    for leg in legs:
        shown = axme.app.AsyncResult(leg.id)
        if shown.state != "SUCCESS":
            found.append((Rule.RESULT, f"AsyncResult of {leg.node} says {shown.state}"))
        elif leg.task == LINK and shown.result != json.loads(leg.result or "null"):
            found.append((Rule.RESULT, f"AsyncResult of {leg.node} is not its result"))
    return [Finding(rule, intent.id, what) for rule, what in found]


def reached(axme: Any) -> Counter[str]:
    """Events and moves of the pipeline, for what a run must have gone through."""
    counted: Counter[str] = Counter()
    for handle in axme.intents():
        events = handle.events()
        counted.update(event.type for event in events)
        counted.update(f"{a.status}>{b.status}" for a, b in itertools.pairwise(events))
        counted.update(f"{wait.kind} {wait.status}" for wait in handle.waits())
    return counted


Found = Iterator[tuple[Rule, str]]


def _graph(intent: Any, legs: list[Leg], joins: list[Join]) -> Found:
    """Each leg took exactly what those before it gave, as recorded."""
    value: dict[str, Any] = {leg.id: json.loads(leg.result or "null") for leg in legs}
    for join in joins:
        if (join.status, join.left) != (JoinStatus.PASSED, 0):
            yield Rule.LOST, f"join {join.node} is {join.status} with {join.left} left"
    members: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for one in (*legs, *joins):
        if one.join_id is not None:
            members[one.join_id].append((one.join_index, one.id))
    for join in joins:
        value[join.id] = [value[member] for _, member in sorted(members[join.id])]
    for leg in legs:
        if leg.status is not LegStatus.DONE:
            yield Rule.LOST, f"{leg.node} is {leg.status} in a completed intent"
        if leg.after is not None and leg.plan.get("takes"):
            took = leg.plan.get("given") if leg.task in WAIT_TASKS else leg.signature["args"][0]
            if digest_of(took) != digest_of(value[leg.after]):
                yield Rule.CHANGED, f"{leg.node} took something else than what came before it gave"
    last = next(leg for leg in legs if leg.is_last)
    if json.loads(intent.result or "null") != value[last.id]:
        yield Rule.RESULT, "the result is not that of the last leg"


def _runs(legs: list[Leg], lines: list[Line], faults: int) -> Found:
    """A leg that is done never starts again; a recorded step never runs again; a fault costs one execution at most."""
    started: dict[str, list[Line]] = defaultdict(list)
    stepped: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line["ev"] in ("P", "Q"):
            (started if line["ev"] == "P" else stepped)[line["leg"]].append(line)
    extra = 0
    for leg in legs:
        if leg.task != LINK:
            continue
        runs = Counter(line["run"] for line in started[leg.id])
        if not runs:
            yield Rule.LOST, f"{leg.node} is done and never ran"
        if runs and max(runs) > leg.run:
            yield Rule.STALE, f"{leg.node} was done by run {leg.run} and started again by run {max(runs)}"
        for run, count in runs.items():
            if count > 1:
                yield Rule.TWICE, f"run {run} of {leg.node} started {count} times"
        if {line["args"] for line in started[leg.id]} != {digest_of(leg.signature["args"])}:
            yield Rule.CHANGED, f"{leg.node} was called with something else than is on record"
        extra += max(len(runs) - 1, 0)
        if len({line["run"] for line in stepped[leg.id]}) - 1 > len(runs) - 1:
            yield Rule.REPEATED, f"the step of {leg.node} ran more often than its leg"
    if extra > faults:
        yield Rule.EXTRA, f"{extra} executions beyond the first, from {faults} faults"


def _history(intent: Any, events: list[Any]) -> Found:
    status = Status.CREATED
    for number, event in enumerate(events, 1):
        expected = status if event.type in NOTES else MOVES[status].get(event.type)
        if number > 1 and (event.seq != number or event.status != expected):
            yield Rule.HISTORY, f"event {number}, {event.type}: {status} -> {event.status}; the table says {expected}"
        status = event.status
    if (status, len(events)) != (intent.status, intent.seq):
        yield Rule.HISTORY, f"the events end {status} at {len(events)}, the intent is {intent.status} at {intent.seq}"
    if sum(event.type == "intent.completed" for event in events) != 1:
        yield Rule.OUTCOME, "it was completed more than once"
