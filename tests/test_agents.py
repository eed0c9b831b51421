"""Agents outside Celery: mailboxes, leases, what they answer, and tasks bound to addresses and types."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pytest

from axme_celery import (
    AgentFailed,
    BadInput,
    HandledByQueue,
    IntentEnded,
    StaleGeneration,
    current_intent,
    wait_for_agent,
    wait_for_human,
)
from axme_celery import agents as verbs
from axme_celery.audit import verify
from axme_celery.begin import Gate, Submission
from axme_celery.lifecycle import GATE
from axme_celery.model import LegStatus, Status, WaitStatus
from axme_celery.parties import Addressed, Policy, address, policy
from axme_celery.submit import submit
from axme_celery.subscriptions import subscription_of_url

BOT = "agent://acme/ops/bot"


@pytest.fixture
def rt(stage, axme):
    return axme.runtime


@pytest.fixture
def send(stage, axme):
    """``send(payload, **details)``: an intent for the agent, lying in its mailbox."""
    return lambda payload=None, to=BOT, **details: stage.submit(to, payload=payload, **details)


@pytest.fixture
def listen(rt):
    """``listen(since)``: take what lies in the agent's mailbox, as a listener does."""

    def listening(since=0, *, agent=BOT, by="bot-1", **details):
        verbs.listening(rt, agent, None)
        handed, _ = verbs.take(rt, agent, since=since, by=by, **details)
        return handed

    return listening


def told(stage, intent):
    return [event.type.removeprefix("intent.") for event in stage.history(intent)]


# -- addresses -------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["agent://acme/ops/bot", "acme/ops/bot", "acme/ops/bot/"])
def test_an_address_has_one_form(given):
    """With or without its scheme it is the same agent."""
    assert address(given) == BOT


@pytest.mark.parametrize("given", ["bot", "acme/bot", "acme/ops/bot"])
def test_addresses_of_one_two_and_three_parts_are_taken(given):
    """Published clients use all three."""
    assert address(given) == f"agent://{given}"


@pytest.mark.parametrize(
    "given", ["", "agent://", "a b", "a//b", "a/\0", "../x", "é", "x" * 400, None, 3, "http://x/y"]
)
def test_what_is_no_address_is_refused(given):
    """Before anything is stored under it."""
    with pytest.raises(BadInput, match="agent's address"):
        address(given)


# -- the mailbox -----------------------------------------------------------------------


def test_an_intent_for_an_agent_lies_in_its_mailbox_until_it_listens(stage, send, listen):
    """However long that takes, and no worker touches it."""
    intent = send({"n": 1})
    stage.pass_time("3d")
    assert stage.intent(intent.id).status is Status.SUBMITTED

    (handed,) = listen()

    assert (handed.offer.seq, handed.intent.id, handed.leg.attempts) == (1, intent.id, 1)
    assert intent.refresh().status is Status.DELIVERED
    assert told(stage, intent) == ["created", "submitted", "delivered"]
    assert stage.history(intent)[-1].details == {"handler": BOT, "delivery_attempt": 1, "run": 1}


def test_numbers_are_the_agents_own_and_rise(stage, send, listen):
    """A listener resumes from the last number it saw, whatever intent that was of."""
    for _ in range(3):
        send()
    send(to="agent://acme/other")

    assert [one.offer.seq for one in listen(limit=2)] == [1, 2]
    assert [one.offer.seq for one in listen(since=2)] == [3]
    assert listen(since=3) == []


def test_what_one_listener_took_no_other_gets(stage, send, listen):
    """While its lease lasts."""
    send()
    assert len(listen(by="one")) == 1
    assert listen(by="two") == []


def test_leases_that_very_many_listeners_let_lapse_are_not_all_one_sweeps(stage, rt, send, listen, monkeypatch):
    """A sweep that is out of time leaves the rest to the next."""
    monkeypatch.setattr(verbs, "BATCH", 2)
    intents = [send(n) for n in range(5)]
    assert len(listen()) == 5
    stage._now += timedelta(seconds=verbs.LEASE_SECONDS + 1)

    assert [verbs.lapsed_leases(rt, ends_at) for ends_at in (0.0, 0.0, 0.0, 0.0)] == [2, 2, 1, 0]
    assert {intent.legs()[0].status for intent in intents} == {LegStatus.QUEUED}


