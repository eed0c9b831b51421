"""Any program of steps and waits, run through any weather, does what the same program does in fine weather.

Hypothesis makes up the programs, and what happens to them: people and tools that
answer early, late or twice, workers killed before and after every record,
messages lost and doubled, a tracker that forgets, sweeps that come late. A
witness in the task's own code notes what really ran.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import create_engine, text

from axme_celery import (
    Axme,
    IntentEnded,
    StepInterrupted,
    WaitClosed,
    WaitTimedOut,
    audit,
    current_intent,
    step,
    wait_for_human,
    wait_for_time,
    wait_for_tool,
)
from axme_celery.ledger import tables
from axme_celery.ledger.migrate import upgrade
from axme_celery.lifecycle import MOVES, NOTES
from axme_celery.model import LegStatus, Status, Wait, WaitKind, WaitStatus
from axme_celery.testing import Stage

#: One line of a program: what to do, and for how many hours or until when.
LINES = st.sampled_from(
    [
        ("step", 0), ("named step", 0), ("transaction", 0), ("at most once", 0), ("at most once", 0),
        ("failing step", 0), ("sleep", 0), ("sleep", 1), ("sleep", 30), ("ask", 0), ("ask", 2), ("ask", 50),
        ("job", 0), ("job", 2), ("job", 50),
    ]
)  # fmt: skip
PROGRAMS = st.lists(LINES, min_size=4, max_size=8)
#: Workers that die at the next records: before the record is made (False), or just after.
DEATHS = st.lists(st.booleans(), min_size=0, max_size=3)


class Programs(RuleBasedStateMachine):
    """A stage, what was submitted on it, and what is known to be so."""

    ledger_url = "sqlite://"
    #: What has been met in all programs of a run: a run that meets nothing shows nothing.
    met: Counter[str] = Counter()

    def __init__(self) -> None:
        super().__init__()
        app = Celery("programs", broker="amqp://127.0.0.1:1", set_as_current=False)
        self.axme = Axme(app)
        self.stage = Stage(app, ledger_url=self.ledger_url, max_attempts=1000).__enter__()
        with self.stage.engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS effects (intent TEXT, line INTEGER)"))
            connection.execute(text("DELETE FROM effects"))

        @self.axme.task(name="play")
        def play(program: list[Any]) -> list[Any]:
            return self.played(program)

        self.play = play
        #: What each line's function did, and what the body was given for it.
        self.starts: Counter[tuple[str, int]] = Counter()
        self.given: dict[tuple[str, int], Any] = {}
        self.programs: dict[str, list[Any]] = {}
        self.kills = 0
        #: Answers and reports that were accepted, by wait or job.
        self.accepted: dict[str, Any] = {}
        self.canceled: set[str] = set()
        self.closed: dict[str, Any] = {}
        self.ended: dict[str, Any] = {}

    # -- the program, as a task plays it --

    def played(self, program: list[Any]) -> list[Any]:
        me = current_intent().id
        results = []
        for number, (what, hours) in enumerate(program):
            results.append(self.line(me, number, what, hours))
            known = self.given.setdefault((me, number), results[-1])
            assert known == results[-1], f"line {number} gave {known} before and {results[-1]} now"
        return results

    def line(self, me: str, number: int, what: str, hours: int) -> Any:
        def effect() -> str:
            # A failure is on record only once the body has gone on from it.
            assert (me, number) not in self.given or what == "failing step", f"line {number}: recorded, and ran again"
            self.starts[me, number] += 1
            return f"{number}, try {self.starts[me, number]}"

        def failing() -> None:
            effect()
            raise ConnectionError("as always")

        def insert(connection: Any) -> str:
            row = {"intent": me, "line": number}
            connection.execute(text("INSERT INTO effects VALUES (:intent, :line)"), row)
            return effect()

        try:
            match what:
                case "step":
                    return step(name="step")(effect)()
                case "named step":
                    return step(name=f"step {number}")(effect)()
                case "transaction":
                    return step(name="transaction", transaction=True)(insert)()
                case "at most once":
                    return step(name="once", at_most_once=True)(effect)()
                case "failing step":
                    return step(name="failing")(failing)()
                case "sleep":
                    return wait_for_time(f"{hours}h")
                case "ask":
                    return wait_for_human("?", to="ana", timeout=f"{hours}h" if hours else None).outcome
                case "job":
                    return wait_for_tool("tool", f"{me}/{number}", timeout=f"{hours}h" if hours else None)
        except (ConnectionError, StepInterrupted, WaitTimedOut) as error:
            return type(error).__name__
        raise AssertionError(what)

    # -- what happens --

    @initialize(programs=st.lists(PROGRAMS, min_size=1, max_size=2), deaths=DEATHS)
    def it_begins(self, programs: list[list[Any]], deaths: list[bool]) -> None:
        for program in programs:
            self.submit(program, deaths, "arrive")

    @precondition(lambda self: len(self.programs) < 4)
    @rule(program=PROGRAMS, deaths=DEATHS, messages=st.sampled_from(["arrive", "arrive", "are lost", "arrive twice"]))
    def somebody_submits(self, program: list[Any], deaths: list[bool], messages: str) -> None:
        self.submit(program, deaths, messages)

    def submit(self, program: list[Any], deaths: list[bool], messages: str) -> None:
        self.workers_will_die(deaths)
        intent = self.axme.submit(self.play.s(program))
        self.programs[intent.id] = program
        self.stage._relay.flush()
        if messages == "are lost":
            assert self.stage.lose_messages() > 0
            self.met["a lost message"] += 1
        elif messages == "arrive twice":
            self.stage.copy_messages()
            self.met["a doubled message"] += 1
        self.stage.run()

    @rule(hours=st.sampled_from([0.5, 1, 3, 40]), deaths=DEATHS)
    def time_passes(self, hours: float, deaths: list[bool]) -> None:
        self.workers_will_die(deaths)
        self.stage.pass_time(f"{hours}h")

    @rule(hours=st.sampled_from([0.5, 3, 40]))
    def nobody_sweeps_for_a_while(self, hours: float) -> None:
        self.stage._now += timedelta(hours=hours)
        self.stage.run()

    @precondition(lambda self: self.waits(WaitKind.HUMAN))
    @rule(data=st.data(), outcome=st.sampled_from(["approved", "rejected"]), by=st.sampled_from(["ana", "ben"]))
    def a_person_answers(self, data: st.DataObject, outcome: str, by: str) -> None:
        wait = data.draw(st.sampled_from(self.waits(WaitKind.HUMAN)), label="wait")
        try:
            self.stage.answer(wait, outcome, by=by)
        except WaitClosed:
            assert wait.status is not WaitStatus.OPEN
            self.met["a late answer"] += 1
        else:
            repeated = (wait.outcome, wait.answered_by) == (outcome, by)
            assert wait.status is WaitStatus.OPEN or repeated
            self.accepted.setdefault(wait.id, outcome)

    @precondition(lambda self: self.jobs())
    @rule(data=st.data(), result=st.sampled_from(["rows", "no rows"]))
    def a_tool_reports(self, data: st.DataObject, result: str) -> None:
        job = data.draw(st.sampled_from(self.jobs()), label="job")
        before = self.wait_of(job)
        try:
            self.stage.complete_tool("tool", job, result)
        except WaitClosed:
            assert job in self.accepted or (before is not None and before.status is not WaitStatus.OPEN)
        else:
            assert self.accepted.setdefault(job, result) == result
            self.met["an early report" if before is None else "a report"] += 1

    @rule()
    def the_tracker_forgets(self) -> None:
        self.axme.runtime.tracker.clear()

    @precondition(lambda self: len(self.programs) > 1 and not self.canceled)
    @rule(data=st.data())
    def somebody_cancels(self, data: st.DataObject) -> None:
        intent = data.draw(st.sampled_from(sorted(self.programs)), label="intent")
        try:
            self.axme.cancel(intent, "no need", by="ana")
            self.canceled.add(intent)
            self.met["a cancel"] += 1
        except IntentEnded:
            assert self.stage.intent(intent).status.is_final
        self.stage.run()

    def workers_will_die(self, deaths: list[bool]) -> None:
        if not self.stage._fate.planned:
            self.kills += len(deaths)
            for recorded in deaths:
                self.stage.kill(recorded=recorded)

    def waits(self, kind: WaitKind) -> list[Wait]:
        return [w for id in self.programs for w in self.stage.waits(id) if w.kind is kind]

    def jobs(self) -> list[str]:
        return [
            f"{id}/{n}" for id, lines in self.programs.items() for n, (what, _) in enumerate(lines) if what == "job"
        ]

    def wait_of(self, job: str) -> Any:
        intent = job.split("/")[0]
        return next((w for w in self.stage.waits(intent) if w.job_id == job), None)

    # -- what always holds --

    @invariant()
    def every_history_is_whole(self) -> None:
        for id in self.programs:
            intent, events = self.axme.runtime.ledger.intent(id), self.stage.history(id)
            assert audit.verify(intent, events, None) is None
            status = Status.CREATED
            for event in events[1:]:
                assert event.status is (status if event.type in NOTES else MOVES[status][event.type])
                status = event.status
            if status.is_final:
                assert self.ended.setdefault(id, (intent, len(events))) == (intent, len(events))
                assert status is (Status.CANCELED if id in self.canceled else Status.COMPLETED), intent.error

    @invariant()
    def every_wait_closes_once_and_never_early(self) -> None:
        for id in self.programs:
            for wait in self.stage.waits(id):
                if wait.status is WaitStatus.OPEN:
                    assert wait.due_at is None or wait.due_at > self.stage.now
                    continue
                assert self.closed.setdefault(wait.id, wait) == wait
                if wait.status is WaitStatus.EXPIRED or wait.kind is WaitKind.TIME:
                    assert wait.closed_at >= wait.timeout_at or id in self.canceled

    @invariant()
    def at_rest_nothing_is_running(self) -> None:
        for id in self.programs:
            (leg,) = self.stage.intent(id).legs()
            if leg.status is LegStatus.QUEUED:
                assert leg.due_at > self.stage.now, "its message was lost, and nobody has noticed"
            else:
                assert leg.status in {LegStatus.WAITING, LegStatus.DONE, LegStatus.CANCELED}

    # -- the end --

    def teardown(self) -> None:
        try:
            self.bring_to_an_end()
            self.compare()
        finally:
            # A death that was planned for a run that never came.
            self.stage._fate.planned.clear()
            self.stage.__exit__(None, None, None)

    def bring_to_an_end(self) -> None:
        for _ in range(20):
            if all(self.stage.intent(id).status.is_final for id in self.programs):
                return
            waits = [w for id in self.programs for w in self.stage.waits(id) if w.status is WaitStatus.OPEN]
            for wait in waits:
                if wait.kind is WaitKind.HUMAN:
                    self.accepted[wait.id] = "approved"
                    self.stage.answer(wait, "approved", by="the end")
                elif wait.kind is WaitKind.TOOL:
                    self.accepted.setdefault(wait.job_id, "rows")
                    self.stage.complete_tool("tool", wait.job_id, "rows")
            self.stage.pass_time("31h")
        raise AssertionError("it does not come to an end")

    def compare(self) -> None:
        """With what the same programs do where nothing goes wrong."""
        repeats = 0
        for id, program in self.programs.items():
            intent = self.stage.intent(id)
            repeats += sum(self.starts[id, number] - 1 for number in range(len(program)) if self.starts[id, number])
            if id in self.canceled:
                assert intent.status is Status.CANCELED
                continue
            assert intent.status is Status.COMPLETED, intent.error
            expected = [self.expected(id, number, what) for number, (what, _) in enumerate(program)]
            assert intent.result == expected
            self.met.update(what for what, _ in program)
            self.met.update(str(value) for value in intent.result if str(value).isalpha())
            for number, (what, _) in enumerate(program):
                if what == "transaction":
                    assert self.rows(id, number) == 1
            deaths = [e for e in self.stage.history(id) if e.type == "intent.leg_lost"]
            self.met["a death"] += len(deaths)
        self.met["a repeated step"] += repeats
        assert repeats <= self.kills

    def expected(self, id: str, number: int, what: str) -> Any:
        match what:
            case "step" | "named step" | "transaction":
                return f"{number}, try {self.starts[id, number]}"
            case "at most once":
                assert self.starts[id, number] == 1
                return (
                    "StepInterrupted"
                    if self.given[id, number] == "StepInterrupted" and self.kills
                    else f"{number}, try 1"
                )
            case "failing step":
                return "ConnectionError"
            case "sleep":
                return None
            case "ask" | "job":
                wait = self.asked(id, number)
                if wait.status is WaitStatus.EXPIRED:
                    assert wait.id not in self.accepted
                    return "WaitTimedOut"
                return self.accepted[wait.id if what == "ask" else wait.job_id]
        raise AssertionError(what)

    def asked(self, id: str, number: int) -> Any:
        """The wait of this line: people's and tools' come in the order of their lines."""
        kind = WaitKind.HUMAN if self.programs[id][number][0] == "ask" else WaitKind.TOOL
        before = sum(1 for what, _ in self.programs[id][:number] if what == self.programs[id][number][0])
        return [w for w in self.stage.waits(id) if w.kind is kind][before]

    def rows(self, id: str, number: int) -> int:
        with self.stage.engine.connect() as connection:
            count = text("SELECT count(*) FROM effects WHERE intent = :intent AND line = :line")
            return int(connection.execute(count, {"intent": id, "line": number}).scalar_one())


#: What a run must have met to show anything; and what a shorter one may miss.
WEATHER = {
    "a lost message", "a doubled message", "a late answer", "an early report", "a report", "a cancel", "a death",
    "a repeated step", "step", "named step", "transaction", "at most once", "failing step", "sleep", "ask", "job",
    "approved", "rejected", "rows", "WaitTimedOut", "ConnectionError", "StepInterrupted",
}  # fmt: skip
RARE = {"a doubled message", "a lost message", "a cancel", "rejected", "StepInterrupted"}


def run(machine: type[Programs], examples: int, weather: set[str]) -> None:
    """Run so many programs; more of them, should these not have met all that is asked for."""
    machine.met = Counter()
    for more in (1, 2, 4):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=more * examples,
                stateful_step_count=16,
                deadline=None,
                derandomize=True,
                # Not made smaller when it fails, which would take minutes: add Phase.shrink to look into one.
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
        if weather <= machine.met.keys():
            return
    raise AssertionError(f"these programs never met {weather - machine.met.keys()}, only {dict(machine.met)}")


@pytest.mark.timeout(300)
def test_any_program_comes_to_its_end_through_any_weather():
    """On SQLite in memory."""
    run(Programs, examples=20, weather=WEATHER)


@pytest.mark.timeout(300)
def test_any_program_comes_to_its_end_through_any_weather_on_postgresql(module_postgres_url):
    """The same, on a real PostgreSQL."""
    upgrade(module_postgres_url)
    engine = create_engine(module_postgres_url)

    class OnPostgres(Programs):
        ledger_url = module_postgres_url

        def __init__(self) -> None:
            # Each program starts with an empty ledger, and all share one database.
            with engine.begin() as connection:
                for table in tables.metadata.sorted_tables:
                    if table is not tables.meta:
                        connection.execute(table.delete())
            super().__init__()

    run(OnPostgres, examples=8, weather=WEATHER - RARE)
    engine.dispose()
