"""Draw docs/lifecycle.md from the tables in ``axme_celery/lifecycle.py``. ``python -m tests.docs.draw_lifecycle``"""

from __future__ import annotations

from axme_celery.lifecycle import MOVES, NOTES
from axme_celery.model import Status

from .generated import Parts, write

WRITER = "tests.docs.draw_lifecycle"
PAGE = "docs/lifecycle.md"

#: In the words of a person on call; a new event must be given some.
MEANING = {
    "intent.created": "the intent was written to the ledger",
    "intent.submitted": "its leg was put in the outbox, to be published",
    "intent.delivered": "an agent outside Celery was handed it, under a lease",
    "intent.acknowledged": "an agent outside Celery says that it has it",
    "intent.in_progress": "a worker runs its leg; after a wait: the wait has closed and the leg is queued to go on",
    "intent.waiting": "it rests on a wait; no worker has it",
    "intent.completed": "its task returned; the result is in the ledger",
    "intent.failed": "its task raised, or a limit was reached; a dead letter says why",
    "intent.canceled": "somebody canceled it",
    "intent.timed_out": "its deadline passed; a dead letter says so",
    "intent.human_task_assigned": "who is asked, and for what kind of answer",
    "intent.voted": "one person of a quorum agreed; others are still needed",
    "intent.reminder": "the assignees were reminded",
    "intent.escalated": "others were asked as well",
    "intent.delegated": "somebody who was to answer left it to another",
    "intent.reassigned": "an operator put other people in the place of those who were asked",
    "intent.extended": "somebody gave a wait, or the intent itself, more time",
    "intent.timeout": "a wait's timeout passed; what follows says whether the intent went on",
    "intent.leg_replaced": "a leg put other work in its place (`self.replace`)",
    "intent.leg_added": "a leg added another to its group (`self.add_to_chord`)",
    "intent.leg_called": "a leg's task called another task, which is a leg of the same intent",
    "intent.called_ended": "such a leg has ended; with `error` when it failed, which is a dead letter of its own",
    "intent.work_done": "all but what was called is done; the intent ends when that has ended",
    "intent.work_failed": "the work has failed; the intent ends when what it called has ended",
    "intent.wait_opened": "a wait opened while other legs of the pipeline go on",
    "intent.wait_closed": "a wait closed while other legs go on, or while its own was parked; found when that goes on",
    "intent.leg_lost": "a run died with its worker; the leg is queued again",
    "intent.leg_retried": "the task asked Celery for a retry; the leg is queued again",
    "intent.handed_back": "the worker was stopping and gave the leg back; not counted as an attempt",
    "intent.handed_out": "an agent was handed it again, or after a person's yes",
    "intent.transfer": "another agent has it now",
    "intent.message_sent": "somebody wrote a message in its thread; the message itself is kept beside the log",
    "intent.controls_changed": "its controls were changed, as another policy generation",
    "intent.policy_changed": "its grants or limits were changed, as another policy generation",
    "intent.delivery_failed": "agents were handed it as often as allowed and none finished it; a dead letter says so",
    "intent.parked": "the leg cannot go on with the code as it is; an operator must decide",
    "intent.unparked": "an operator let it go on",
}


def moves() -> str:
    """The diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> CREATED: intent.created"]
    ends = {"intent.failed", "intent.canceled", "intent.timed_out", "intent.delivery_failed"}
    for status, leads in MOVES.items():
        for event, to in leads.items():
            if event not in ends:
                lines.append(f"    {status} --> {to}: {event}")
    open_ones = [status for status, leads in MOVES.items() if leads]
    assert all(ends <= set(MOVES[status]) for status in open_ones), "the drawing says that every open status may end"
    lines += [f'    state "{", ".join(open_ones)}" as open']
    for event in ("intent.failed", "intent.canceled", "intent.timed_out", "intent.delivery_failed"):
        lines.append(f"    open --> {MOVES[open_ones[0]][event]}: {event}")
    return "\n".join([*lines, "```"])


def table() -> str:
    """status by event."""
    lines = ["| from | event | to |", "|---|---|---|", "| | `intent.created` | CREATED |"]
    for status, leads in MOVES.items():
        lines += [f"| {status} | `{event}` | {to} |" for event, to in leads.items()]
        if not leads:
            lines.append(f"| {status} | none: this is an end | |")
    return "\n".join(lines)


def events() -> str:
    """Every event and what it tells."""
    moving = dict.fromkeys(["intent.created", *(event for leads in MOVES.values() for event in leads)])
    known = {*moving, *NOTES}
    assert set(MEANING) == known, f"give these a meaning: {known ^ set(MEANING)}"
    lines = ["| event | moves the status | what it tells |", "|---|---|---|"]
    lines += [f"| `{event}` | {'yes' if event in moving else 'no'} | {MEANING[event]} |" for event in MEANING]
    return "\n".join(lines)


PARTS: Parts = {"moves": moves, "table": table, "events": events}

assert set(MOVES) == set(Status)

if __name__ == "__main__":
    write(WRITER, {PAGE: PARTS})
