"""What a fork undoes before it begins: what the legs it does anew had put in their place, or beside them.

Left as it was, they would put it there a second time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from .graph import ADDED, Join
from .model import Checkpoint, Leg
from .model import Recorded as Kept
from .ports import Runtime
from .recorded import Cut, Recorded, following, reach


def as_before(rt: Runtime, found: Recorded, cut: Cut) -> tuple[Recorded, Cut]:
    """What was recorded, without what the legs to be done anew had put in their place or beside them: they do so again."""
    recorded, begins, gone, redone = found.checkpoints, cut, set[str](), set[str]()
    while True:
        reached = following(found, cut.leg_id)
        replaced = {leg.plan["replaced"] for leg in found.legs if leg.id in reached and leg.plan.get("replaced")}
        if not replaced:
            break
        # What it became last is undone first: what that had replaced is then what leads to it.
        was = max((leg for leg in found.legs if leg.plan.get("replaced") in replaced), key=_nesting)
        place = was.plan["replaced"]
        gone |= _leading_to(found, [place], wholly=False) - {place}
        redone.add(was.id)
        found, cut = _restored(found, was), Cut(place, cut.position) if cut.leg_id == was.id else cut
        found = replace(found, legs=[leg for leg in found.legs if leg.id not in gone])
    redone |= reached | gone
    while True:
        added = {
            id
            for step in recorded
            if step.leg_id in redone and not (step.leg_id == begins.leg_id and step.position < begins.position)
            for id in [added_by(rt, step)]
            if id is not None
        }
        lost = _leading_to(found, added, wholly=True) - gone
        if not lost:
            return _without(found, gone), cut
        gone |= lost
        redone |= lost


def _leading_to(found: Recorded, ids: Collection[str], *, wholly: bool) -> set[str]:
    """These legs and joins and everything that comes to them. ``wholly``: what they were before they were replaced, too."""
    leading: dict[str, list[str]] = {}
    for one in found.members:
        if isinstance(one, Leg) and one.after is not None:
            leading.setdefault(one.id, []).append(one.after)
        if isinstance(one, Leg) and one.plan.get("replaced") and (wholly or one.plan["replaced"] not in ids):
            leading.setdefault(one.plan["replaced"], []).append(one.id)
            leading.setdefault(one.id, []).extend([one.plan["after"]] if one.plan["after"] else [])
        if one.join_id is not None:
            leading.setdefault(one.join_id, []).append(one.id)
    return reach(ids, leading)


def _nesting(replaced: Leg) -> int:
    """How often what had its place before had been replaced."""
    return int((replaced.signature.get("options") or {}).get("replaced_task_nesting") or 0)


def _restored(found: Recorded, was: Leg) -> Recorded:
    """What was recorded, with a leg that replaced itself as it was, and what it had recorded until then."""
    place, asked = was.plan["replaced"], was.plan

    def undone(leg: Leg) -> Leg:
        if leg.id != place:
            return leg
        return replace(
            leg, task=was.task, signature=was.signature, max_attempts=was.max_attempts, on_drift=was.on_drift,
            after=asked["after"], turn=asked["turn"], plan=asked["plan"],
        )  # fmt: skip

    return Recorded(
        [undone(leg) for leg in found.legs if leg.id != was.id],
        found.joins,
        [replace(s, leg_id=place) if s.leg_id == was.id else s for s in found.checkpoints if s.leg_id != place],
        [replace(w, leg_id=place) if w.leg_id == was.id else w for w in found.waits if w.leg_id != place],
    )


def _without(found: Recorded, gone: set[str]) -> Recorded:
    """What was recorded, without these legs and joins; the joins they were members of count the others anew."""
    kept = [one for one in found.members if one.id not in gone]
    members: dict[str, list[Leg | Join]] = {}
    for one in sorted(kept, key=lambda one: one.join_index):
        if one.join_id is not None:
            members.setdefault(one.join_id, []).append(one)
    shrunk = {one.join_id for one in found.members if one.id in gone and one.join_id not in (None, *gone)}
    places = {one.id: index for join_id in shrunk for index, one in enumerate(members.get(join_id or "", ()))}
    sizes = {join_id: len(members.get(join_id or "", ())) for join_id in shrunk}
    return Recorded(
        [replace(leg, join_index=places.get(leg.id, leg.join_index)) for leg in found.legs if leg.id not in gone],
        [
            replace(join, join_index=places.get(join.id, join.join_index), size=sizes.get(join.id, join.size))
            for join in found.joins
            if join.id not in gone
        ],
        [step for step in found.checkpoints if step.leg_id not in gone],
        [wait for wait in found.waits if wait.leg_id not in gone],
    )


def added_by(rt: Runtime, step: Checkpoint) -> str | None:
    """The id of what ends the work that this leg has added to its join, where that is what the step records."""
    return str(rt.codec.decode(step.value)) if step.name == ADDED and step.recorded is Kept.DONE else None
