"""audit: an altered history is found, an unaltered one is not accused, and it leaves the house safely."""

from __future__ import annotations

import csv
import io
import json

import pytest
from sqlalchemy import text

from .command_line import Desk, desk_fixture  # noqa: F401


@pytest.fixture
def histories(desk):
    """Three intents, each with three events."""
    intents = [desk.submit("doors.add", number, 0, requester="ana") for number in range(3)]
    return [intent.cancel("enough", by="bob") for intent in intents]


def alter(desk: Desk, statement: str, **values: object) -> None:
    """Write to the ledger behind its back."""
    with desk.axme.runtime.ledger.engines.connect() as connection, connection.begin():
        connection.execute(text(statement), values)


def test_histories_that_hold_are_counted(desk, histories):
    assert desk.run("audit", "verify").stdout == "3 intents checked, 0 bad\n"
    assert desk.json("audit", "verify") == {"checked": 3, "bad": {}, "not_keyed": 3}
    assert desk.run("audit", "verify", histories[0].id).stdout == "1 intents checked, 0 bad\n"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE axme_events SET actor = 'eve' WHERE intent_id = :id AND seq = 2", "event 2 (intent.submitted)"),
        ("UPDATE axme_events SET at = '2020-01-01 00:00:00.000000' WHERE intent_id = :id AND seq = 3", "event 3"),
        ("DELETE FROM axme_events WHERE intent_id = :id AND seq = 2", "event 2 of"),
        ("DELETE FROM axme_events WHERE intent_id = :id AND seq = 3", "the tail is missing"),
    ],
    ids=["actor", "moment", "removed", "tail"],
)
def test_the_first_bad_event_of_an_altered_history_is_named(desk, histories, statement, said):
    """Code 1; the others are not accused."""
    _, victim, _ = histories
    alter(desk, statement, id=victim.id)

    result = desk.run("audit", "verify", code=1)

    assert said in result.stdout and victim.id in result.stdout
    assert "3 intents checked, 1 bad" in result.stdout
    assert desk.run("audit", "verify", histories[0].id, histories[2].id).exit_code == 0
    bad = json.loads(desk.run("audit", "verify", "--json", code=1).stdout)["bad"]
    assert list(bad) == [victim.id]


def test_a_history_that_goes_on_while_it_is_read_is_not_accused(desk, histories, monkeypatch):
    """What is checked is of one moment."""
    intent = desk.submit("doors.add", 1, 1)
    ledger = desk.axme.runtime.ledger
    read, gone_on = ledger.events, []

    def read_late(*arguments):
        if not gone_on and arguments[0] == intent.id:
            gone_on.append(True)
            desk.axme.cancel(intent.id, "meanwhile")
        return read(*arguments)

    monkeypatch.setattr(ledger, "events", read_late)

    assert desk.run("audit", "verify", intent.id).stdout == "1 intents checked, 0 bad\n"
    assert gone_on


def test_a_history_sealed_with_a_key_needs_the_key(desk):
    """Without it nothing can be said; with another one, nothing holds."""
    keyed = desk.another(axme_secret_key="k" * 32)
    keyed.axme.submit(keyed.app.signature("doors.add", args=(1, 2))).cancel("no")
    assert keyed.json("audit", "verify")["not_keyed"] == 0

    assert "is sealed with axme_secret_key, which is not set here" in desk.run("audit", "verify", code=1).stdout

    other = desk.another(axme_secret_key="o" * 32)
    assert "event 1" in other.run("audit", "verify", code=1).stdout


def test_histories_from_before_the_key_are_told_from_altered_ones_and_are_not_vouched_for(desk, histories):
    """They may as well have been written anew by somebody who does not know it: a person must judge, so it ends with 1."""
    victim, *_ = histories
    alter(desk, "UPDATE axme_events SET actor = 'eve' WHERE intent_id = :id AND seq = 2", id=victim.id)
    keyed = desk.another(axme_secret_key="k" * 32)
    keyed.axme.submit(keyed.app.signature("doors.add", args=(1, 2))).cancel("no")

    result = keyed.run("audit", "verify", code=1)

    assert result.stdout.splitlines()[-1] == "4 intents checked, 1 bad, 2 without the key"
    assert [line for line in result.stdout.splitlines() if "altered" in line and victim.id in line]
    assert "the history of 1 of 4 intents is not what was written" in result.stderr
    said = json.loads(keyed.run("audit", "verify", "--json", code=1).stdout)
    assert (list(said["bad"]), said["not_keyed"]) == ([victim.id], 2)


