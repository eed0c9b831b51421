"""People in a real browser: they decide, are refused, look on, and come too late; with JavaScript, without it, by keyboard."""

from __future__ import annotations

import pytest

from axme_celery import links

from .conftest import picture, violations
from .house import seed

WIDTHS = (320, 390, 768, 1280)


def wait_of(intent):
    """Its first wait."""
    return intent.waits()[0]


@pytest.fixture
def ask(stage):
    """``ask(title=..., ...)``: a question, asked; its wait."""
    return lambda **options: wait_of(stage.submit(stage.axme.app.tasks["shop.ask"].s(options)))


def press(page, name):
    page.get_by_role("button", name=name).click()


def outcome(page):
    """What the page says came of it, once it does."""
    shown = page.locator("#outcome")
    shown.wait_for()
    return shown.inner_text()


def test_a_person_comes_from_the_inbox_approves_and_is_told(stage, person):
    """Focus lands on the outcome; the work has its answer."""
    intent = stage.submit(stage.axme.app.tasks["shop.refund"].s("A-1029", "129.00 EUR"), requester="kim")
    page = person("ana", groups=("finance",))
    page.goto("/inbox")
    assert page.title() == "(1) Inbox"
    page.get_by_role("link", name="Refund 129.00 EUR").click()
    page.get_by_label("Comment").fill("Photos are convincing.")

    press(page, "Approve")

    assert outcome(page) == "Approved by ana"
    assert page.evaluate("document.activeElement.id") == "outcome"
    assert wait_of(intent).comment == "Photos are convincing."
    page.goto("/inbox")
    assert page.title() == "Inbox" and page.get_by_text("Nothing is asked of you").is_visible()


def test_a_rejection_without_words_comes_back_to_its_field(stage, person, ask):
    """Said at once, tied to the field; with words it goes through."""
    wait = ask(title="Delete the archive?", require_comment="rejected")
    page = person("ana")
    page.goto(f"/waits/{wait.id}")

    press(page, "Reject")

    field = page.get_by_label("Comment")
    assert field.get_attribute("aria-invalid") == "true"
    assert "Say why" in page.locator(f"#{field.get_attribute('aria-describedby')}").inner_text()
    assert violations(page) == []
    field.fill("Not before the audit.")
    press(page, "Reject")
    assert outcome(page) == "Rejected by ana"


def test_a_form_with_errors_keeps_what_was_typed(stage, person):
    """Every error at its field, all at once; then it is sent, and shown as it was filled in."""
    wait = wait_of(stage.submit(stage.axme.app.tasks["shop.expense"].s("ana")))
    page = person("ana")
    page.goto(f"/waits/{wait.id}")
    page.get_by_label("Amount in euro").fill("90000")
    page.get_by_label("Note").fill("Train to Köln")

    press(page, "Submit")

    page.locator("#errors").wait_for()
    assert "must be 5000 or less" in page.locator("#f-amount-error").inner_text()
    assert "is required" in page.locator("#f-category-error").inner_text()
    assert page.get_by_label("Note").input_value() == "Train to Köln"
    assert violations(page) == []
    picture(page, "form-with-errors")
    page.get_by_label("Amount in euro").fill("90")
    page.get_by_label("Category").select_option(label="travel")
    page.get_by_label("Day").fill("2026-10-21")
    page.get_by_label("The client pays for it").check()
    press(page, "Submit")
    assert outcome(page) == "Submitted by ana"
    stage.run()
    assert stage.intent(wait.intent_id).result == {
        "amount": 90, "category": "travel", "day": "2026-10-21", "note": "Train to Köln", "billable": True,
    }  # fmt: skip


def test_changes_are_asked_for(stage, person):
    """Which needs words, and shows the difference it is about."""
    wait = wait_of(stage.submit(stage.axme.app.tasks["shop.release"].s("1.42"), requester="dev-lead"))
    page = person("ana")
    page.goto(f"/waits/{wait.id}")
    assert page.locator(".diff ins").first.inner_text() == "+replicas: 5"
    page.get_by_label("Comment").fill("Turn the flag on later.")

    press(page, "Request changes")

    assert outcome(page) == "Changes requested by ana"


def test_two_must_agree_and_each_sees_the_others_vote_arrive(stage, person):
    """Live, on a page that was open all the while."""
    wait = wait_of(stage.submit(stage.axme.app.tasks["shop.release"].s("1.42"), requester="dev-lead"))
    ana, bo = person("ana"), person("bo")
    for page in (ana, bo):
        page.goto(f"/waits/{wait.id}")

    press(ana, "Approve")
    bo.get_by_text("1 of 2", exact=True).wait_for()
    press(bo, "Approve")

    assert outcome(bo) == "Approved by bo"
    assert outcome(ana) == "Approved by bo"


