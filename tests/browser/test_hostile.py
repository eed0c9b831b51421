"""Hostile text in every field that is ever shown: no script of it runs, and none of it becomes markup."""

from __future__ import annotations

from urllib.parse import quote

from axme_celery import keys

from .conftest import violations

POLYGLOTS = (
    "<script>hit()</script>",
    "<img src=x onerror=hit()>",
    '"><svg/onload=hit()>',
    "'\"--></style></script></title></textarea><script>hit()</script>",
    "<iframe srcdoc='<script>parent.hit()</script>'>",
    "javascript:hit()//",
    "{{7*7}}{%print(1)%}${7*7}<%=7*7%>",
    "<a href=javascript:hit()>x</a>",
    '<math><mi//xlink:href="data:x,<script>hit()</script>">',
    "jaVasCript:/*-/*`/*\\`/*'/*\"/**/(/* */oNcliCk=hit() )//%0D%0A//</stYle/</titLe/</teXtarEa/</scRipt/--!>"
    "<sVg/<sVg/oNloAd=hit()//>",
    '[x](javascript:hit()) ![y](x" onerror="hit())',
    "&lt;script&gt;hit()&lt;/script&gt;&#60;script&#62;",
)
HOOK = "window.hits = 0; window.hit = () => { window.hits += 1; }; window.alert = window.hit;"


def test_no_hostile_text_does_anything_on_any_page(stage, person, address):
    """As title, context, form, answer, comment, reason, tag, key, name, error, step and filter."""
    tasks, pages, everything = stage.axme.app.tasks, [], " ".join(POLYGLOTS)
    rt = stage.axme.runtime
    page = person(POLYGLOTS[2], role="admin", groups=(POLYGLOTS[1],))
    page.context.add_init_script(HOOK)
    for n, text in enumerate(POLYGLOTS):
        form = {
            "type": "object", "title": text, "required": [text],
            "properties": {
                text: {"type": "string", "title": text, "description": text, "default": text},
                "pick": {"enum": [text, "b"], "title": text}, "many": {"type": "array", "items": {"enum": [text]}},
                "group": {"type": "object", "title": text, "properties": {text: {"type": "boolean", "title": text}}},
            },
        }  # fmt: skip
        context = {
            text: text, "description": text + "\n\n" + everything, "links": [{"title": text, "url": text}, text],
            "before": text, "after": everything, "deep": {text: [text, {text: text}]}, "long": everything * 5,
        }  # fmt: skip
        asked = {
            "title": text[:255], "to": ["ana", "finance"], "context": context, "form": form, "timeout": "1d",
            "remind_every": "1h", "escalate_to": "ben", "quorum": 2,
        }  # fmt: skip
        intent = stage.submit(
            tasks["shop.ask"].s(asked), key=f"{text}{n}"[:255], tags=[text[:128]], requester=text, correlation_id=text
        )
        assert intent.waits(), (text, intent.error)
        wait = intent.waits()[0]
        stage.answer(wait, "approved", by=text[:255], comment=everything, data={text: text, "pick": text})
        stage.axme.delegate(wait.id, "zoe", by="ana", reason=text)
        many = stage.submit(
            tasks["shop.ask"].s({"title": text[:255], "to": "finance", "context": context, "bulk": True}), requester=text
        ).waits()[0]  # fmt: skip
        stage.axme.delegate(many.id, "zoe", by="finance", reason=text)
        failed = stage.submit(tasks["shop.sync"].s(text), requester=text)
        stage.axme.reassign(wait.id, ["kim", "finance"], by=text, reason=text)
        pages += [f"/waits/{wait.id}", f"/intents/{intent.id}", f"/intents/{failed.id}"]
        pages += [f"/waits/{many.id}", f"/inbox/many?wait={many.id}&wait={wait.id}"]
        pages += [f"/intents?find={quote(text)}&type={quote(text)}&tag={quote(text)}", f"/inbox?type={quote(text)}"]
        pages += [f"/dead-letters?code={quote(text)}&state={quote(text)}"]
        pages += [f"/sign-in?next={quote(text)}&link=axl_{quote(text)}"]
    stage.pass_time("5h")
    keys.create(rt, name=everything[:200], role="viewer")
    pages += ["/inbox?whose=all", "/intents", "/dead-letters", "/deliveries", "/overview"]

    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for path in pages:
        page.goto(path)
        hits = page.evaluate("window.hits")
        assert hits == 0, path
        leads = page.evaluate("[...document.querySelectorAll('a, form')].map(e => e.href || e.action)")
        assert all(each.startswith((address, "http", "mailto:")) for each in leads if isinstance(each, str)), (
            path,
            leads,
        )
        strange = page.evaluate(
            "document.querySelectorAll('main script, main iframe, main math, main img, [onerror], [onload]').length"
        )
        assert strange == 0, path
        assert "49" not in page.title()
    assert dialogs == []
    page.goto(pages[0])
    assert violations(page) == []


def test_a_script_that_runs_would_be_noticed(person):
    """The control."""
    page = person("ana")
    page.context.add_init_script(HOOK)
    page.goto("/inbox")

    page.evaluate("window.hit()")

    assert page.evaluate("window.hits") == 1


def test_a_page_runs_no_inline_script_even_if_one_got_in(person):
    """The policy is the second wall."""
    page = person("ana")
    page.context.add_init_script(HOOK)
    page.goto("/inbox")
    page.evaluate("window.hits = 0")
    page.evaluate(
        "const s = document.createElement('div'); s.innerHTML = '<img src=/static/mark.svg onload=hit()>';"
        "document.body.append(s)"
    )
    page.locator("img[onload]").evaluate("image => image.decode()")

    assert page.evaluate("window.hits") == 0
    assert [error for error in person.errors if "Content Security Policy" in error]
    person.errors.clear()
