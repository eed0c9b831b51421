"""A leg that puts other work in its place: ``self.replace``, and ``add_to_chord``, which puts more beside it.

The leg's id goes to the last task of what replaces it, as Celery has it, so that
whoever waits for its result gets that one's. What the leg had recorded itself
stays on record, under a leg of its own that is done.
"""

from __future__ import annotations

from dataclasses import replace

from . import begin, lifecycle
from .errors import BadInput
from .graph import Join
from .model import Change, Intent, JsonDict, Leg, LegStatus, Work
from .plan import with_errbacks
from .ports import Runtime

#: Gives a group's results on as one value: what Celery itself ends a replacement with that ends in a group.
ACCUMULATE: JsonDict = {
    "task": "celery.accumulate", "args": [], "kwargs": {"index": 0}, "options": {}, "subtask_type": None,
    "immutable": False,
}  # fmt: skip


def replaced(rt: Runtime, intent: Intent, leg: Leg, canvas: JsonDict, on: lifecycle.Occasion) -> list[Change]:
    """This leg's place is taken by a canvas, whose last task gets its id.

    Raises BadInput for a canvas that cannot be carried.
    """
    options = leg.signature.get("options") or {}
    errbacks = [*leg.plan.get("link_error", ()), *(options.get("link_error") or ())]
    canvas = with_errbacks(canvas, errbacks, False)
    work = rt.read_work(canvas)
    if work.legs and _last(work) is None:
        tasks = {"tasks": [canvas, ACCUMULATE]}
        work = rt.read_work(
            {"task": "celery.chain", "args": [], "kwargs": tasks, "options": {}, "subtask_type": "chain",
             "immutable": False}
        )  # fmt: skip
    before = replace(
        leg, id=rt.new_id(), status=LegStatus.DONE, node=f"{leg.node}/replaced" if leg.node else "replaced", after=None,
        join_id=None, within=None, followers=0, result="null", ended_at=on.now,
        # What it was, should it be done anew.
        plan={"replaced": leg.id, "after": leg.after, "turn": leg.turn, "plan": leg.plan},
    )  # fmt: skip
    legs, joins = _in_place_of(leg, work, intent.id, on)
    first = [begin.turn(rt, intent, one, None, None, on) for one in legs if one.after is None]
    change = lifecycle.replace_leg(intent, leg, before, legs, joins, first, on=on)
    return begin.with_children(change, first)


def _last(work: Work) -> Leg | None:
    """The one leg the canvas ends with; None where it ends with a join."""
    if any(join.join_id is None and join.followers == 0 for join in work.joins):
        return None
    return next(leg for leg in work.legs if leg.is_last)


def _in_place_of(leg: Leg, work: Work, intent_id: str, on: lifecycle.Occasion) -> tuple[list[Leg], list[Join]]:
    """The canvas' legs and joins, its last one with the id and the place of the leg that asked for it."""
    if not work.legs:
        plan = {} if work.start_at is None else {"eta": work.start_at.isoformat()}
        only = replace(begin.new_leg(work, intent_id, on.now), status=LegStatus.PENDING, plan=plan)
        return [_last_of(leg, only)], []
    last = _last(work)
    assert last is not None
    root = (leg.signature.get("options") or {}).get("root_id") or leg.id

    def under(one: Leg) -> Leg:
        options = {**(one.signature.get("options") or {}), "root_id": root}
        return replace(
            one, intent_id=intent_id, created_at=on.now, position=leg.position, within=one.within or leg.within,
            node=f"{leg.node}/{one.node}" if leg.node else one.node, signature={**one.signature, "options": options},
        )  # fmt: skip

    legs = [under(one) for one in work.legs]
    legs = [_last_of(leg, one) if one.id == last.id else one for one in legs]
    joins = [
        replace(join, intent_id=intent_id, within=join.within or leg.within, node=f"{leg.node}/{join.node}")
        for join in work.joins
    ]
    return legs, joins


def _last_of(leg: Leg, last: Leg) -> Leg:
    """The last task of the replacement as this leg: with its id, callbacks, place, and what Celery is to do after it."""
    was = leg.signature.get("options") or {}
    options = {k: v for k, v in (last.signature.get("options") or {}).items() if k != "link_error"}
    kept = ("root_id", "parent_id", "group_id", "group_index", "chain", "chord", "link", "link_error", "reply_to")
    options |= {k: was[k] for k in kept if was.get(k) is not None}
    options["replaced_task_nesting"] = int(was.get("replaced_task_nesting") or 0) + 1
    plan = {k: v for k, v in last.plan.items() if k not in ("link", "link_error")}
    plan |= {k: leg.plan[k] for k in ("link", "link_error") if k in leg.plan}
    if "link" in last.plan:
        plan["link"] = [*last.plan["link"], *plan.get("link", ())]
    return replace(
        leg, task=last.task, signature={**last.signature, "options": {**options, "task_id": leg.id}},
        status=LegStatus.PENDING, run=leg.run + 1, attempts=0, max_attempts=last.max_attempts, worker=None, token="",
        due_at=None, resends=0, has_history=False, on_drift=last.on_drift, drift_accepted_run=0, started_at=None,
        after=last.after, turn="", plan=plan,
    )  # fmt: skip


def beside(
    rt: Runtime, intent: Intent, leg: Leg, work: Work, size: int, on: lifecycle.Occasion
) -> tuple[list[Change], str]:
    """More work for the join this leg is a member of, as its member number ``size``; and the id of what ends it."""
    if leg.join_id is None:
        raise BadInput(f"{leg.task} is no member of a group or chord; add_to_chord has nothing to add to")
    member: JsonDict = {"join_id": leg.join_id, "join_index": size, "within": leg.join_id}
    if not work.legs:
        plan = {} if work.start_at is None else {"eta": work.start_at.isoformat()}
        alone = replace(begin.new_leg(work, intent.id, on.now), status=LegStatus.PENDING, plan=plan)
        legs, joins = [alone], list[Join]()
    else:
        legs = [replace(one, intent_id=intent.id, created_at=on.now) for one in work.legs]
        joins = [replace(join, intent_id=intent.id) for join in work.joins]
    ends = [one.id for one in legs if one.is_last] + [j.id for j in joins if j.join_id is None and j.followers == 0]
    legs = [
        replace(
            one, node=f"{leg.node}/added[{size}]{one.node}", position=leg.position,
            **(member if one.id in ends else {"within": one.within or leg.join_id}),
        )
        for one in legs
    ]  # fmt: skip
    joins = [replace(join, **(member if join.id in ends else {})) for join in joins]
    turns = [begin.turn(rt, intent, one, None, leg.id, on) for one in legs if one.after is None]
    change = lifecycle.add_member(intent, leg.join_id, size, legs, joins, turns, on=on)
    return begin.with_children(change, turns), ends[0]