def test_a_lease_of_an_agent_that_cannot_be_taken_back_keeps_no_other_from_it(stage, rt, send, listen, monkeypatch, caplog):
    """Both fell silent at once."""
    poison, other = send(1), send(2)
    assert len(listen()) == 2
    whole = verbs._lapse

    def broken(rt, lease):
        if lease.leg_id == poison.legs()[0].id:
            raise TypeError("what nobody has thought of")
        return whole(rt, lease)

    monkeypatch.setattr(verbs, "_lapse", broken)
    stage._now += timedelta(seconds=verbs.LEASE_SECONDS + 1)

    assert verbs.lapsed_leases(rt) == 1

    assert [intent.legs()[0].status for intent in (poison, other)] == [LegStatus.RUNNING, LegStatus.QUEUED]
    assert poison.legs()[0].id in caplog.text


def test_an_intent_whose_agent_fell_silent_goes_to_the_next_listener(stage, send, listen):
    """Under a number that every listener has yet to see."""
    intent = send()
    (first,) = listen(lease_seconds=60)
    stage.pass_time("59s")
    assert listen(by="two") == []

    stage.pass_time("2s")
    (second,) = listen(since=first.offer.seq, by="two")

    assert (second.offer.seq, second.leg.run, second.leg.attempts) == (2, 2, 2)
    assert told(stage, intent) == ["created", "submitted", "delivered", "leg_lost", "handed_out"]


def test_an_agent_that_renews_its_lease_keeps_the_intent(stage, rt, send, listen):
    """As long as it does; the lease is never shortened."""
    intent = send()
    listen(lease_seconds=60)
    for _ in range(5):
        stage.pass_time("50s")
        verbs.renew(rt, intent.id, by="bot-1", lease_seconds=60)
    verbs.renew(rt, intent.id, by="bot-1", lease_seconds=1, acknowledge=True)
    stage.pass_time("50s")

    assert listen(by="two") == []
    assert told(stage, intent)[-1] == "acknowledged"


def test_an_agent_that_finishes_one_keeps_the_others(stage, rt, send, listen):
    """It is alive: what waits in its hands is not taken from it, however long each takes."""
    made = [send() for _ in range(5)]
    handed = listen(lease_seconds=60)
    assert len(handed) == 5
    for intent in made:
        stage.pass_time("50s")
        assert listen(by="two") == []
        assert len(verbs.in_hand(rt, handed)) == 5 - made.index(intent)
        verbs.complete(rt, intent.id, result={}, by="bot", holder="bot-1")
    assert verbs.in_hand(rt, handed) == []


def test_what_is_not_for_a_listener_hides_nothing_from_it(stage, rt, listen):
    """However much of it lies before its own."""
    read = stage.axme.read_work
    submit(rt, [Submission(work=read(BOT), owner="other") for _ in range(7)])
    submit(rt, [Submission(work=read(BOT), owner="acme")])
    stage.run()
    assert len(listen(owner="acme", limit=2)) == 1


def test_an_intent_nobody_finishes_fails_after_its_tries(stage, rt, listen):
    """A dead letter with the reason, not an endless loop."""
    read = stage.axme.read_work(Addressed(BOT, {}, max_attempts=2))
    (made,) = submit(rt, [Submission(work=read)])
    stage.run()
    for _ in range(2):
        assert len(listen()) == 1
        stage.pass_time("61s")

    intent = stage.intent(made.id)
    assert (intent.status, intent.error["code"]) == (Status.FAILED, "delivery_failed")
    assert told(stage, intent)[-1] == "delivery_failed"
    assert [letter.code for letter in stage.dead_letters()] == ["delivery_failed"]
    assert listen() == []


def test_an_intent_given_back_before_it_began_is_had_at_once(stage, rt, send, listen):
    """A listener whose connection broke costs no time and no attempt; one that has begun keeps it."""
    intent = send()
    (first,) = listen()
    assert verbs.give_back(rt, first, "its connection ended")
    assert not verbs.give_back(rt, first, "again")
    stage.run()

    (second,) = listen(since=first.offer.seq)
    assert second.leg.attempts == 1
    verbs.begin(rt, intent.id, by="bot-1")
    assert not verbs.give_back(rt, second, "its connection ended")


def test_a_mailbox_survives_lost_trackers_and_messages(stage, send, listen):
    """It is in the ledger: the relay's part done twice puts nothing there twice."""
    send()
    stage.axme.runtime.tracker.clear()
    stage.pass_time("1h")
    assert [one.offer.seq for one in listen()] == [1]


