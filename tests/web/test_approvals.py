"""The page on which a person decides, without JavaScript: what it shows, what it takes, and what it refuses."""

from __future__ import annotations

import threading

import pytest

from axme_celery import links
from axme_celery.model import WaitStatus

from .conftest import PAGE, post, token_in

FORM = {
    "type": "object",
    "required": ["amount", "why"],
    "properties": {
        "amount": {"type": "integer", "minimum": 1, "title": "Amount"},
        "why": {"enum": ["damaged", "late"]},
        "urgent": {"type": "boolean"},
        "address": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}


@pytest.fixture
def ask(stage):
    """``ask(to="ana", ...)``: a question, asked; its wait."""

    def put(**options):
        requester = options.pop("requester", None)
        intent = stage.submit(stage.axme.app.tasks["doors.ask"].s(options), requester=requester)
        return intent.waits()[0]

    return put


@pytest.fixture
def now_of(stage):
    """``now_of(wait)``: the wait as it is now."""
    return lambda wait: stage.axme.runtime.ledger.wait(wait.id).wait


def answer(client, wait, outcome, **fields):
    """Press a button of the page."""
    path = f"/waits/{wait.id}"
    page = client.get(path, headers=PAGE).text
    shown = page.partition('name="payload_hash" value="')[2].partition('"')[0]
    fields = {"csrf_token": token_in(page), "payload_hash": shown, "outcome": outcome, **fields}
    return client.post(path, data=fields, headers=PAGE)


def test_a_person_approves_and_the_work_goes_on(stage, ask, sign_in, now_of):
    """The page then says so first, and the history by whom."""
    wait = ask(title="Send 40 letters?", to=["analysts"], timeout="2d", on_timeout="rejected")
    client = sign_in("ana", role="approver", groups=["analysts"])
    page = client.get(f"/waits/{wait.id}", headers=PAGE).text
    assert "Send 40 letters?" in page and "counts as <strong>rejected</strong>" in page

    done = answer(client, wait, "approved", comment="go")
    stage.run()

    assert done.status_code == 303
    assert stage.intent(wait.intent_id).result == {"outcome": "approved", "by": "ana", "comment": "go", "data": None}
    after = client.get(done.location, headers=PAGE).text
    assert "Approved by ana" in after and "“go”" in after and "<textarea" not in after


@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_looking_changes_nothing(stage, ask, sign_in, now_of, method):
    """A hundred times, with whatever a scanner adds to the address."""
    wait = ask()
    client = sign_in("ana", role="admin")
    seq = stage.intent(wait.intent_id).seq

    for n in range(100):
        getattr(client, method)(f"/waits/{wait.id}?outcome=approved&confirm={n}", headers=PAGE)

    assert now_of(wait).status is WaitStatus.OPEN and stage.intent(wait.intent_id).seq == seq


def test_a_refusal_that_needs_words_says_so_at_the_field(ask, sign_in, now_of):
    """And what was typed elsewhere is still there."""
    wait = ask(require_comment="rejected", form=FORM)
    client = sign_in("ana")

    refused = answer(client, wait, "rejected", **{"field.amount": "77"})

    assert refused.status_code == 422
    assert 'aria-describedby="comment-error"' in refused.text and 'value="77"' in refused.text
    assert now_of(wait).status is WaitStatus.OPEN
    assert answer(client, wait, "rejected", comment="too dear").status_code == 303


def test_a_form_is_checked_by_its_schema_and_errors_are_tied_to_fields(stage, ask, sign_in, now_of):
    """All of them at once."""
    wait = ask(type="form", form=FORM)
    client = sign_in("ana")

    refused = answer(client, wait, "submitted", **{"field.amount": "0", "field.address.city": ""})

    assert refused.status_code == 422
    assert 'id="f-amount-error"' in refused.text and "must be 1 or more" in refused.text
    assert 'id="f-why-error"' in refused.text and "is required" in refused.text
    assert now_of(wait).status is WaitStatus.OPEN

    good = {
        "field.amount": "12", "field.why": '"late"', "field.urgent": "on", "field.address.city": "Bonn",
        "field.tags": "a\r\n b \r\n\r\n",
    }  # fmt: skip
    assert answer(client, wait, "submitted", **good).status_code == 303
    stage.run()
    assert stage.intent(wait.intent_id).result["data"] == {
        "amount": 12, "why": "late", "urgent": True, "address": {"city": "Bonn"}, "tags": ["a", "b"],
    }  # fmt: skip


def test_what_was_changed_meanwhile_is_shown_again_and_the_comment_kept(ask, sign_in, now_of):
    """A hash of what was shown goes with the answer."""
    wait = ask()
    client = sign_in("ana")

    refused = answer(client, wait, "approved", payload_hash="0" * 64, comment="my words")

    assert refused.status_code == 409 and "has changed since" in refused.text and "my words" in refused.text
    assert now_of(wait).status is WaitStatus.OPEN


def test_the_second_answer_is_told_who_was_first(ask, sign_in):
    """The same one of the same person stands; any other is too late."""
    wait = ask(to=["ana", "bo"])
    ana, bo = sign_in("ana"), sign_in("bo")
    page = ana.get(f"/waits/{wait.id}", headers=PAGE).text
    late = bo.get(f"/waits/{wait.id}", headers=PAGE).text
    first = {"csrf_token": token_in(page), "outcome": "approved"}

    assert ana.post(f"/waits/{wait.id}", data=first, headers=PAGE).status_code == 303
    assert ana.post(f"/waits/{wait.id}", data=first, headers=PAGE).status_code == 303
    refused = bo.post(
        f"/waits/{wait.id}", data={"csrf_token": token_in(late), "outcome": "rejected"}, headers=PAGE
    )  # fmt: skip

    assert refused.status_code == 409
    assert "Approved by ana" in refused.text and "was not counted" in refused.text


def test_of_answers_in_the_same_moment_one_wins(stage, ask, sign_in, now_of):
    """Twenty people at once, and one vote of each at most."""
    wait = ask(to=[f"p{n}" for n in range(8)])
    clients = [sign_in(f"p{n}") for n in range(8)]
    ready = threading.Barrier(8)
    codes = []

    def press(client, n):
        page = client.get(f"/waits/{wait.id}", headers=PAGE).text
        ready.wait(10)
        outcome = ("approved", "rejected")[n % 2]
        fields = {"csrf_token": token_in(page), "outcome": outcome, "comment": f"c{n}"}
        codes.append(client.post(f"/waits/{wait.id}", data=fields, headers=PAGE).status_code)

    threads = [threading.Thread(target=press, args=(client, n)) for n, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(codes) == [303] + [409] * 7
    assert len(now_of(wait).votes) == 1


def test_a_quorum_counts_people_not_presses(stage, ask, sign_in, now_of):
    """One person's second press is no second vote."""
    wait = ask(to=["everybody"], quorum=2)
    ana, bo = (sign_in(name, groups=["everybody"]) for name in ("ana", "bo"))

    assert answer(ana, wait, "approved").status_code == 303
    shown = ana.get(f"/waits/{wait.id}", headers=PAGE).text
    assert "1 of 2" in shown and "You have answered" in shown and "<textarea" not in shown
    assert answer(ana, wait, "rejected").status_code == 403
    assert len(now_of(wait).votes) == 1

    assert answer(bo, wait, "approved").status_code == 303
    assert now_of(wait).status is WaitStatus.ANSWERED


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ({"name": "kim", "groups": ["analysts"]}, "You may not decide this"),
        ({"name": "stranger"}, "not for you to decide"),
        ({"name": "vera", "groups": ["analysts"], "role": "viewer"}, "Your role is viewer"),
    ],
    ids=["who asked for it", "whom it is not for", "a viewer"],
)
def test_who_may_not_decide_sees_why(ask, sign_in, now_of, who, words):
    """The page without its buttons; and pressing them all the same changes nothing."""
    wait = ask(to=["analysts"], not_by="requester", requester="kim")
    client = sign_in(**{"role": "approver", **who})

    page = client.get(f"/waits/{wait.id}", headers=PAGE).text

    assert words in page and "<textarea" not in page
    pressed = post(client, f"/waits/{wait.id}", {"outcome": "approved"}, page="/inbox")
    assert pressed.status_code == 403 and now_of(wait).votes == ()