def test_what_is_decided_in_one_tab_can_be_decided_in_no_other(stage, person, ask):
    """Its buttons go dead by themselves, and what was typed is not lost from sight."""
    wait = ask(title="Ship it?", to=["ana", "bo"])
    ana, bo = person("ana"), person("bo")
    for page in (ana, bo):
        page.goto(f"/waits/{wait.id}")
    bo.get_by_label("Comment").fill("I was about to say no")

    press(ana, "Approve")

    assert outcome(bo) == "Approved by ana"
    bo.get_by_text("This was decided elsewhere").wait_for()
    assert bo.get_by_role("button", name="Reject").is_disabled()
    assert bo.get_by_label("Comment").input_value() == "I was about to say no"


def test_an_answer_in_the_moment_of_the_timeout_is_told_what_won(stage, person, ask):
    """One of the two, and the page says which."""
    wait = ask(title="Now or never?", timeout="1m", on_timeout="rejected")
    page = person("ana")
    page.route("**/live/**", lambda route: route.fulfill(status=503))
    page.goto(f"/waits/{wait.id}")
    stage.pass_time("1m")

    press(page, "Approve")

    assert outcome(page) == "Time ran out: Rejected"
    assert page.get_by_text("was not counted").is_visible()


def test_an_inbox_fills_while_one_looks_on(stage, person, ask):
    """The list and the number in the title, without a reload."""
    from playwright.sync_api import expect

    page = person("ana")
    page.goto("/inbox")
    assert page.get_by_text("Nothing is asked of you").is_visible()

    ask(title="Something new?")

    page.get_by_role("link", name="Something new?").wait_for()
    expect(page).to_have_title("(1) Inbox")


def test_without_a_stream_a_page_looks_every_few_seconds(stage, person, ask):
    """And says that it does."""
    wait = ask(title="Ship it?", to=["ana", "bo"])
    page = person("ana")
    page.route("**/live/intents/*?since=*", lambda route: route.fulfill(status=503, headers={"Retry-After": "60"}))
    page.goto(f"/waits/{wait.id}")
    page.get_by_text("Live updates are off").wait_for()
    page.wait_for_timeout(300)

    stage.answer(wait, "approved", by="bo")

    assert outcome(page) == "Approved by bo"


def test_progress_moves_while_one_looks_on(stage, person):
    """Nobody announces it: the page of running work looks every few seconds."""
    page = person("ana", role="viewer")
    work = stage.axme.submit(stage.axme.app.tasks["shop.export"].s("2026-11"))
    stage.run()
    leg = work.legs()[0]
    stage.axme.runtime.tracker.put_progress(leg.id, 1, 8, "page 1")
    page.goto(f"/intents/{work.id}")
    assert page.locator("progress").get_attribute("value") in ("1", "1.0")
    # Waiting, it is not looked at; it is its status that says so.
    page.evaluate("document.getElementById('wait-state').setAttribute('data-busy', '')")

    stage.axme.runtime.tracker.put_progress(leg.id, 5, 8, "page 5")

    page.locator("progress[value^='5']").wait_for()


def test_everything_works_without_javascript(stage, person, ask):
    """Decide, filter, cancel: forms and links."""
    ask(title="Plain?")
    page = person("ana", role="operator", java_script_enabled=False)
    page.goto("/intents?type=shop.ask")
    page.get_by_role("link", name="shop.ask").click()
    page.get_by_role("link", name="Plain?").click()

    press(page, "Approve")

    assert outcome(page) == "Approved by ana"
    other = ask(title="Other?")
    page.goto(f"/intents/{other.intent_id}")
    page.locator("summary", has_text="Cancel it").click()
    page.get_by_label("Why").first.fill("not needed")
    press(page, "Cancel this intent")
    assert page.get_by_text("Canceled").first.is_visible()


def test_everything_works_by_keyboard_alone(stage, person, ask):
    """Keys move and never press; they can be switched off."""
    ask(title="First?")
    ask(title="Second?")
    page = person("ana")
    page.goto("/inbox")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="First?").wait_for()
    page.keyboard.press("a")
    assert page.evaluate("document.activeElement.value") == "approved"
    assert page.locator("#outcome").count() == 0, "a key alone decides nothing"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "rejected"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert outcome(page) == "Approved by ana"

    page.goto("/inbox")
    press(page, "Turn off keys")
    page.locator("body").click()
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.className") != "title"


def test_the_first_tab_skips_to_the_page_and_approve_has_no_focus(stage, person, ask):
    """Nobody approves by pressing Enter on a page they have just opened."""
    wait = ask(title="Careful?")
    page = person("ana")
    page.goto(f"/waits/{wait.id}")
    assert page.evaluate("document.activeElement.tagName") == "BODY"

    page.keyboard.press("Tab")

    assert page.evaluate("document.activeElement.className") == "skip"


