"""The pages of operators: lists with their filters, one intent, dead letters, deliveries, health."""

from __future__ import annotations

import re

import pytest
from celery import group

from axme_celery import step, wait_for_human
from axme_celery.web.pages import intents, paging, timeline

from .conftest import PAGE, post


@pytest.fixture
def house(stage, tmp_path):
    """Intents in every state worth a look."""
    tasks = stage.axme.app.tasks
    made = {
        "done": stage.submit(tasks["doors.add"].s(1, 2), key="sum-1", tags=["sums"], requester="ana"),
        "waits": stage.submit(tasks["doors.report"].s(2), tags=["reports"], correlation_id="corr-7", deadline="3d"),
        "late": stage.submit(tasks["doors.ask"].s({"to": "ana", "timeout": "1h", "title": "Soon?"})),
        "failed": stage.submit(tasks["doors.needs"].s(str(tmp_path / "missing"))),
    }
    stage.submit(tasks["doors.needs"].s(str(tmp_path / "other")))
    return made


@step
def fetch(size):
    """So many characters."""
    return "x" * size


@pytest.fixture
def operator(sign_in):
    return sign_in("olga", role="operator")


def text_of(client, path):
    answer = client.get(path, headers=PAGE)
    assert answer.status_code == 200, answer.text
    return answer.text


def intents_in(page):
    """The ids in a list of intents."""
    return re.findall(r'href="/intents/([0-9a-f-]{36})"', page)


def test_the_list_of_intents_is_filtered_by_its_address(house, operator):
    """By status, type and tag; and found by id, key, tag, type or correlation id."""
    done, waits = house["done"].id, house["waits"].id

    assert set(intents_in(text_of(operator, "/intents?status=COMPLETED"))) == {done}
    assert set(intents_in(text_of(operator, "/intents?type=doors.report"))) == {waits}
    assert set(intents_in(text_of(operator, "/intents?tag=sums"))) == {done}
    for words in (done, "sum-1", "sums", "doors.add", "ana", house["done"].legs()[0].id):
        assert set(intents_in(text_of(operator, f"/intents?find={words}"))) == {done}, words
    assert set(intents_in(text_of(operator, "/intents?find=corr-7"))) == {waits}
    assert "No intents here" in text_of(operator, "/intents?find=%25&status=WAITING")


def test_the_page_of_an_intent_that_starts_later_says_when(stage, operator):
    """And of one that may start at once nothing of the kind."""
    later = stage.submit(stage.axme.app.tasks["doors.add"].s(1, 2).set(countdown=1200))

    assert re.search(r"<dt>Starts</dt><dd>.*in (20m|19m)", text_of(operator, f"/intents/{later.id}"))

    stage.pass_time("21m")
    assert "Starts" not in text_of(operator, f"/intents/{later.id}")


def test_every_number_leads_to_the_list_it_counts(house, operator):
    """And that list has as many lines."""
    for page in ("/intents", "/overview"):
        tallies = re.findall(r'href="(/intents\?status=[A-Z_]+)"[^>]*><strong>(\d+)', text_of(operator, page))
        assert len(tallies) >= 3
        for address, number in tallies:
            assert len(set(intents_in(text_of(operator, address)))) == int(number)
    letters = re.search(r'href="(/dead-letters)"><span class="figure">(\d+)', text_of(operator, "/overview"))
    assert text_of(operator, letters[1]).count('name="letter"') == int(letters[2]) == 2


def test_long_lists_are_read_page_by_page(stage, operator, monkeypatch):
    """Every line once, also those of the same moment."""
    monkeypatch.setattr(paging, "LINES", 3)
    monkeypatch.setattr("axme_celery.web.pages.intents.LINES", 3)
    made = {stage.submit(stage.axme.app.tasks["doors.add"].s(n, 1)).id for n in range(8)}
    address, seen = "/intents?type=doors.add", []

    while address:
        page = text_of(operator, address)
        seen += dict.fromkeys(intents_in(page))
        found = re.search(r'href="([^"]+)" rel="next"', page)
        address = found and found[1].replace("&amp;", "&")
        assert not address or "type=doors.add" in address

    assert len(seen) == 8 and set(seen) == made