def test_an_admin_may_answer_for_others_and_not_for_oneself(ask, sign_in, now_of):
    """Where nobody else is there. Who asked for it stays kept out, whatever their role."""
    first = ask(to=["gone"])
    assert answer(sign_in("olga", role="admin"), first, "approved").status_code == 303

    second = ask(to=["gone"], not_by="requester", requester="olga")
    client = sign_in("olga", role="admin")
    assert post(client, f"/waits/{second.id}", {"outcome": "approved"}, page="/inbox").status_code == 403
    assert now_of(second).status is WaitStatus.OPEN


def test_a_wait_is_delegated_reassigned_and_given_more_time(stage, ask, sign_in, now_of):
    """Each with a reason, which is in the history."""
    wait = ask(to=["ana"], timeout="1d")
    ana, olga = sign_in("ana"), sign_in("olga", role="operator")
    path = f"/waits/{wait.id}"

    assert post(ana, f"{path}/delegate", {"to": "bo", "reason": ""}, page=path).status_code == 422
    assert post(ana, f"{path}/delegate", {"to": "bo", "reason": "on leave"}, page=path).status_code == 303
    assert now_of(wait).to == ("bo",)
    assert post(ana, f"{path}/reassign", {"to": "ana", "reason": "mine"}, page=path).status_code == 403
    assert post(olga, f"{path}/reassign", {"to": "bo, zoe", "reason": "two of you"}, page=path).status_code == 303
    assert now_of(wait).to == ("bo", "zoe")
    before = now_of(wait).timeout_at
    assert post(olga, f"{path}/extend", {"duration": "2d", "reason": "holiday"}, page=path).status_code == 303
    assert (now_of(wait).timeout_at - before).days == 2

    told = olga.get(path, headers=PAGE).text
    for words in ("ana left it to bo: “on leave”", "olga gave it to bo, zoe: “two of you”", "“holiday”"):
        assert words in told


