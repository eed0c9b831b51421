"""What the ledger has of a pipeline, and the place in it that somebody means."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .errors import BadInput, NotFound
from .graph import Join
from .model import Checkpoint, Intent, Leg, Wait
from .ports import Runtime


@dataclass(frozen=True)
class Recorded:
    """All that the ledger has of a pipeline."""

    legs: list[Leg]
    joins: list[Join]
    checkpoints: list[Checkpoint]
    waits: list[Wait]

    @property
    def members(self) -> list[Leg | Join]:
        """Legs and joins, all of which may come together in a join."""
        return [*self.legs, *self.joins]


@dataclass(frozen=True)
class Cut:
    """Where a fork begins: this leg from this place in it on, and everything after it."""

    leg_id: str
    #: Steps and waits before this position are kept; 0 is from its beginning.
    position: int


def is_pipeline(legs: Sequence[Leg]) -> bool:
    """Whether these legs were compiled from a canvas."""
    return len(legs) != 1 or bool(legs[0].node or legs[0].plan)


def recorded_of(rt: Runtime, intent_id: str, legs: list[Leg]) -> Recorded:
    """All that the ledger has of this pipeline, whose legs these are."""
    ids = {leg.id for leg in legs}
    # Not what was recorded of legs that these have called.
    checkpoints = [one for one in rt.ledger.checkpoints(intent_id) if one.leg_id in ids]
    waits = [one for one in rt.ledger.waits(intent_id) if one.leg_id in ids]
    return Recorded(legs, rt.ledger.joins(intent_id), checkpoints, waits)


def cut_before(old: Intent, found: Recorded, before: str) -> Cut:
    """The place that is meant: a leg by its id, its place in the canvas, or its task ("task#2" is the second of it), or
    a step or wait of the one leg that has one of this name; "place/step" names both.

    Raises NotFound, BadInput for a step that several legs have.
    """
    place, _, inner = before.rpartition("/")
    if place:
        leg = _leg_named(found.legs, place)
        if leg is not None:
            positions = _positions(found, inner, leg.id)
            if positions:
                return Cut(leg.id, positions[0][1])
    leg = _leg_named(found.legs, before)
    if leg is not None:
        return Cut(leg.id, 0)
    positions = _positions(found, before, None)
    if len({leg_id for leg_id, _ in positions}) > 1:
        nodes = {leg.id: leg.node for leg in found.legs}
        raise BadInput(
            f"{before!r} was recorded by several legs of intent {old.id}; name the place as well: "
            + ", ".join(f"{nodes[leg_id]}/{before}" for leg_id, _ in positions[:20])
        )
    if positions:
        return Cut(*positions[0])
    names = ", ".join(f"{leg.node} ({leg.task})" for leg in found.legs[:50])
    raise NotFound("leg, step or wait", f"{before!r} of intent {old.id}", hint=f"its legs: {names}")


def _leg_named(legs: Sequence[Leg], name: str) -> Leg | None:
    task, _, call = name.rpartition("#")
    of_task = [leg for leg in legs if leg.task == (task if call.isdecimal() and task else name)]
    nth = int(call) if call.isdecimal() and task else 1
    exact = next((leg for leg in legs if name in (leg.id, leg.node)), None)
    return exact or (of_task[nth - 1] if 0 < nth <= len(of_task) else None)


def _positions(found: Recorded, name: str, leg_id: str | None) -> list[tuple[str, int]]:
    """(leg, position) of what was recorded under this name ("name", or "name#2" for its second call)."""
    step, _, call = name.rpartition("#")
    keys = [(name, 1), *([(step, int(call))] if call.isdecimal() else [])]
    entries: list[Checkpoint | Wait] = [*found.checkpoints, *found.waits]
    places = {leg.id: leg.position for leg in found.legs}
    hits = [
        (entry.leg_id, entry.position)
        for key in keys
        for entry in entries
        if (entry.name, entry.nth) == key and leg_id in (None, entry.leg_id)
    ]
    return sorted(hits, key=lambda hit: places[hit[0]])


def following(found: Recorded, leg_id: str) -> set[str]:
    """This leg and everything that comes after it."""
    following: dict[str, list[str]] = {}
    for one in found.members:
        before = [one.after, one.plan.get("after")] if isinstance(one, Leg) else []
        for id in before:
            if id is not None:
                following.setdefault(id, []).append(one.id)
        after = [one.join_id, one.plan.get("replaced")] if isinstance(one, Leg) else [one.join_id]
        following.setdefault(one.id, []).extend(id for id in after if id is not None)
    return reach([leg_id], following)


def reach(start: Collection[str], onward: Mapping[str, Sequence[str]]) -> set[str]:
    """These and all that they lead to, step by step."""
    reached, todo = set(start), list(start)
    while todo:
        for id in onward.get(todo.pop(), ()):
            if id not in reached:
                reached.add(id)
                todo.append(id)
    return reached
