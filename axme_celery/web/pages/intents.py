"""Intents: the list, and everything about one."""

from __future__ import annotations

from typing import Any

from flask import redirect, request, url_for
from werkzeug import Response

from ... import handover, submit
from ...errors import BadInput, TrackerUnavailable
from ...model import Event, Intent, Leg, LegStatus, Progress, Status, StepMark, Wait, WaitStatus
from ...who import Role
from .. import values
from ..house import house, need, visible_intent
from . import blueprint, timeline
from .paging import LINES, cut, filters, place
from .shown import address_with, page, part_wanted, reason_given, shown, visible

#: Legs, steps, waits and events on one page; the command line and the exports have them all.
MOST_LEGS = 200
MOST_STEPS = 200
MOST_WAITS = 200
MOST_EVENTS = 300
#: A step's value of more characters is not on it: a page of two hundred must be one that a phone can take.
LONGEST_VALUE = 10_000


@blueprint.get("/intents")
def intents() -> Any:
    """Intents that pass the filters, newest first."""
    actor = need()
    ledger = house().rt.ledger
    given = filters("find", "status", "type", "tag", "waiting_reason")
    asked: dict[str, Any] = {name: value for name, value in given.items() if value}
    asked["status"] = [each for each in given["status"].split(",") if each in list(Status)] or None
    asked["owner"] = actor.owner
    lines, older, first = cut(
        ledger.views.find_intents(asked, place(), LINES + 1), lambda intent: (intent.created_at, intent.id)
    )
    return page(
        "_intents_live.html" if part_wanted() else "intents.html",
        tab="intents",
        lines=lines,
        parked=ledger.views.parked([intent.id for intent in lines if not intent.status.is_final]),
        older=older,
        first=first,
        given=given,
        counts=ledger.views.count_by_status(actor.owner),
        statuses=[each for each in Status if each is not Status.CREATED],
    )


@blueprint.get("/intents/<intent_id>")
def intent(intent_id: str) -> Any:
    """One intent: what it is, what it did, what it waits for, what it came to."""
    actor = need()
    found = visible_intent(intent_id, actor)
    ledger = house().rt.ledger
    legs = ledger.legs(found.id, MOST_LEGS + 1)
    has_more_legs, legs = len(legs) > MOST_LEGS, legs[:MOST_LEGS]
    steps, waits = ledger.views.steps([leg.id for leg in legs]), ledger.waits(found.id)
    waits = sorted(waits, key=lambda wait: wait.status is not WaitStatus.OPEN)
    events = ledger.events(found.id, max(0, found.seq - MOST_EVENTS), MOST_EVENTS)
    now = ledger.now()
    starts = ledger.views.starts(found.id, now)
    scale = "even" if request.args.get("scale") == "even" else "folded"
    return page(
        "_intent_live.html" if part_wanted() else "intent.html",
        tab="intents",
        intent=found,
        legs=legs,
        has_more_legs=has_more_legs,
        leg_names=_names_of(legs),
        starts=starts,
        first_start=min(starts.values(), default=None) if found.status is Status.SUBMITTED else None,
        steps=_told(steps[-MOST_STEPS:]),
        steps_count=ledger.views.count_steps(found.id) if has_more_legs else len(steps),
        waits=waits[:MOST_WAITS],
        waits_count=len(waits),
        events=[(event, _details(event)) for event in reversed(events)],
        progress=_progress(legs),
        chart=timeline.draw(legs, steps, waits, events, now, folded=scale == "folded"),
        other_scale=address_with(scale="folded" if scale == "even" else "even"),
        scale=scale,
        payload=values.rows(shown(found.payload)),
        result=values.rows(shown(found.result)) if found.status is Status.COMPLETED else None,
        places=_places(steps, waits),
        parked=[leg for leg in legs if leg.status is LegStatus.PARKED],
        letters=[letter for letter in ledger.dead_letters_of(found.id) if letter.state == "OPEN"],
        repeats=ledger.intents({"replay_of": found.id, "owner": actor.owner}, None, 20),
    )


@blueprint.post("/intents/<intent_id>/cancel")
def cancel(intent_id: str) -> Response:
    """End it."""
    found, who = _for_operator(intent_id)
    submit.cancel(house().rt, found.id, reason=reason_given(), by=who)
    return _back(found.id)


@blueprint.post("/intents/<intent_id>/extend")
def extend(intent_id: str) -> Response:
    """Put off its deadline."""
    found, who = _for_operator(intent_id)
    handover.extend(house().rt, found.id, request.form.get("duration", ""), by=who, reason=reason_given())
    return _back(found.id)


@blueprint.post("/intents/<intent_id>/unpark")
def unpark(intent_id: str) -> Response:
    """Let it go on where the code it was written for has changed."""
    found, who = _for_operator(intent_id)
    submit.unpark(
        house().rt, found.id, accept_drift="accept_drift" in request.form, by=who, reason=reason_given()
    )  # fmt: skip
    return _back(found.id)


@blueprint.post("/intents/<intent_id>/replay")
def replay(intent_id: str) -> Response:
    """Start it again as a new intent that keeps its finished work."""
    found, who = _for_operator(intent_id)
    return _back(submit.replay(house().rt, found.id, by=who, reason=reason_given()).id)


@blueprint.post("/intents/<intent_id>/fork")
def fork(intent_id: str) -> Response:
    """Start a new one with its recorded work up to a place."""
    found, who = _for_operator(intent_id)
    before = request.form.get("before", "")
    if not before:
        raise BadInput("Choose the step or wait before which the new one is to begin.")
    return _back(submit.fork(house().rt, found.id, before=before, by=who, reason=reason_given()).id)


def _for_operator(intent_id: str) -> tuple[Intent, str]:
    actor = need(Role.OPERATOR)
    return visible_intent(intent_id, actor), actor.id


def _back(intent_id: str) -> Response:
    return redirect(url_for("axme.pages.intent", intent_id=intent_id), 303)


def _names_of(legs: list[Leg]) -> dict[str, str]:
    """What a leg is called where several of one task are listed."""
    tasks = [leg.task for leg in legs]
    return {
        leg.id: leg.task if tasks.count(leg.task) == 1 else f"{leg.task} #{tasks[:n].count(leg.task) + 1}"
        for n, leg in enumerate(legs)
    }


def _progress(legs: list[Leg]) -> dict[str, Progress]:
    try:
        return house().rt.tracker.progress([leg.id for leg in legs if not leg.status.is_final][:200])
    except TrackerUnavailable:
        return {}


def _told(steps: list[StepMark]) -> list[tuple[StepMark, list[values.Row] | None, int]]:
    """Each step with what it gave, None where that is too long, and how many characters it is."""
    found = house().rt.ledger.views.step_values(steps, LONGEST_VALUE)
    return [
        (step, None if value is None else values.rows(shown(value)), length)
        for step, (value, length) in zip(steps, found, strict=True)
    ]


def _places(steps: list[StepMark], waits: list[Wait]) -> list[str]:
    """Where a fork may begin: "name#n", in the order they came."""
    recorded: list[StepMark | Wait] = [*steps, *waits]
    places = [(each.leg_id, each.position, f"{each.name}#{each.nth}") for each in recorded]
    return list(dict.fromkeys(name for _, _, name in sorted(places)))[:500]


def _details(event: Event) -> str:
    """What an event says besides its type, on one line."""
    told = visible(event.details)
    return "  ".join(
        f"{name}: {each if isinstance(each, str) else values.brief(each)}"
        for name, each in told.items()
        if each is not None and name not in ("wait_id", "payload_hash")
    )[:600]
