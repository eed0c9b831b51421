"""The rules: what must hold of a history, whatever was killed. Each returns what it found broken.

They read the lines of the witnesses and clients (``witness.py``) and the ledger's facts (``facts.py``), and nothing
else: not the code that made them. What a line says is believed; where the lines and the ledger differ, something broke.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from axme_celery.lifecycle import MOVES, NOTES
from axme_celery.model import Checkpoint, Recorded, Status, Wait, WaitKind, WaitStatus

from .facts import History, IntentFacts
from .witness import Line, digest


class Rule(StrEnum):
    """What is promised. A finding names the one that broke."""

    LOST = "every accepted intent ends"
    END = "an intent ends as it was made to end"
    REPEATED = "a recorded step does not run again"
    TWICE = "a run runs once"
    EXTRA = "a fault costs at most one execution of one step"
    CHANGED = "a recorded result stays the same"
    STALE = "a replaced run records nothing"
    OUTCOME = "a wait has one outcome: that of the one client who was told ok"
    VOICES = "everybody has one voice, a quorum closes once, and who gave an answer away gave none"
    ANSWER_LOST = "a kept report reaches its wait"
    TOO_EARLY = "no timer is early"
    HISTORY = "events count from 1 without gaps and move by the table"
    DEAD_LETTER = "a dead letter is filed when, and only when, the attempts are used up"
    AUDIT = "the audit chain holds"
    TRANSACTION = "a transaction step's own SQL is committed once, with its record"
    AT_MOST_ONCE = "an at-most-once step starts at most once"
    RESULT = "the result is what the steps and waits gave"
    LEFTOVER = "nothing is left behind"
    LATE = "what was not hit goes on without waiting for the last resort"
    VACUOUS = "the run reached the states it meant to"


@dataclass(frozen=True)
class Finding:
    """A broken promise."""

    rule: Rule
    #: The intent's id; "" when it is about all of them.
    intent: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule.name} ({self.rule.value}): {self.what}" + (f" [{self.intent}]" if self.intent else "")


StepKey = tuple[str, int]


class _Told:
    """The witnesses' lines of one intent, by kind."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = list(lines)
        self.bodies = [line for line in self.lines if line["ev"] == "B"]
        self.starts: dict[StepKey, list[Line]] = defaultdict(list)
        self.given: dict[StepKey, list[Line]] = defaultdict(list)
        self.waited: dict[StepKey, list[Line]] = defaultdict(list)
        into = {"S": self.starts, "N": self.given, "X": self.given, "W-": self.waited}
        for line in self.lines:
            if line["ev"] in into:
                into[line["ev"]][line["step"], line["nth"]].append(line)


def check(history: History) -> list[Finding]:
    """Everything that is broken; empty when all promises were kept."""
    by_intent: dict[str, list[Line]] = defaultdict(list)
    stored: dict[str, list[str]] = defaultdict(list)
    for line in history.lines:
        if line["ev"] == "R":
            stored[line["leg"]].append(line["state"])
        elif "op" not in line:
            by_intent[line["intent"]].append(line)
    calls = list(_calls(history.lines))
    findings = [*_lost(history, calls), *_extra(history, by_intent), *_unknown(history, by_intent)]
    findings += [Finding(Rule.LEFTOVER, "", left) for left in history.leftovers]
    for intent_id, facts in history.intents.items():
        told = _Told(by_intent[intent_id])
        for rule in _OF_ONE_INTENT:
            findings += [Finding(name, intent_id, what) for name, what in rule(facts, told, calls)]
        findings += [Finding(Rule.RESULT, intent_id, what) for what in _shown(facts, stored[facts.leg.id])]
    return findings


def coverage(history: History) -> Counter[str]:
    """How often each state, move and kind of line was reached: "SUBMITTED>IN_PROGRESS", "intent.waiting", "S"."""
    reached: Counter[str] = Counter(line["ev"] for line in history.lines)
    for facts in history.intents.values():
        for before, after in zip(facts.events, facts.events[1:], strict=False):
            reached[f"{before.status}>{after.status}"] += 1
        reached.update(event.type for event in facts.events)
        reached.update(f"{wait.kind} {wait.status}" for wait in facts.waits)
    return reached