def test_somebody_takes_over_for_somebody_else(stage, person, ask):
    """Delegated with a reason; the page of who left it says so."""
    wait = ask(title="Who?")
    ana, bo = person("ana"), person("bo")
    ana.goto(f"/waits/{wait.id}")
    ana.locator("summary", has_text="Leave it to somebody else").click()
    ana.get_by_label("To", exact=True).fill("bo")
    ana.get_by_label("Why").first.fill("on leave")

    press(ana, "Leave it to them")

    ana.locator(".history").get_by_text("ana left it to bo: “on leave”").first.wait_for()
    assert ana.get_by_text("You left this to somebody else").is_visible()
    bo.goto("/inbox")
    bo.get_by_role("link", name="Who?").click()
    press(bo, "Approve")
    assert outcome(bo) == "Approved by bo"


@pytest.mark.parametrize("scripts", [True, False])
def test_many_are_looked_at_together_and_decided_together(stage, person, ask, scripts):
    """What was ticked stays ticked while the list changes; each is then answered, and said so."""
    waits = [ask(title=f"Pay back B-{n}?", bulk=True, context={"cents": 100 * n}) for n in (1, 2, 3)]
    page = person("ana", java_script_enabled=scripts)
    page.goto("/inbox")
    for title in ("Choose: Pay back B-1?", "Choose: Pay back B-3?"):
        page.get_by_label(title).check()
    if scripts:
        ask(title="Something new?")
        page.get_by_role("link", name="Something new?").wait_for()

    press(page, "Decide on those chosen")
    page.get_by_role("heading", name="Decide on 2 questions at once").wait_for()
    if scripts:
        assert violations(page) == []
    page.get_by_label("Comment").fill("All checked.")
    press(page, "Approve (2)")

    page.get_by_text("2 answered.").wait_for()
    now = [stage.axme.runtime.ledger.wait(wait.id).wait for wait in waits]
    assert [wait.outcome for wait in now] == ["approved", None, "approved"]
    assert {wait.comment for wait in now} == {"All checked.", None}


def test_a_scanner_that_runs_javascript_decides_nothing_and_the_link_still_does(stage, browser, address, ask):
    """It opens the link, lets everything run, scrolls and hovers; it presses nothing."""
    wait = ask(title="Pay 12,000?", to=["ana"])
    secret = links.issue(stage.axme.runtime, wait.id, "ana")
    for _ in range(3):
        scanner = browser.new_context(base_url=address, user_agent="SafeLinks").new_page()
        scanner.goto(f"/a/{secret}")
        scanner.mouse.wheel(0, 2000)
        scanner.get_by_role("button", name="Approve").hover()
        scanner.wait_for_timeout(200)
        scanner.context.close()
    assert stage.axme.runtime.ledger.wait(wait.id).wait.status == "OPEN"

    page = browser.new_context(base_url=address).new_page()
    page.goto(f"/a/{secret}")
    assert secret not in page.url and violations(page) == []
    picture(page, "wait-by-link")
    press(page, "Approve")

    assert outcome(page) == "Approved by ana"
    page.context.close()


# -- every page, for everybody --


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_fits(stage, person, scheme):
    """axe-core finds nothing, nothing overflows from 320 px on, and targets can be hit."""
    paths = seed(stage)
    page = person("ana", role="operator", groups=("finance", "analysts"), color_scheme=scheme)
    found = []
    for name, path in paths.items():
        page.goto(path)
        page.wait_for_load_state("networkidle") if name == "health" else page.wait_for_load_state()
        picture(page, f"{name}-{scheme}")
        found += [(name, each) for each in violations(page)]
    assert found == []
    for name, path in paths.items():
        for width in WIDTHS if scheme == "light" else WIDTHS[:1]:
            page.set_viewport_size({"width": width, "height": 800})
            if width == WIDTHS[0]:
                page.goto(path)
                picture(page, f"{name}-320-{scheme}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (name, width, wide)
        small = page.evaluate(
            "[...document.querySelectorAll('main button')].filter(b => b.offsetParent && b.offsetHeight < 44)"
            ".map(b => b.outerHTML)"
        )
        assert small == [], name


def test_what_axe_is_to_find_it_finds(stage, person):
    """The control: pages that are broken on purpose."""
    page = person("ana")
    page.goto("/inbox")
    assert violations(page) == []

    page.evaluate(
        "document.documentElement.removeAttribute('lang');"
        "document.querySelectorAll('label').forEach(l => l.remove());"
        "document.querySelectorAll('[placeholder]').forEach(i => i.removeAttribute('placeholder'));"
        "document.querySelector('h1').style.color = '#eee'"
    )

    rules = {each.partition(":")[0] for each in violations(page)}
    assert {"html-has-lang", "select-name", "label", "color-contrast"} <= rules