def test_a_listener_may_ask_for_certain_statuses_only(stage, send, listen):
    """What it is about to be counts too."""
    send()
    assert listen(statuses=["WAITING", "COMPLETED"]) == []
    assert len(listen(statuses=["DELIVERED"])) == 1


def test_a_listener_sees_the_intents_of_its_owner_only(stage, rt, listen):
    """Others are not there for it."""
    read = stage.axme.read_work(BOT)
    submit(rt, [Submission(work=read, owner="acme")])
    stage.run()
    assert listen(owner="other") == []
    assert len(listen(owner="acme")) == 1


def test_a_suspended_agent_is_handed_nothing(stage, rt, send, listen):
    """Until it is active again; then it finds all."""
    send()
    verbs.register(rt, BOT, owner=None, status="suspended")
    assert listen() == []
    verbs.register(rt, BOT, owner=None, status="active")
    assert len(listen()) == 1


# -- what agents answer ------------------------------------------------------------------


def test_an_agent_completes_its_intent(stage, rt, send, listen):
    """From whatever open status, and its log is one the lifecycle knows."""
    intent = send()
    listen()

    verbs.complete(rt, intent.id, result={"rows": 3}, by=BOT)

    assert (intent.refresh().status, intent.result) == (Status.COMPLETED, {"rows": 3})
    assert told(stage, intent) == ["created", "submitted", "delivered", "in_progress", "completed"]
    assert intent.legs()[0].status is LegStatus.DONE
    assert verify(stage.intent(intent.id)._record, stage.history(intent), None) is None
    with pytest.raises(IntentEnded):
        verbs.complete(rt, intent.id, result=None, by=BOT)


def test_an_intent_nobody_took_can_be_completed_too(stage, rt, send):
    """Whoever knows the outcome may say so."""
    intent = send()
    verbs.complete(rt, intent.id, result={}, by="ana")
    assert told(stage, intent) == ["created", "submitted", "in_progress", "completed"]


def test_an_agent_fails_its_intent(stage, rt, send, listen):
    """With its own error, kept as a dead letter."""
    intent = send()
    listen()
    verbs.complete(rt, intent.id, error={"code": "no_disk", "message": "full"}, by=BOT)
    assert (intent.refresh().status, intent.error["code"]) == (Status.FAILED, "no_disk")
    assert [letter.code for letter in stage.dead_letters()] == ["no_disk"]


def test_what_an_agent_says_of_its_failure_is_told_as_plain_json(stage, rt, axme, send):
    """Amounts and dates as their texts, to whoever reads the history."""
    intent = send()
    axme.complete_agent(intent.id, error={"amount": Decimal("1.50"), "at": date(2026, 10, 5)}, by=BOT)
    assert intent.refresh().error == {
        "code": "agent_failed", "message": "failed", "amount": "1.50", "at": "2026-10-05"
    }  # fmt: skip
    assert verify(rt.ledger.intent(intent.id), stage.history(intent), None) is None


def test_what_celery_tasks_run_nobody_outside_completes(stage, rt, axme):
    """But it can be failed: that stops them."""

    @axme.task
    def asking():
        return wait_for_human("Go on?", to="ana").outcome

    intent = stage.submit(asking.s())
    with pytest.raises(HandledByQueue):
        verbs.complete(rt, intent.id, result={}, by="ana")

    verbs.complete(rt, intent.id, error={"code": "stop", "message": "no need"}, by="ana")
    stage.run()
    assert intent.refresh().status is Status.FAILED
    assert stage.waits(intent)[0].status is WaitStatus.CANCELED


def test_a_late_agent_and_the_next_one_do_not_both_win(stage, rt, send, listen):
    """The first answer ends it, whoever's lease it was."""
    intent = send()
    listen(by="one", lease_seconds=10)
    stage.pass_time("11s")
    listen(by="two")
    verbs.complete(rt, intent.id, result="one's", by="one")
    with pytest.raises(IntentEnded):
        verbs.complete(rt, intent.id, result="two's", by="two")
    assert intent.refresh().result == "one's"


def test_a_canceled_intent_lies_in_no_mailbox(stage, send, listen):
    """Nobody is handed what nobody wants."""
    send().cancel("not needed")
    assert listen() == []