def test_time_running_out_is_told_to_whoever_comes_late(stage, ask, sign_in):
    """And what it then counted as."""
    wait = ask(timeout="1h", on_timeout="rejected")
    client = sign_in("ana")
    page = client.get(f"/waits/{wait.id}", headers=PAGE).text
    for _ in range(3):  # the session is in use meanwhile
        stage.pass_time("20m")
        client.get("/inbox", headers=PAGE)

    late = client.post(
        f"/waits/{wait.id}", data={"csrf_token": token_in(page), "outcome": "approved"}, headers=PAGE
    )  # fmt: skip

    assert late.status_code == 409 and "Time ran out: Rejected" in late.text


def test_secrets_in_what_is_shown_are_hidden(ask, sign_in):
    """In the context, in the payload, however deep."""
    wait = ask(context={"db": {"PASSWORD": "hunter2", "url": "x"}, "items": [{"api_key": "k-1"}], "note": "fine"})

    page = sign_in("ana").get(f"/waits/{wait.id}", headers=PAGE).text

    assert "hunter2" not in page and "k-1" not in page and "••••••" in page and "fine" in page


def test_links_of_a_context_lead_to_the_web_only(ask, sign_in):
    """No scripts in an address."""
    wait = ask(
        context={
            "links": [
                {"title": "good", "url": "https://x.example/"},
                "javascript:alert(1)",
                {"url": "data:text/html,x"},
            ],
            "description": "[bad](javascript:alert(2)) ![img](https://x.example/p.png) <b>raw</b> **bold**",
            "site": "javascript:alert(3)",
        }
    )

    page = sign_in("ana").get(f"/waits/{wait.id}", headers=PAGE).text

    assert 'href="https://x.example/"' in page and "<strong>bold</strong>" in page
    assert 'href="javascript' not in page and 'href="data:' not in page
    assert '<img src="https://x' not in page and "<b>raw" not in page