def test_an_intents_page_says_everything_about_it(house, operator):
    """Facts, steps, waits, legs, history, and the drawing with its table."""
    intent = house["waits"]

    page = text_of(operator, f"/intents/{intent.id}")

    for words in ("doors.report", "Waiting for human", "corr-7", "reports", "fetch_page", "Publish?", "<svg", "As a table",
                  "human task assigned", intent.legs()[0].id):  # fmt: skip
        assert words in page, words
    assert "<svg" in text_of(operator, f"/intents/{intent.id}?scale=even")
    assert "<html" not in text_of(operator, f"/intents/{intent.id}?part=live")


def test_the_page_of_an_intent_with_much_in_it_stays_small(stage, app, axme, operator):
    """Two hundred megabytes are not for a phone: what is left out is counted, and it is said where it is."""

    @axme.task(name="doors.much", shared=False)
    def much(steps, size):
        for _ in range(steps):
            fetch(size)
        wait_for_human("Go on?", to="ana")

    intent = stage.submit(much.s(intents.MOST_STEPS + 3, 2 * intents.LONGEST_VALUE))
    small = stage.submit(much.s(3, 10))

    page, other = text_of(operator, f"/intents/{intent.id}"), text_of(operator, f"/intents/{small.id}")

    assert len(page) < 400_000
    assert f"The last {intents.MOST_STEPS}." in page and f'Steps <span class="quiet">{intents.MOST_STEPS + 3}' in page
    assert page.count("too long for this page") == intents.MOST_STEPS and f"axme-celery show {intent.id} --json" in page
    assert "too long" not in other and "x" * 10 in other


def test_the_page_of_an_intent_with_many_legs_counts_what_it_does_not_show(stage, axme, operator, monkeypatch):
    """Legs, their steps, and waits."""
    monkeypatch.setattr(intents, "MOST_LEGS", 2)
    monkeypatch.setattr(intents, "MOST_WAITS", 2)
    monkeypatch.setattr(timeline, "MOST_LANES", 1)

    @axme.task(name="doors.one", shared=False)
    def one(number):
        fetch(number)
        wait_for_human("Go on?", to="ana")

    intent = stage.submit(group(one.s(number) for number in range(5)))

    page = text_of(operator, f"/intents/{intent.id}")

    assert "The first 2; the command line has them all." in page
    assert 'Steps <span class="quiet">5' in page and page.count("<td>fetch") == 2
    assert "2 of 5, open ones first" in page and "Of the first 1 legs." in page


def test_an_intent_is_canceled_and_put_off_with_a_reason(stage, house, operator):
    """Without one nothing happens; with one it is in the history."""
    path = f"/intents/{house['waits'].id}"

    assert post(operator, f"{path}/cancel", {"reason": " "}, page=path).status_code == 422
    before = house["waits"].deadline_at
    assert post(operator, f"{path}/extend", {"duration": "1d", "reason": "audit"}, page=path).status_code == 303
    assert (house["waits"].refresh().deadline_at - before).days == 1
    assert post(operator, f"{path}/cancel", {"reason": "not needed"}, page=path).status_code == 303

    assert house["waits"].refresh().status == "CANCELED"
    last = stage.history(house["waits"])[-1]
    assert (last.actor, last.details["reason"]) == ("olga", "not needed")
    assert "not needed" in text_of(operator, path)


def test_a_failed_intent_is_replayed_and_forked(stage, house, operator, tmp_path):
    """By whom and why is in the new one's history."""
    path = f"/intents/{house['failed'].id}"
    (tmp_path / "missing").touch()

    again = post(operator, f"{path}/replay", {"reason": "the file is there"}, page=path)
    stage.run()
    new = stage.intent(again.location.rsplit("/", 1)[1])

    assert new.status == "COMPLETED" and new.replay_of == house["failed"].id
    first = stage.history(new)[0]
    assert (first.actor, first.details["reason"]) == ("olga", "the file is there")
    assert "the file is there" in text_of(operator, "/dead-letters?state=REPLAYED")
    assert post(operator, f"{path}/fork", {"reason": "x", "before": ""}, page=path).status_code == 422
    forked = post(operator, f"{path}/fork", {"reason": "look", "before": "fetch_page#1"}, page=path)
    assert stage.intent(forked.location.rsplit("/", 1)[1]).replay_of == house["failed"].id