def test_histories_from_before_the_moment_that_the_key_was_set_are_counted_and_accepted(desk, histories):
    """Whoever set it says when; the figures go on saying what the key does not protect."""
    keyed = desk.another(axme_secret_key="k" * 32)
    set_at = desk.axme.runtime.ledger.now(fresh=True).isoformat()
    keyed.axme.submit(keyed.app.signature("doors.add", args=(1, 2))).cancel("no")

    for verb in ("verify", "export"):
        refused = keyed.run("audit", verb, code=1).stderr
        assert "nothing vouches for 3 of 4 histories" in refused and "--unkeyed-before" in refused
    accepted = keyed.run("audit", "verify", "--unkeyed-before", set_at)

    assert accepted.stdout == "4 intents checked, 0 bad, 3 without the key\n"
    assert "does not protect" in accepted.stderr
    assert keyed.run("audit", "export", "--unkeyed-before", set_at).exit_code == 0


def test_a_keyed_history_cannot_be_passed_off_as_one_from_before_the_key(desk):
    """Written anew without it after the moment that it was set, it is bad: so is one of which a part was."""
    set_at = desk.axme.runtime.ledger.now(fresh=True).isoformat()
    desk.submit("doors.add", 1, 2).cancel("no")  # As whoever lacks the key would write it.
    keyed = desk.another(axme_secret_key="k" * 32)
    half = keyed.axme.submit(keyed.app.signature("doors.add", args=(1, 2)))
    assert keyed.axme.drain()
    desk.axme.cancel(half.id, "no")

    for options in ([], ["--unkeyed-before", "2100-01-01T00:00:00Z"], ["--unkeyed-before", set_at]):
        result = keyed.run("audit", "verify", *options, code=1)
        assert f"of intent {half.id} was sealed without the key" in result.stdout
    assert result.stdout.splitlines()[-1] == "2 intents checked, 2 bad"
    assert "was written without axme_secret_key after it was set" in result.stdout


def test_what_went_on_after_the_key_was_set_is_vouched_for(desk):
    """Each link covers all before it."""
    intent = desk.submit("doors.add", 1, 2)
    keyed = desk.another(axme_secret_key="k" * 32)
    keyed.axme.cancel(intent.id, "no")

    assert keyed.run("audit", "verify").stdout == "1 intents checked, 0 bad\n"


def test_export_is_every_event_in_order(desk, histories):
    """A JSON document on each line, as it was sealed."""
    lines = [json.loads(line) for line in desk.run("audit", "export").stdout.splitlines()]

    assert [(line["intent_id"], line["seq"]) for line in lines] == [
        (intent.id, seq) for intent in reversed(histories) for seq in (1, 2, 3)
    ]
    last = lines[-1]
    assert last["hash"] == histories[0].events()[-1].hash and last["actor"] == "bob"
    assert last["details"]["reason"] == "enough"


def test_export_of_one_intent_or_of_the_newest(desk, histories):
    one = desk.run("audit", "export", "--intent", histories[1].id).stdout.splitlines()
    assert {json.loads(line)["intent_id"] for line in one} == {histories[1].id}

    newest = desk.run("audit", "export", "--since", histories[2].created_at.isoformat()).stdout.splitlines()
    assert {json.loads(line)["intent_id"] for line in newest} == {histories[2].id}
    assert len(desk.run("audit", "export", "--since", "1h").stdout.splitlines()) == 9


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_csv_cannot_make_a_spreadsheet_run_a_formula(desk, start):
    """A cell that would be one begins with an apostrophe; the rest is read back as it was."""
    evil = f"{start}HYPERLINK('http://evil')"
    desk.submit("doors.add", 1, 2).cancel("x", by=evil)

    rows = list(csv.DictReader(io.StringIO(desk.run("audit", "export", "--format", "csv").stdout, newline="")))

    assert rows[-1]["actor"] == "'" + evil
    assert json.loads(rows[-1]["details"])["reason"] == "x"
    assert rows[0]["type"] == "intent.created" and rows[0]["seq"] == "1"


def test_csv_keeps_lines_commas_and_quotes(desk):
    desk.submit("doors.add", 1, 2).cancel('a, "b"\nc', by="ana")

    (*_, last) = csv.DictReader(io.StringIO(desk.run("audit", "export", "--format", "csv").stdout, newline=""))

    assert json.loads(last["details"])["reason"] == 'a, "b"\nc'


def test_an_unknown_intent_is_code_3(desk):
    desk.run("audit", "verify", "x", code=3)
    desk.run("audit", "export", "--intent", "x", code=3)