def test_an_intent_is_handed_on_to_another_agent(stage, rt, send, listen):
    """From its beginning, with its tries anew."""
    intent = send()
    listen()
    other = "agent://acme/ops/other"

    verbs.transfer(rt, intent.id, to=other, by="ana", reason="knows more")
    stage.run()

    assert listen(by="again") == []
    (handed,) = listen(agent=other)
    assert (handed.intent.handler, handed.intent.to_agent, handed.leg.attempts) == (other, BOT, 1)
    event = next(e for e in stage.history(intent) if e.type == "intent.transfer")
    assert (event.details["next_handler"], event.details["reason"], event.actor) == (other, "knows more", "ana")
    with pytest.raises(BadInput, match="agent's address"):
        verbs.transfer(rt, intent.id, to="not an address", by="ana")


def test_terms_change_by_generations(stage, rt, send):
    """Who decided on old ones is told, and changes nothing."""
    intent = send()
    for n in range(2):
        changed = verbs.change_terms(
            rt,
            intent.id,
            event="intent.controls_changed",
            patch={"controls": {"n": n}},
            by="ana",
            reason=None,
            expected=n,
        )
        assert verbs.generation(changed) == n + 1
    with pytest.raises(StaleGeneration, match="generation 2, not 1"):
        verbs.change_terms(
            rt,
            intent.id,
            event="intent.controls_changed",
            patch={"controls": {"n": 9}},
            by="x",
            reason=None,
            expected=1,
        )
    assert stage.intent(intent.id)._record.terms["controls"] == {"n": 1}


# -- a human task first -------------------------------------------------------------------


@pytest.fixture
def gated(stage, rt):
    """``gated(**request)``: an intent for the agent that a person must say yes to first."""

    def make(**request):
        request = {
            "outcomes": ["approved", "rejected"], "task_type": "approval", "quorum": 1, "timeout_seconds": 3600, **request
        }  # fmt: skip
        gate = Gate(title="Ship it?", to=("ana",), request=request)
        (made,) = submit(rt, [Submission(work=stage.axme.read_work(BOT), gate=gate)])
        stage.run()
        return stage.intent(made.id)

    return make


def test_nobody_is_handed_what_a_person_has_yet_to_allow(stage, gated, listen):
    """It waits for the person; after their yes it lies in the mailbox."""
    intent = gated()
    assert (intent.status, intent.waiting_reason) == (Status.WAITING, "WAITING_FOR_HUMAN")
    assert [wait.name for wait in stage.inbox("ana")] == [GATE]
    assert listen() == []

    stage.answer(intent.id, "approved", by="ana")

    assert len(listen()) == 1
    assert told(stage, intent) == [
        "created", "submitted", "waiting", "human_task_assigned", "in_progress", "handed_out",
    ]  # fmt: skip


def test_a_no_ends_it(stage, gated, listen):
    """As rejected, saying by whom."""
    intent = gated()
    stage.answer(intent.id, "rejected", by="ana", comment="not yet")
    assert (intent.refresh().status, intent.error["code"], intent.error["comment"]) == (
        Status.FAILED, "rejected", "not yet",
    )  # fmt: skip
    assert listen() == []
    assert verify(stage.intent(intent.id)._record, stage.history(intent), None) is None


def test_no_answer_in_time_ends_it(stage, gated):
    """As a wait that timed out."""
    intent = gated()
    stage.pass_time("2h")
    assert (intent.refresh().status, intent.error["code"]) == (Status.FAILED, "wait_timeout")


def test_where_nobody_else_was_asked_the_answer_is_the_result(stage, gated):
    """A question to a person and nothing more."""
    intent = gated(then="complete")
    stage.answer(intent.id, "approved", by="ana", comment="fine", data={"n": 1})
    assert (intent.refresh().status, intent.result) == (
        Status.COMPLETED, {"outcome": "approved", "by": "ana", "comment": "fine", "data": {"n": 1}},
    )  # fmt: skip


def test_a_bound_task_runs_after_the_yes(stage, rt, axme):
    """And its code never asked for that wait, which is no drift."""

    @axme.agent(BOT)
    @axme.task
    def work(payload):
        return wait_for_human("And now?", to="ben").outcome

    gate = Gate(title="Ship it?", to=("ana",), request={"outcomes": ["approved", "rejected"]})
    (made,) = submit(rt, [Submission(work=axme.read_work(Addressed(BOT, {})), gate=gate)])
    stage.run()
    stage.answer(made.id, "approved", by="ana")
    intent = stage.answer(made.id, "approved", by="ben")
    assert (intent.status, intent.result) == (Status.COMPLETED, "approved")