def test_dead_letters_are_grouped_and_replayed_together(stage, house, operator):
    """And it is said of each how it went."""
    page = text_of(operator, "/dead-letters")
    assert re.search(r"kind=leg&amp;code=ValueError|kind=intent&amp;code=ValueError", page)
    kind = re.search(r'name="group_kind" value="(\w+)"', page)[1]
    group = {"group_kind": kind, "group_code": "ValueError", "verb": "replay"}

    assert post(operator, "/dead-letters", group, page="/dead-letters").status_code == 422
    done = post(operator, "/dead-letters", {**group, "reason": "after the fix"}, page="/dead-letters")

    assert done.status_code == 200 and done.text.count("replayed as") == 2
    stage.run()
    assert text_of(operator, "/dead-letters").count('name="letter"') == 2, "they failed again, as new ones"


def test_dead_letters_are_discarded_one_by_one(stage, house, operator):
    """With the reason kept."""
    letters = stage.dead_letters()
    fields = {"letter": letters[0].id, "verb": "discard", "reason": "known"}

    assert post(operator, "/dead-letters", fields, page="/dead-letters").status_code == 200

    left = stage.dead_letters()
    assert [each.id for each in left] == [letters[1].id]
    kept = stage.axme.runtime.ledger.dead_letter(letters[0].id)
    assert (kept.state, kept.closed_by, kept.closed_reason) == ("DISCARDED", "olga", "known")


def test_a_viewer_sees_everything_and_changes_nothing(stage, house, sign_in):
    """No buttons; and 403 for whoever presses them all the same."""
    viewer = sign_in("vera", role="viewer")
    path = f"/intents/{house['waits'].id}"
    seq = house["waits"].refresh().seq

    for page in ("/inbox", "/intents", path, "/dead-letters", "/deliveries", "/overview"):
        text_of(viewer, page)
    for verb in ("cancel", "extend", "unpark", "replay", "fork"):
        fields = {"reason": "r", "duration": "1d", "before": "x"}
        assert post(viewer, f"{path}/{verb}", fields, page=path).status_code == 403
    refused = post(viewer, "/dead-letters", {"reason": "r", "verb": "discard", "letter": "x"}, page="/inbox")
    assert refused.status_code == 403
    assert house["waits"].refresh().seq == seq and len(stage.dead_letters()) == 2


def test_an_inbox_has_what_is_due_first_at_its_top(stage, house, sign_in):
    """With its number in the title; overdue ones are marked and can be listed alone."""
    client = sign_in("ana", groups=["analysts"])

    page = text_of(client, "/inbox")

    assert "(2) Inbox" in page and page.index("Soon?") < page.index("Publish?")
    only = text_of(client, "/inbox?task_type=approval&type=doors.report")
    assert "Publish?" in only and "Soon?" not in only
    assert "Nothing fits" in text_of(client, "/inbox?only=overdue")
    assert "Nothing is asked of you" in text_of(sign_in("nobody"), "/inbox")


def test_what_waits_to_leave_is_listed(stage, house, operator):
    """And where nothing does, that is said."""
    assert "Everything has left" in text_of(operator, "/deliveries?only=failing")
    text_of(operator, "/deliveries?kind=NOTICE&only=due")


def test_health_says_what_is_late_and_draws_what_was_done(house, operator):
    """The same figures as a table."""
    for window in ("1h", "24h", "7d", "nonsense"):
        page = text_of(operator, f"/overview?window={window}")
        assert "data-charts=" in page and "is a beat running?" in page
        assert re.search(r'<td class="right">5</td><td class="right">1</td><td class="right">2</td>', page), window


def test_the_probe_needs_no_key_and_says_nothing_about_anybody(house, web):
    """What load balancers ask."""
    answer = web.test_client().get("/health")

    assert answer.status_code == 200 and answer.json == {"ok": True, "status": "ok", "ledger": "ok", "tracker": "ok"}
