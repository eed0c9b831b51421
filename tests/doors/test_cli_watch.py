"""watch: lines for programs, bars for people, and an exit code that says whether all is done."""

from __future__ import annotations

import json
import signal

import pytest

from axme_celery.cli import watch

from .command_line import PATIENCE_SECONDS, desk_fixture, read_until, served_fixture  # noqa: F401


def test_watch_prints_a_line_for_each_event_and_ends_with_the_intents(served):
    """Code 0 when all of them completed."""
    first = served.reach(served.submit("doors.add", 1, 1), "COMPLETED")
    second = served.submit("doors.add", 2, 2)

    lines = served.run("watch", first.id, second.id).stdout.splitlines()

    for intent in (first, second):
        told = [line.split("  ") for line in lines if intent.id in line]
        assert [words[2] for words in told] == [e.type.removeprefix("intent.") for e in intent.refresh().events()]
    assert "completed  COMPLETED" in lines[-1]


def test_watch_is_live(served):
    """A line comes when its event does, not at the end."""
    intent = served.waiting("doors.report", 1, "Now?")
    process = served.start("watch", intent.id)
    assert process.stdout is not None
    seen: list[str] = []
    while "Now? to analysts, ana" not in "".join(seen):
        line = process.stdout.readline()
        assert line, (process.wait(), process.stderr and process.stderr.read())
        seen.append(line)
    assert process.poll() is None

    served.axme.answer(intent.id, "approved", by="ana")

    rest, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert "approved by ana" in rest and "COMPLETED" in rest
    assert process.returncode == 0, said


def test_watch_ends_with_1_when_one_does_not_complete(served, tmp_path):
    good = served.submit("doors.add", 1, 1)
    bad = served.submit("doors.needs", str(tmp_path / "no"))

    out = served.run("watch", good.id, bad.id, code=1).stdout

    assert "[ValueError]" in out


def test_watch_with_json_prints_a_document_on_each_line(served):
    intent = served.submit("doors.add", 1, 1)

    lines = [json.loads(line) for line in served.run("watch", intent.id, "--json").stdout.splitlines()]

    assert [line["seq"] for line in lines] == list(range(1, intent.refresh().seq + 1))
    assert lines[-1]["status"] == "COMPLETED"


def test_watch_gives_up_at_its_timeout_and_the_intent_goes_on(desk):
    intent = desk.submit("doors.add", 1, 1)

    result = desk.run("watch", intent.id, "--timeout", "0.2", code=1)

    assert "1 of 1 have not ended" in result.stderr
    assert intent.refresh().status == "SUBMITTED"


def test_ctrl_c_stops_the_watching_only(desk):
    """Code 130; the intent is as it was."""
    intent = desk.submit("doors.add", 1, 1)
    process = desk.start("watch", intent.id)
    assert process.stdout is not None and process.stdout.readline()

    process.send_signal(signal.SIGINT)

    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130 and "the intents go on" in said
    assert intent.refresh().status == "SUBMITTED"


def test_on_a_terminal_watch_draws_bars_over_one_another(served):
    """A line for each intent, with how far it is; the same lines again, not new ones."""
    intent = served.waiting("doors.report", 4, "Publish it?")
    terminal, process = served.on_a_terminal("watch", intent.id)

    seen = read_until(terminal, "4/4 page 4")
    served.axme.answer(intent.id, "approved", by="ana")
    seen += read_until(terminal, "COMPLETED")
    process.wait(PATIENCE_SECONDS)

    assert process.returncode == 0
    assert "[" + "#" * watch.BAR_WIDTH + "] 4/4 page 4" in seen
    assert "WAITING for human" in seen and "Publish it?" in seen
    assert seen.count("\x1b[1F\x1b[2K") >= 1


def test_on_a_narrow_terminal_a_line_stays_one_line(served):
    """A wrapped line could not be drawn over: what does not fit is cut, the id first."""
    intent = served.waiting("doors.report", 4, "Publish it? " + "x" * 100)
    terminal, process = served.on_a_terminal("watch", intent.id, "--timeout", "1", COLUMNS="80")

    seen = read_until(terminal, "have not ended")
    process.wait(PATIENCE_SECONDS)

    lines = seen.replace("\x1b[1F", "").replace("\x1b[2K", "").splitlines()
    assert max(map(len, lines)) < 80
    assert f"…{intent.id[-8:]}" in lines[0] and intent.id not in seen


def test_a_terminal_that_cannot_redraw_gets_lines(served):
    intent = served.reach(served.submit("doors.add", 1, 1), "COMPLETED")
    terminal, process = served.on_a_terminal("watch", intent.id, TERM="dumb")

    seen = read_until(terminal, "COMPLETED")
    process.wait(PATIENCE_SECONDS)

    assert "\x1b" not in seen and len(seen.splitlines()) == intent.seq


@pytest.mark.parametrize(
    ("done", "total", "bar"),
    [
        (0, 4, "[........................] 0/4"),
        (2, 4, "[############............] 2/4"),
        (9, 4, "[" + "#" * 24 + "] 9/4"),
    ],
)
def test_a_bar_is_as_long_as_the_share_that_is_done(done, total, bar):
    """Never longer than its frame."""
    from datetime import UTC, datetime

    from axme_celery.model import Progress

    assert watch._progress(Progress(done, total, None, datetime.now(UTC)), done=False) == bar
