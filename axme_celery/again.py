"""A pipeline once more: a new intent with the finished legs of an old one, which goes on from there.

Legs that are done stay done, with their results; of those that were under way
their recorded steps and answered waits come along; whatever a fork is to do anew,
and all that follows it, starts from nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from . import begin, lifecycle, onward
from .beats import announce, occasion
from .errors import BadInput, StaleChange
from .graph import ADDED, Join, JoinStatus
from .model import Checkpoint, DeadLetter, Intent, JsonDict, Leg, LegStatus, Wait, WaitStatus
from .ports import Runtime
from .recorded import Cut, Recorded, following
from .undone import added_by, as_before

#: What a leg's turn had reckoned with, and is over.
_OF_ONE_TURN = frozenset({"turned", "given", "countdown", "eta", "expires"})
#: Options of a signature that one life of a leg used up.
_OF_ONE_LIFE = frozenset({"retries", "expires", "parent_id"})


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
        found, cut = as_before(rt, found, cut)
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
        self._redone = following(self.found, self.cut.leg_id) if self.cut is not None else set[str]()
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
        added = added_by(self.rt, step)
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
        """What the legs under way have recorded, as far as it stands; of finished ones what they have added to their join."""
        checkpoints: list[Checkpoint] = []
        waits: list[Wait] = []
        steps_of: dict[str, list[Checkpoint]] = {}
        waits_of: dict[str, list[Wait]] = {}
        for step in self.found.checkpoints:
            steps_of.setdefault(step.leg_id, []).append(step)
        for wait in self.found.waits:
            waits_of.setdefault(wait.leg_id, []).append(wait)
        nodes = {leg.id for leg in self.found.legs if leg.plan.get("waits")}
        upto: int | None
        for leg_id in {*steps_of, *waits_of} - nodes:
            steps, asked = steps_of.get(leg_id, []), waits_of.get(leg_id, [])
            if leg_id in done:
                # Should a later fork do it anew, this is how what it has added is found and taken back.
                steps, asked, upto = [step for step in steps if step.name == ADDED], [], None
            elif self.cut is not None and leg_id == self.cut.leg_id:
                upto = self.cut.position
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


def _had_its_turn(leg: Leg) -> bool:
    return bool(leg.plan.get("turned")) or leg.started_at is not None