# -- from Python -----------------------------------------------------------------------------


def test_a_task_waits_for_an_agent_outside(stage, rt, axme, listen):
    """As a child intent, handed to whoever listens there; its result is the wait's."""

    @axme.task
    def asking():
        return wait_for_agent(BOT, {"question": 1}, timeout="1h")

    parent = stage.submit(asking.s())
    (handed,) = listen()
    assert handed.intent.payload == '{"question":1}'
    verbs.complete(rt, handed.intent.id, result={"answer": 42}, by=BOT)
    stage.run()

    assert parent.refresh().result == {"answer": 42}


def test_an_agent_that_fails_raises_in_the_task_that_waits(stage, rt, axme, listen):
    """With the agent's own error."""

    @axme.task
    def asking():
        try:
            return wait_for_agent(BOT)
        except AgentFailed as failed:
            return failed.error["code"]

    parent = stage.submit(asking.s())
    (handed,) = listen()
    verbs.complete(rt, handed.intent.id, error={"code": "no_disk", "message": "full"}, by=BOT)
    stage.run()
    assert parent.refresh().result == "no_disk"


def test_a_task_bound_to_an_address_runs_what_is_sent_there(stage, axme):
    """With the payload as its one argument."""

    @axme.agent("acme/ops/bot")
    @axme.task
    def export(payload):
        return {"rows": payload["n"], "type": current_intent().type}

    intent = stage.submit(BOT, payload={"n": 3}, type="intent.export.v1")
    assert intent.result == {"rows": 3, "type": "intent.export.v1"}


def test_a_task_bound_to_a_type_runs_it_whoever_it_is_for(stage, axme):
    """Ordinary tasks can be bound as well."""

    @axme.handles("intent.analytics.export.v1")
    @axme.app.task(shared=False, name="export")
    def export(payload):
        return payload

    assert stage.submit("agent://anybody", payload={"n": 1}, type="intent.analytics.export.v1").result == {"n": 1}


def test_what_cannot_be_bound_is_refused(axme):
    """Where it is written, not when it is sent."""
    with pytest.raises(BadInput, match=r"intent\.analytics"):
        axme.handles("Export")
    with pytest.raises(BadInput, match="no Celery task"):
        axme.agent(BOT)(lambda payload: None)

    def work(payload):
        return payload

    bound = axme.agent(BOT)(axme.task(name="one")(work))
    axme.agent(BOT)(bound)
    with pytest.raises(BadInput, match="already"):
        axme.agent(BOT)(axme.task(name="two")(work))


# -- who may send to whom ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "entries", "allowed"),
    [
        ("open", (), True),
        ("closed", (BOT,), False),
        ("allowlist", ("agent://acme/*",), True),
        ("allowlist", ("agent://other/*",), False),
        ("denylist", ("agent://acme/*",), False),
        ("denylist", (), True),
    ],
)
def test_policies(mode, entries, allowed):
    """By address or pattern."""
    assert policy(mode, entries).allows(BOT) is allowed


def test_a_policy_is_asked_on_both_sides(rt, stage):
    """The sender's and the receiver's; what is unknown is open."""
    one, two = "agent://acme/one", "agent://acme/two"
    assert verbs.refusal(rt, one, two) is None
    verbs.register(rt, one, owner=None, send=Policy("denylist", (two,)))
    assert verbs.refusal(rt, one, two) == "policy_denied"
    verbs.register(rt, two, owner=None, receive=Policy("allowlist", ("agent://other/*",)))
    assert verbs.refusal(rt, "agent://acme/three", two) == "sender_not_in_receive_allowlist"
    verbs.register(rt, two, owner=None, receive=Policy("closed"))
    assert verbs.refusal(rt, None, two) == "receiver_agent_closed"


def test_agents_are_listed_by_owner_and_found_by_name(rt, stage):
    """A bare name is enough where it is one agent's."""
    verbs.register(rt, "agent://acme/ops/bot", owner="acme", display_name="Bot")
    verbs.register(rt, "agent://other/bot", owner="other")
    box = rt.ledger.mailboxes
    assert [a.address for a in box.agents("acme", "", None, 10)] == ["agent://acme/ops/bot"]
    assert len(box.agents(None, "agent://", None, 10)) == 2
    assert box.named("acme", "bot") == ["agent://acme/ops/bot"]
    assert replace(box.agent(BOT), updated_at=None).display_name == "Bot"