def vacuous(reached: Mapping[str, int], minimums: Mapping[str, int]) -> list[Finding]:
    """What was reached less often than it was meant to be: such a run shows nothing."""
    return [
        Finding(Rule.VACUOUS, "", f"{what}: {reached.get(what, 0)} times, at least {least} were meant")
        for what, least in minimums.items()
        if reached.get(what, 0) < least
    ]


# -- rules about all intents -------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """A client's call and how it ended: ok, fail or info (unknown, also when the client died)."""

    op: str
    asked: Line
    end: str
    told: Line


def _calls(lines: Iterable[Line]) -> Iterator[_Call]:
    invoked: dict[str, Line] = {}
    ended: dict[str, Line] = {}
    for line in lines:
        if "op" in line:
            (invoked if line["ev"] == "invoke" else ended)[line["id"]] = line
    for id, line in invoked.items():
        end = ended.get(id)
        yield _Call(line["op"], line, "info" if end is None else end["ev"], end or {})


def _lost(history: History, calls: list[_Call]) -> Iterator[Finding]:
    for call in calls:
        if call.op == "submit" and call.end == "ok" and call.told["intent"] not in history.intents:
            yield Finding(
                Rule.LOST, call.told["intent"], f"submit {call.asked['key']} was told ok, and it is not there"
            )
    for intent_id, facts in history.intents.items():
        if not facts.intent.status.is_final:
            leg = facts.leg
            state = f"{facts.intent.status}, its leg {leg.status} at run {leg.run}, attempt {leg.attempts}"
            yield Finding(Rule.LOST, intent_id, f"has not ended: {state}")


def _unknown(history: History, by_intent: Mapping[str, list[Line]]) -> Iterator[Finding]:
    for intent_id in by_intent.keys() - history.intents.keys():
        yield Finding(Rule.LOST, intent_id, "a body of it ran, and it is not in the ledger")


def _extra(history: History, by_intent: Mapping[str, list[Line]]) -> Iterator[Finding]:
    extra = extra_executions(line for lines in by_intent.values() for line in lines)
    if extra > history.faults:
        yield Finding(Rule.EXTRA, "", f"{extra} executions beyond the first, from {history.faults} faults")


def extra_executions(lines: Iterable[Line]) -> int:
    """How many more runs than one the steps were started in, all together."""
    runs: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    for line in lines:
        if line["ev"] == "S":
            runs[line["intent"], line["step"], line["nth"]].add(line["run"])
    return sum(len(r) - 1 for r in runs.values())


# -- rules about one intent ----------------------------------------------------------

Found = Iterator[tuple[Rule, str]]