# -- by a link in a notice --


def follow(client, secret):
    """Open a link: the page it leads to."""
    first = client.get(f"/a/{secret}", headers=PAGE)
    assert first.status_code == 303 and secret not in first.location
    return client.get(first.location, headers=PAGE), first.location


def test_a_link_decides_once_without_a_login(stage, web, ask, now_of):
    """For the one it was sent to; and its secret leaves the address at once."""
    wait = ask(to=["ana"])
    secret = links.issue(stage.axme.runtime, wait.id, "ana")
    client = web.test_client()
    page, path = follow(client, secret)
    assert "You answer as <strong>ana</strong>" in page.text and secret not in page.text

    done = client.post(path, data={"csrf_token": token_in(page.text), "outcome": "approved"}, headers=PAGE)

    assert done.status_code == 303 and now_of(wait).answered_by == "ana"
    assert "Approved by ana" in client.get(done.location, headers=PAGE).text


def test_a_link_is_looked_at_by_scanners_and_nothing_happens(stage, web, ask, now_of):
    """A hundred times, in any way that is no press of its button."""
    wait = ask(to=["ana"])
    secret = links.issue(stage.axme.runtime, wait.id, "ana")
    scanner = web.test_client()
    for _ in range(34):
        scanner.get(f"/a/{secret}", headers=PAGE)
        scanner.head(f"/a/{secret}", headers=PAGE)
        scanner.get(f"/a/wait/{wait.id}?outcome=approved", headers=PAGE)
    assert scanner.post(f"/a/{secret}", data={"outcome": "approved"}, headers=PAGE).status_code == 405
    assert scanner.post(f"/a/wait/{wait.id}", data={"outcome": "approved"}, headers=PAGE).status_code == 403
    assert now_of(wait).status is WaitStatus.OPEN

    client = web.test_client()
    page, path = follow(client, secret)
    fields = {"csrf_token": token_in(page.text), "outcome": "rejected", "comment": "no"}
    assert client.post(path, data=fields, headers=PAGE).status_code == 303


def test_forged_swapped_used_and_taken_links_show_nothing(stage, web, ask, now_of):
    """The same page for all of them."""
    wait, other = ask(to=["ana", "bo"], quorum=2), ask(to=["ana"])
    rt = stage.axme.runtime
    secret = links.issue(rt, wait.id, "ana")
    client = web.test_client()
    page, path = follow(client, secret)
    nothing = client.get("/nothing", headers=PAGE).text

    assert client.get("/a/axa_forged", headers=PAGE).status_code == 404
    assert client.get(f"/a/wait/{other.id}", headers=PAGE).status_code == 404
    fields = {"csrf_token": token_in(page.text), "outcome": "approved"}
    assert client.post(f"/a/wait/{other.id}", data=fields, headers=PAGE).status_code == 404
    assert client.post(path, data=fields, headers=PAGE).status_code == 303
    again = client.post(path, data={**fields, "outcome": "rejected", "comment": "hm"}, headers=PAGE)
    assert again.status_code in (403, 409) and len(now_of(wait).votes) == 1

    taken = links.issue(rt, other.id, "ana")
    stage.axme.reassign(other.id, "zoe", by="olga", reason="gone")
    gone = client.get(f"/a/{taken}", headers=PAGE)
    assert gone.status_code == 404 and gone.text == nothing