def test_a_request_is_answered_once_and_remembered(rt, stage):
    """Under its key: who comes second is told what is known; who died is taken over from."""
    exchange, now = rt.ledger.exchange, rt.ledger.now()
    later = now + timedelta(seconds=30)
    assert exchange.begin("r", "h", now, later) is None
    assert exchange.begin("r", "h", now, later).status is None
    assert exchange.begin("r", "h", later, later + timedelta(seconds=30)) is None
    exchange.finish("r", 200, "{}")
    assert (exchange.begin("r", "x", later, later).body_hash, exchange.begin("r", "x", later, later).answer) == (
        "h",
        "{}",
    )
    exchange.begin("s", "h", now, later)
    exchange.drop("s")
    assert exchange.begin("s", "other", now, later) is None
    assert exchange.forget(now + timedelta(days=3)) == 2


# -- push ---------------------------------------------------------------------------------------


def test_an_agent_that_is_called_is_told_of_each_intent_once(stage, rt, send):
    """Signed, with the intent's id; and again, should nobody begin it in time."""
    url = "https://bot.example/hook"
    verbs.register(rt, BOT, owner=None, delivery_mode="http", callback_url=url)
    intent = send({"n": 1})
    stage.axme.runtime.tracker.clear()
    stage.pass_time("1m")

    ((to, body, headers),) = stage.webhooks
    told = json.loads(body)
    assert (to, told["intent_id"], told["type"], told["data"]["payload"]) == (
        url,
        intent.id,
        "intent.delivered",
        {"n": 1},
    )
    secret = subscription_of_url(rt, url).secret
    signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert headers["X-Axme-Signature"] == f"sha256={signed}"

    stage.pass_time("21m")
    assert len(stage.webhooks) == 2
    verbs.complete(rt, intent.id, result={}, by=BOT)
    stage.pass_time("3h")
    assert len(stage.webhooks) == 2


def test_an_agent_is_called_only_where_it_may_be(rt, stage):
    """By https, at an address that is one."""
    with pytest.raises(BadInput):
        verbs.register(rt, BOT, owner=None, callback_url="ftp://bot.example/hook")


# -- in pipelines -----------------------------------------------------------------------------------


def test_an_agent_is_a_node_of_a_pipeline(stage, rt, axme, listen):
    """It is given the result before it, and what it answers goes on."""

    @axme.app.task(shared=False, name="double")
    def double(number):
        return number * 2

    @axme.app.task(shared=False, name="plus_one")
    def plus_one(answer):
        return answer["n"] + 1

    intent = stage.submit(double.s(4) | wait_for_agent.s(BOT) | plus_one.s())
    assert (intent.status, intent.waiting_reason) == (Status.WAITING, "WAITING_FOR_AGENT")
    (handed,) = listen()
    assert handed.intent.payload == '{"input":8}'
    verbs.complete(rt, handed.intent.id, result={"n": 20}, by=BOT)
    stage.run()
    assert intent.refresh().result == 21


def test_an_agent_that_fails_fails_its_pipeline(stage, rt, axme, listen):
    """With its error."""

    @axme.app.task(shared=False, name="double")
    def double(number):
        return number * 2

    intent = stage.submit(double.s(4) | wait_for_agent.s(BOT, {"asked": "outright"}))
    (handed,) = listen()
    assert handed.intent.payload == '{"asked":"outright"}'
    verbs.complete(rt, handed.intent.id, error={"code": "no_disk", "message": "full"}, by=BOT)
    stage.run()
    assert (intent.refresh().status, intent.error["code"]) == (Status.FAILED, "agent_failed")


def test_an_agents_place_is_none_of_the_hosts_that_work_here(stage, send, listen):
    """The doctor looks at workers only."""
    send()
    assert len(listen()) == 1
    assert stage.axme.runtime.ledger.health().hosts == ()


def test_an_agent_that_is_python_code_answers_without_http(stage, axme, send):
    """With a result, or an error in words; and it can be handed on."""
    assert stage.complete_agent(send().id, {"n": 1}).result == {"n": 1}
    failed = stage.complete_agent(send().id, error="no disk", by="bot")
    assert (failed.status, failed.error) == (Status.FAILED, {"code": "agent_failed", "message": "no disk"})
    with pytest.raises(BadInput, match="not both"):
        axme.complete_agent(send().id, 1, "x", by="bot")
    moved = axme.transfer(send().id, "agent://acme/other", by="ana")
    assert moved._record.handler == "agent://acme/other"
