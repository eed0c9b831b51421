"""One process's life in a trial: client, worker and sweep in turn, until the intent has ended and all is sent.

A process that takes over from one that was killed knows only what is on record: the history file tells it what its
clients were told, the ledger and the broker the rest.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from axme_celery.errors import LedgerUnavailable
from axme_celery.ledger import tables
from axme_celery.model import Intent, Wait, WaitKind, WaitStatus
from axme_celery.sweep import sweep

from . import witness
from .client import Client
from .reference import TOOL
from .worker import Worker
from .world import World

#: The name of the work, and its submit key.
NAME = "one"
#: An intent that takes longer than this, in its own time, is stuck.
PATIENCE_SECONDS = 20_000
#: While nothing happens time passes in steps that double.
SHORTEST_STEP_SECONDS, LONGEST_STEP_SECONDS = 0.5, 64
#: The calls whose end the client of a reference intent is to be told.
_ALL_TOLD = {
    ("submit", None), ("complete_tool", f"{NAME}:early"), ("complete_tool", f"{NAME}:late"), ("answer", "ana"),
    ("answer", "cem"),
}  # fmt: skip
#: The same of a pipeline's.
_PIPELINE_TOLD = {("submit", None), ("answer", "ana"), ("answer", "cem")}
_IN_OUTBOX = select(func.count()).select_from(tables.outbox)


class Stuck(Exception):
    """Nothing moves any more, and the intent has not ended."""


@dataclass(frozen=True)
class Variant:
    """What may be so or otherwise in a trial."""

    #: A message leaves the broker when its run has ended; else when it starts, as Celery does unless told otherwise.
    acks_late: bool = False
    #: Every message is delivered twice.
    twice: bool = False
    #: After an answer with unknown outcome another person gives the other answer; else the same one gives it again.
    rival: bool = False
    #: The relay sends at once; else when the process has nothing else to do.
    eager: bool = False

    def __str__(self) -> str:
        return " ".join(name for name, on in vars(self).items() if on)


class Life:
    """``live()`` does all that is left to do. What the sweeps did is added up in ``swept``."""

    def __init__(self, world: World, kind: str, variant: Variant) -> None:
        self._world, self._kind, self._variant = world, kind, variant
        world.axme.eager_relay = variant.eager
        world.app.conf.task_acks_late = variant.acks_late
        for task in world.app.tasks.values():
            task.acks_late = variant.acks_late
        self._axme = world.axme
        self._client = Client(world.axme)
        self._intent_id: str | None = None
        self._begun = False
        self._worker = Worker(world)
        self.swept: dict[str, int] = {}

    def live(self) -> None:
        """Until the intent has ended and nothing is left to send. Raises Stuck."""
        step = SHORTEST_STEP_SECONDS
        while True:
            try:
                if self._client_begins() or self._worker_acts() or self._relay_acts() or self._client_answers():
                    step = SHORTEST_STEP_SECONDS
                    continue
                if self._is_over():
                    return
            except (LedgerUnavailable, DBAPIError):
                # What this driver itself wanted to know. It asks again later.
                step = max(1.0, step)
            if self._world.clock.passed_seconds > PATIENCE_SECONDS:
                raise Stuck(self._state())
            self._world.clock.advance(step)
            # The first moment is the relay's: it keeps what was sent for a while, to remove it in one go.
            if step > SHORTEST_STEP_SECONDS:
                # A sweep that finds the ledger away fails; the next tick has another.
                with contextlib.suppress(LedgerUnavailable):
                    self._sweep(slow=None)
            step = min(2 * step, LONGEST_STEP_SECONDS)

    def tidy(self) -> None:
        """Long after: what is due to go by itself has gone."""
        self._world.clock.advance(1000)
        self._sweep(slow=True)
        self._world.clock.advance(1000)
        self._sweep(slow=True)

    def _is_over(self) -> bool:
        intent = self._intent()
        if intent is None or not intent.status.is_final or self._world.messages:
            return False
        with self._ledger.engines.connect() as connection:
            return connection.scalar(_IN_OUTBOX) == 0

    @property
    def _ledger(self) -> Any:
        return self._axme.runtime.ledger

    def _intent(self) -> Intent | None:
        if self._intent_id is None:
            found = self._ledger.intent_by_key(NAME)
            self._intent_id = None if found is None else found.id
            return found  # type: ignore[no-any-return]
        return self._ledger.intent(self._intent_id)  # type: ignore[no-any-return]

    # -- the client ---------------------------------------------------------------

    def _client_begins(self) -> bool:
        """Submit, and report a tool's job before anybody waits for it."""
        if self._begun:
            return False
        told = self._told()
        if ("submit", None) not in told:
            self._client.submit(self._world.tasks.work(self._kind, NAME), key=NAME)
            return True
        if self._kind == "reference" and ("complete_tool", f"{NAME}:early") not in told:
            self._client.complete_tool(TOOL, f"{NAME}:early", {"rows": 1})
            return True
        self._begun = True
        return False

    def _told(self) -> set[tuple[str, str | None]]:
        """Which calls clients were told the end of: ("answer", "ana"), ("complete_tool", "one:late")."""
        lines = witness.read(self._world.history)
        return {(x["op"], x.get("job") or x.get("by")) for x in lines if "op" in x and x["ev"] in ("ok", "fail")}

    def _client_answers(self) -> bool:
        """Answer what is open by now, and once it is closed, answer too late."""
        told = self._told()
        if self._kind not in ("reference", "pipeline") or told >= (
            _ALL_TOLD if self._kind == "reference" else _PIPELINE_TOLD
        ):
            return False
        intent = self._intent()
        waits = [] if intent is None else self._ledger.waits(intent.id)
        for wait in waits:
            if wait.kind is WaitKind.HUMAN:
                for outcome, by in self._choices(wait):
                    if ("answer", by) not in told:
                        self._client.answer(wait.id, outcome, by)
                        return True
            elif wait.job_id == f"{NAME}:late" and ("complete_tool", wait.job_id) not in told:
                self._client.complete_tool(TOOL, wait.job_id, {"rows": 2})
                return True
        return False

    def _choices(self, wait: Wait) -> list[tuple[str, str]]:
        """Who answers what now. Once closed, whoever was left in doubt asks again, and a third person is too late."""
        if wait.status is not WaitStatus.OPEN:
            return [("approved", "ana"), ("rejected", "cem")]
        doubt = any(line.get("op") == "answer" for line in witness.read(self._world.history))
        return [("rejected", "ben")] if doubt and self._variant.rival else [("approved", "ana")]

    # -- the worker ----------------------------------------------------------------

    def _worker_acts(self) -> bool:
        path = self._worker.next()
        if path is None:
            return False
        text = path.read_text()
        if self._variant.twice:
            self._worker.run(path, text=text, keep=True)
        self._worker.run(path, text=text)
        return True

    def _relay_acts(self) -> bool:
        return bool(self._axme.runtime.relay.work())

    def _sweep(self, slow: bool | None) -> None:
        for broom, count in sweep(self._axme.runtime, self._axme.senders, "chaos", slow=slow).items():
            self.swept[broom] = self.swept.get(broom, 0) + count

    def _state(self) -> str:
        intent = self._intent()
        if intent is None:
            return "there is no intent"
        legs = self._ledger.legs(intent.id)
        leg = next((leg for leg in legs if not leg.status.is_final), legs[-1])
        waits = [f"{w.name}#{w.nth} {w.status}" for w in self._ledger.waits(intent.id)]
        return (
            f"after {self._world.clock.passed_seconds:g} s the intent is {intent.status}, its leg {leg.status} at run "
            f"{leg.run}, attempt {leg.attempts}; waits: {', '.join(waits) or 'none'}; "
            f"{len(self._world.messages)} messages; {', '.join(self._world.leftovers()) or 'nothing open'}"
        )