def _ends(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    intent = facts.intent
    match intent.status:
        case Status.CANCELED:
            by = [c for c in calls if c.op == "cancel" and c.asked["intent"] == intent.id and c.end != "fail"]
            if not by:
                yield Rule.END, "CANCELED, and nobody canceled it"
        case Status.TIMED_OUT:
            if intent.deadline_at is None or intent.ended_at is None or intent.ended_at < intent.deadline_at:
                yield Rule.END, f"TIMED_OUT at {intent.ended_at}, its deadline is {intent.deadline_at}"
        case Status.FAILED if (intent.error or {}).get("code") != "worker_lost":
            yield Rule.END, f"FAILED: {intent.error}"
    for call in calls:
        was_told = call.op == "cancel" and call.end == "ok" and call.asked["intent"] == intent.id
        if was_told and intent.status is not Status.CANCELED:
            yield Rule.END, f"{intent.status}, and {call.asked['by']} was told that it is canceled"


def _repeated(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    records = _records(facts)
    for key, starts in told.starts.items():
        record = records.get(key)
        for start in starts:
            # Whoever records at run r had its run claimed last: a later run began by reading that record.
            if record is not None and record.recorded is not Recorded.STARTED and start["run"] > record.run:
                yield (
                    Rule.REPEATED,
                    f"{_name(key)} was recorded by run {record.run} and started again by {start['run']}",
                )
        tries = Counter((s["run"], s["attempt"]) for s in starts)
        for (run, attempt), count in tries.items():
            if count > 1:
                yield Rule.TWICE, f"try {attempt} of {_name(key)} in run {run} started {count} times"
    seen: dict[StepKey, int] = {}
    for line in told.lines:
        key = (line.get("step", ""), line.get("nth", 0))
        if line["ev"] == "N":
            seen[key] = min(line["run"], seen.get(key, line["run"]))
        elif line["ev"] == "S" and key in seen and line["run"] >= seen[key]:
            yield Rule.REPEATED, f"{_name(key)} had been given to run {seen[key]} and was started by run {line['run']}"
    for run, count in Counter(line["run"] for line in told.bodies).items():
        if count > 1:
            yield Rule.TWICE, f"the body started {count} times in run {run}"


def _changed(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    records = _records(facts)
    for key, lines in told.given.items():
        values = {line["value"] for line in lines}
        if len(values) > 1:
            yield Rule.CHANGED, f"{_name(key)} gave {len(values)} different values to its runs"
        record = records.get(key)
        for line in lines:
            if line["ev"] == "X":
                continue  # recorded only when the body goes on
            if record is None or record.recorded is not Recorded.DONE:
                yield Rule.STALE, f"{_name(key)} was given to run {line['run']} and is not recorded"
            elif record.run > line["run"]:
                yield Rule.STALE, f"run {line['run']} took {_name(key)} for recorded, which run {record.run} recorded"
            elif digest(json.loads(record.value)) != line["value"]:
                yield Rule.CHANGED, f"{_name(key)} is recorded with another value than run {line['run']} was given"


def _outcomes(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    waits = {(w.name, w.nth): w for w in facts.waits}
    for key, lines in told.waited.items():
        if len({line["value"] for line in lines}) > 1:
            yield Rule.OUTCOME, f"{_name(key)} gave different outcomes to its runs"
        wait = waits.get(key)
        if wait is None or wait.status is WaitStatus.OPEN:
            yield Rule.OUTCOME, f"{_name(key)} gave an outcome and is {'open' if wait else 'not there'}"
            continue
        for line in lines:
            if line["value"] != digest(_given_by(wait, facts)):
                yield Rule.OUTCOME, f"{_name(key)} gave another outcome to run {line['run']} than the ledger has"
    for wait in facts.waits:
        if wait.kind is not WaitKind.HUMAN:
            continue
        answers = [c for c in calls if c.op == "answer" and c.asked["wait"] == wait.id]
        stands = (wait.outcome, wait.answered_by) if wait.status is WaitStatus.ANSWERED else None
        voices = {(vote["outcome"], vote["by"]) for vote in wait.votes if wait.request.get("quorum", 1) > 1}
        for call in answers:
            said = (call.asked["outcome"], call.asked["by"])
            if call.end == "ok" and said != stands and said not in voices:
                yield Rule.OUTCOME, f"{said} was told ok; the wait is {wait.status} {stands or ''}"
        if stands and not any((c.asked["outcome"], c.asked["by"]) == stands for c in answers if c.end != "fail"):
            yield Rule.OUTCOME, f"the wait is ANSWERED {stands}, which nobody answered or whom it refused"
        if wait.status is WaitStatus.CANCELED and facts.intent.status not in (Status.CANCELED, Status.TIMED_OUT):
            yield Rule.OUTCOME, f"a wait is CANCELED in an intent that is {facts.intent.status}"


def _voices(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    for wait in facts.waits:
        if wait.kind is not WaitKind.HUMAN:
            continue
        voters, gave = [vote["by"] for vote in wait.votes], [given["by"] for given in wait.delegations]
        twice = [who for who, count in Counter(voters + gave).items() if count > 1]
        if twice:
            yield Rule.VOICES, f"{', '.join(twice)} had more than one voice: votes of {voters}, given away by {gave}"
        quorum = wait.request.get("quorum", 1)
        if wait.status is WaitStatus.ANSWERED and voters and wait.outcome == wait.request["outcomes"][0]:
            agreed = sum(vote["outcome"] == wait.outcome for vote in wait.votes)
            if agreed != quorum:
                yield Rule.VOICES, f"the wait closed with {agreed} of {quorum} voices"
        for call in calls:
            if call.op == "delegate" and call.asked["wait"] == wait.id and call.end == "ok":
                if call.asked["by"] not in gave:
                    yield Rule.VOICES, f"{call.asked['by']} was told that they gave it away, which is not on record"
                if wait.answered_by == call.asked["by"]:
                    yield Rule.VOICES, f"{call.asked['by']} gave the answer away and answered"


def _answers_kept(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    name = facts.leg.signature["args"][0]
    for call in calls:
        if call.op != "complete_tool" or call.end != "ok" or call.asked["job"].rpartition(":")[0] != name:
            continue
        wait = next((w for w in facts.waits if (w.tool, w.job_id) == (call.asked["tool"], call.asked["job"])), None)
        early = next((e for e in facts.early if (e.tool, e.job_id) == (call.asked["tool"], call.asked["job"])), None)
        if wait is None:
            if facts.intent.status is Status.COMPLETED:
                yield Rule.ANSWER_LOST, f"the report of {call.asked['job']} met no wait"
            elif early is None:
                yield Rule.ANSWER_LOST, f"the report of {call.asked['job']} was told ok and is nowhere"
        elif wait.status is WaitStatus.ANSWERED:
            if wait.data is None or json.loads(wait.data) != call.asked["result"]:
                yield Rule.ANSWER_LOST, f"{call.asked['job']} was told ok with another report than its wait has"
        elif early is None:
            yield Rule.ANSWER_LOST, f"the report of {call.asked['job']} was told ok; its wait is {wait.status}"


def _too_early(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    for wait in facts.waits:
        if wait.timeout_at is None:
            continue
        due = wait.kind is WaitKind.TIME or wait.status is WaitStatus.EXPIRED
        if (
            due
            and wait.closed_at is not None
            and wait.closed_at < wait.timeout_at
            and wait.status != WaitStatus.CANCELED
        ):
            yield Rule.TOO_EARLY, f"{wait.name} closed at {wait.closed_at}, it was due at {wait.timeout_at}"
        if wait.kind is WaitKind.TIME:
            for line in told.waited.get((wait.name, wait.nth), ()):
                if datetime.fromisoformat(line["now"]) < wait.timeout_at:
                    yield Rule.TOO_EARLY, f"{wait.name} gave back at {line['now']}, it was due at {wait.timeout_at}"


def _history(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    status = Status.CREATED
    for number, event in enumerate(facts.events, 1):
        if event.seq != number:
            yield Rule.HISTORY, f"event {number} has seq {event.seq}"
            return
        if number == 1:
            expected = Status.CREATED if event.type == "intent.created" else None
        elif event.type in NOTES:
            expected = None if status.is_final else status
        else:
            expected = MOVES[status].get(event.type)
        if event.status != expected:
            yield Rule.HISTORY, f"event {number}, {event.type}: {status} -> {event.status}; the table says {expected}"
        status = event.status
    if status != facts.intent.status or len(facts.events) != facts.intent.seq:
        yield (
            Rule.HISTORY,
            (
                f"the events end {status} at {len(facts.events)}, the intent is {facts.intent.status} at {facts.intent.seq}"
            ),
        )


def _dead_letters(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    leg, intent = facts.leg, facts.intent
    if leg.attempts > leg.max_attempts:
        yield Rule.DEAD_LETTER, f"{leg.attempts} attempts, {leg.max_attempts} are allowed"
    used_up = intent.status is Status.FAILED and (intent.error or {}).get("code") == "worker_lost"
    if used_up and leg.attempts < leg.max_attempts:
        yield Rule.DEAD_LETTER, f"given up after {leg.attempts} attempts of {leg.max_attempts}"
    expected = 1 if intent.status in (Status.FAILED, Status.TIMED_OUT) else 0
    if len(facts.letters) != expected:
        codes = ", ".join(letter.code for letter in facts.letters) or "none"
        yield Rule.DEAD_LETTER, f"{intent.status} with {len(facts.letters)} dead letters ({codes})"


def _audit(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    if facts.audit_trouble:
        yield Rule.AUDIT, facts.audit_trouble


def _transaction(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    record = _records(facts).get(("book", 1))
    expected = () if record is None else ((record.run, json.loads(record.value)),)
    if facts.bookings != expected:
        yield Rule.TRANSACTION, f"its table has {list(facts.bookings)}, its record says {list(expected)}"


def _at_most_once(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    starts = told.starts.get(("charge", 1), [])
    if len(starts) > 1:
        yield Rule.AT_MOST_ONCE, f"charge started {len(starts)} times, in runs {[s['run'] for s in starts]}"


def _result(facts: IntentFacts, told: _Told, calls: list[_Call]) -> Found:
    if facts.intent.status is not Status.COMPLETED:
        if facts.celery is not None and facts.celery[0] == "SUCCESS":
            yield Rule.RESULT, f"AsyncResult says SUCCESS, the intent is {facts.intent.status}"
        return
    returned = [line["value"] for line in told.lines if line["ev"] == "D" and line["run"] == facts.leg.run]
    if returned != [digest(facts.result)]:
        yield Rule.RESULT, f"the completing run returned {returned}, the result is {digest(facts.result)}"
    if facts.celery is not None and facts.celery != ("SUCCESS", facts.result):
        yield Rule.RESULT, f"AsyncResult says {facts.celery[0]}, and not the intent's result"
    records, waits = _records(facts), {(w.name, w.nth): w for w in facts.waits}
    for name, nth, value in facts.result["parts"]:
        record, wait = records.get((name, nth)), waits.get((name, nth))
        if record is not None and value != _recorded_value(record):
            yield Rule.RESULT, f"the result has another value of {_name((name, nth))} than its record"
        elif wait is not None and value != _given_by(wait, facts):
            yield Rule.RESULT, f"the result has another outcome of {_name((name, nth))} than its wait"
        elif record is None and wait is None:
            yield Rule.RESULT, f"the result has {_name((name, nth))}, which the ledger does not know"


#: What Celery's result backend may be told at an intent's end. Whoever waits for the task, and the rest of its chain,
#: goes by that at once: a state that is taken back later has done its harm.
_SHOWN = {
    Status.COMPLETED: {"SUCCESS"}, Status.FAILED: {"FAILURE"}, Status.TIMED_OUT: {"FAILURE"},
    Status.CANCELED: {"REVOKED"},
}  # fmt: skip


def _shown(facts: IntentFacts, stored: list[str]) -> Iterator[str]:
    ended = False
    for state in stored:
        final = state in {"SUCCESS", "FAILURE", "REVOKED"}
        if final and state not in _SHOWN.get(facts.intent.status, set()):
            yield f"Celery was told {state} of an intent that is {facts.intent.status}"
        elif ended and not final:
            yield f"Celery was told {state} after the end"
        ended = ended or final


_OF_ONE_INTENT: tuple[Callable[[IntentFacts, _Told, list[_Call]], Found], ...] = (
    _ends, _repeated, _changed, _outcomes, _voices, _answers_kept, _too_early, _history, _dead_letters, _audit, _transaction,
    _at_most_once, _result,
)  # fmt: skip


# -- small parts -----------------------------------------------------------------------


def _records(facts: IntentFacts) -> dict[StepKey, Checkpoint]:
    return {(c.name, c.nth): c for c in facts.checkpoints}


def _recorded_value(record: Checkpoint) -> Any:
    """What the body makes of this record: see ``reference.Body``."""
    match record.recorded:
        case Recorded.DONE:
            return json.loads(record.value)
        case Recorded.STARTED:
            return {"raised": "StepInterrupted"}
    return {"raised": json.loads(record.value)["code"]}


def _given_by(wait: Wait, facts: IntentFacts) -> Any:
    """What the body makes of this closed wait."""
    match wait.kind:
        case WaitKind.HUMAN if wait.status is WaitStatus.EXPIRED and wait.outcome == "timeout":
            return {"raised": "WaitTimedOut"}
        case WaitKind.HUMAN:
            return {"outcome": wait.outcome, "by": wait.answered_by}
        case WaitKind.TIME:
            return None
    if wait.status is WaitStatus.EXPIRED:
        return {"raised": "WaitTimedOut"}
    return json.loads(wait.data or "null")


def _name(key: StepKey) -> str:
    return f"{key[0]}#{key[1]}"
