"""A pipeline once more: a new intent with the finished legs of an old one, which goes on from there.

Legs that are done stay done, with their results; of those that were under way
their recorded steps and answered waits come along; whatever a fork is to do anew,
and all that follows it, starts from nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from . import begin, lifecycle, onward
from .beats import announce, occasion
from .errors import BadInput, NotFound, StaleChange
from .graph import ADDED, Join, JoinStatus
from .model import Checkpoint, DeadLetter, Intent, JsonDict, Leg, LegStatus, Wait, WaitStatus
from .model import Recorded as Kept
from .ports import Runtime

#: What a leg's turn had reckoned with, and is over.
_OF_ONE_TURN = frozenset({"turned", "given", "countdown", "eta", "expires"})
#: Options of a signature that one life of a leg used up.
_OF_ONE_LIFE = frozenset({"retries", "expires", "parent_id"})


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


def recorded(rt: Runtime, intent_id: str, legs: list[Leg]) -> Recorded:
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


def repeat(
    rt: Runtime,
    old: Intent,
    new: Intent,
    found: Recorded,
    cut: Cut | None,
    letters: Sequence[DeadLetter],
    *,
    by: str | None,
    reason: str | None,
) -> Intent:
    """Write the new intent and start what is ready of it. Raises BadInput when the letters were closed meanwhile."""
    on = occasion(rt)
    if cut is not None:
        found, cut = _as_before(rt, found, cut)
    copy = _Copy(rt, new.id, found, cut)
    first = [leg for leg in copy.legs if leg.status is LegStatus.PENDING and copy.is_ready(leg)]
    turns = [begin.turn(rt, new, leg, copy.value(leg), leg.after, on) for leg in first]
    change = lifecycle.submit_plan(new, copy.legs, copy.joins, turns, on=on)
    change = replace(
        lifecycle.told_why(change, by=by, reason=reason), checkpoints=copy.checkpoints,
        waits=(*change.waits, *((None, wait) for wait in copy.waits)),
        closes=tuple((letter.id, "REPLAYED", new.id, by, reason) for letter in letters),
    )  # fmt: skip
    try:
        changes = rt.ledger.commit(*begin.with_children(change, turns))
    except StaleChange:
        raise BadInput(
            f"the dead letter of intent {old.id} was replayed or discarded by someone else meanwhile"
        ) from None
    announce(rt, changes)
    onward.after(rt, changes)
    for join in copy.joins:
        if join.status is JoinStatus.OPEN and join.left == 0:
            onward.pass_join(rt, join.id)
    written = changes[0].intent
    assert written is not None
    return written


@dataclass
class _Copy:
    """The legs and joins of the new intent, with ids of their own."""

    rt: Runtime
    intent_id: str
    found: Recorded
    cut: Cut | None
    legs: list[Leg] = field(default_factory=list)
    joins: list[Join] = field(default_factory=list)
    checkpoints: tuple[Checkpoint, ...] = ()
    waits: tuple[Wait, ...] = ()

    def __post_init__(self) -> None:
        self._ids = {one.id: self.rt.new_id() for one in self.found.members}
        self._redone = _following(self.found, self.cut.leg_id) if self.cut is not None else set[str]()
        done = {leg.id for leg in self.found.legs if leg.status is LegStatus.DONE and leg.id not in self._redone}
        done |= {j.id for j in self.found.joins if j.status is JoinStatus.PASSED and j.id not in self._redone}
        arrived: dict[str, int] = {}
        for one in self.found.members:
            if one.id in done and one.join_id is not None:
                arrived[one.join_id] = arrived.get(one.join_id, 0) + 1
        for leg in self.found.legs:
            self.legs.append(self._leg(leg, leg.id in done))
        waiting_for = {leg.after for leg in self.found.legs if leg.id not in done}
        for join in self.found.joins:
            # Passed once more where some of what follows it is still to start.
            is_passed = join.id in done and join.id not in waiting_for
            left = max(join.size - arrived.get(join.id, 0), 0)
            self.joins.append(
                replace(
                    join, id=self._ids[join.id], intent_id=self.intent_id, left=left,
                    status=JoinStatus.PASSED if is_passed else JoinStatus.OPEN, result=join.result if is_passed else None,
                    join_id=self._new(join.join_id), within=self._new(join.within),
                )
            )  # fmt: skip
        self._ways = {self._ids.get(leg.after or "", ""): leg.turn for leg in self.found.legs if _had_its_turn(leg)}
        self._results = {leg.id: leg.result or "null" for leg in self.legs if leg.status is LegStatus.DONE}
        self._journal(done)

    def is_ready(self, leg: Leg) -> bool:
        """Whether its turn has come: what follows a join is started by that."""
        return leg.after is None or (leg.after in self._results and self._takes_this_way(leg))

    def value(self, leg: Leg) -> object:
        """What it takes before its arguments."""
        return self.rt.codec.decode(self._results[leg.after]) if leg.after is not None else None

    def _takes_this_way(self, leg: Leg) -> bool:
        # A wait that is done was left by one way only: that of the leg that had its turn.
        return leg.turn == self._ways.get(leg.after or "", "")

    def _new(self, id: str | None) -> str | None:
        return None if id is None else self._ids.get(id, id)

    def _leg(self, leg: Leg, done: bool) -> Leg:
        signature = {**leg.signature, "options": self._options(leg.signature.get("options") or {}, leg.id)}
        plan = leg.plan
        if plan.get("replaced"):
            plan = {**plan, "replaced": self._new(plan["replaced"]), "after": self._new(plan["after"])}
        if not done:
            if leg.plan.get("turned") and leg.plan.get("takes"):
                signature["args"] = list(signature.get("args") or ())[1:]
            if leg.plan.get("turned") or leg.plan.get("given"):
                plan = {k: v for k, v in leg.plan.items() if k not in _OF_ONE_TURN}
        copied = replace(
            leg, id=self._ids[leg.id], intent_id=self.intent_id, signature=signature, plan=plan,
            after=self._new(leg.after), join_id=self._new(leg.join_id), within=self._new(leg.within),
        )  # fmt: skip
        if done:
            return copied
        return replace(
            copied, status=LegStatus.PENDING, run=1, attempts=0, worker=None, token="", due_at=None, resends=0,
            has_history=False, drift_accepted_run=0, parked=None, result=None, error=None, started_at=None, ended_at=None,
        )  # fmt: skip

    def _value(self, step: Checkpoint) -> str:
        added = _added(self.rt, step)
        if added not in self._ids:
            return step.value
        return self.rt.codec.encode(
            self._ids[added], what=step.name, limit_bytes=1000, setting="axme_result_bytes"
        )  # fmt: skip

    def _options(self, options: JsonDict, leg_id: str) -> JsonDict:
        kept = {k: v for k, v in options.items() if k not in _OF_ONE_LIFE}
        for name in ("root_id", "group_id"):
            if kept.get(name) in self._ids:
                kept[name] = self._ids[kept[name]]
        return {**kept, "task_id": self._ids[leg_id]}

    def _journal(self, done: set[str]) -> None:
        """What the legs under way have recorded, as far as it stands."""
        checkpoints: list[Checkpoint] = []
        waits: list[Wait] = []
        steps_of: dict[str, list[Checkpoint]] = {}
        waits_of: dict[str, list[Wait]] = {}
        for step in self.found.checkpoints:
            steps_of.setdefault(step.leg_id, []).append(step)
        for wait in self.found.waits:
            waits_of.setdefault(wait.leg_id, []).append(wait)
        nodes = {leg.id for leg in self.found.legs if leg.plan.get("waits")}
        for leg_id in {*steps_of, *waits_of} - done - nodes:
            steps, asked = steps_of.get(leg_id, []), waits_of.get(leg_id, [])
            if self.cut is not None and leg_id == self.cut.leg_id:
                upto: int | None = self.cut.position
            else:
                upto = 0 if leg_id in self._redone else lifecycle.replay_from(steps, asked)
            # Run 0: before every run of this leg.
            checkpoints += [
                replace(step, leg_id=self._ids[leg_id], run=0, value=self._value(step))
                for step in steps
                if upto is None or step.position < upto
            ]
            waits += [
                replace(
                    wait, id=self.rt.new_id(), intent_id=self.intent_id, leg_id=self._ids[leg_id], run=0, tool=None,
                    job_id=None, due_at=None,
                )
                for wait in asked
                if wait.status is not WaitStatus.OPEN and (upto is None or wait.position < upto)
            ]  # fmt: skip
        self.checkpoints, self.waits = tuple(checkpoints), tuple(waits)
        kept = {step.leg_id for step in checkpoints} | {wait.leg_id for wait in waits}
        self.legs = [replace(leg, has_history=True) if leg.id in kept else leg for leg in self.legs]


# -- what legs have put in their place, or beside them ----------------------------------------


def _following(found: Recorded, leg_id: str) -> set[str]:
    """This leg and everything that comes after it."""
    following: dict[str, list[str]] = {}
    for one in found.members:
        before = [one.after, one.plan.get("after")] if isinstance(one, Leg) else []
        for id in before:
            if id is not None:
                following.setdefault(id, []).append(one.id)
        after = [one.join_id, one.plan.get("replaced")] if isinstance(one, Leg) else [one.join_id]
        following.setdefault(one.id, []).extend(id for id in after if id is not None)
    return _reach([leg_id], following)


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
    return _reach(ids, leading)


def _reach(start: Collection[str], onward: Mapping[str, Sequence[str]]) -> set[str]:
    reached, todo = set(start), list(start)
    while todo:
        for id in onward.get(todo.pop(), ()):
            if id not in reached:
                reached.add(id)
                todo.append(id)
    return reached


def _as_before(rt: Runtime, found: Recorded, cut: Cut) -> tuple[Recorded, Cut]:
    """What was recorded, without what the legs to be done anew had put in their place or beside them: they do so again."""
    recorded, begins, gone, redone = found.checkpoints, cut, set[str](), set[str]()
    while True:
        reached = _following(found, cut.leg_id)
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
            for id in [_added(rt, step)]
            if id is not None
        }
        lost = _leading_to(found, added, wholly=True) - gone
        if not lost:
            return _without(found, gone), cut
        gone |= lost
        redone |= lost


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


def _added(rt: Runtime, step: Checkpoint) -> str | None:
    """The id of what ends the work that this leg has added to its join, where that is what the step records."""
    return str(rt.codec.decode(step.value)) if step.name == ADDED and step.recorded is Kept.DONE else None


def _had_its_turn(leg: Leg) -> bool:
    return bool(leg.plan.get("turned")) or leg.started_at is not None
