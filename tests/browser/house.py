"""A house with something on every page."""

from __future__ import annotations

from axme_celery import subscriptions
from axme_celery.testing import Stage


def seed(stage: Stage) -> dict[str, str]:
    """Intents of a day and a half. The pages worth a look: name -> path."""
    tasks = stage.axme.app.tasks
    done = stage.submit(
        tasks["shop.refund"].s("A-1000", "12.00 EUR"), requester="kim", key="refund-A-1000", tags=["refunds"]
    )
    stage.pass_time("3h")
    stage.answer(done.id, "approved", by="ana", comment="Fine.")
    export = stage.submit(
        tasks["shop.export"].s("2026-10"), key="export-2026-10", tags=["monthly", "reports"], requester="ana"
    )
    stage.pass_time("40m")
    stage.complete_tool("warehouse", "job-2026-10", result={"rows": 4121})
    stage.pass_time("26h")
    refund = stage.submit(
        tasks["shop.refund"].s("A-1029", "129.00 EUR"), requester="kim", key="refund-A-1029", tags=["refunds"]
    )
    expense = stage.submit(tasks["shop.expense"].s("ana"))
    release = stage.submit(tasks["shop.release"].s("1.42"), requester="dev-lead")
    stage.answer(release.id, "approved", by="bo", comment="Canary looked good for a day.")
    stage.submit(tasks["shop.contract"].s("Nordwind GmbH"))
    for shelf in range(4):
        stage.submit(tasks["shop.sync"].s(f"B-{shelf}"))
    quick = stage.submit(tasks["shop.refund"].s("A-1030", "8.00 EUR"), requester="lee", tags=["refunds"])
    stage.pass_time("50m")
    stage.answer(quick.id, "rejected", by="ana", comment="Out of warranty.")
    many = [
        stage.submit(
            tasks["shop.ask"].s(
                {"title": f"Pay back order B-{n}?", "to": "finance", "bulk": True, "context": {"cents": 500 * n}}
            ),
            requester="lee",
        ).waits()[0].id
        for n in (1, 2, 3)
    ]  # fmt: skip
    subscriptions.subscribe(stage.axme.runtime, "https://crm.example/hooks", ["intent.*"])
    waits = {name: intent.waits()[0].id for name, intent in
             {"refund": refund, "expense": expense, "release": release, "done": done}.items()}  # fmt: skip
    return {
        "inbox": "/inbox",
        "many": f"/inbox/many?wait={'&wait='.join(many)}",
        "intents": "/intents",
        "intent": f"/intents/{export.id}",
        "intent-done": f"/intents/{done.id}",
        **{f"wait-{name}": f"/waits/{wait_id}" for name, wait_id in waits.items()},
        "dead-letters": "/dead-letters",
        "deliveries": "/deliveries",
        "webhooks": "/webhooks",
        "health": "/overview",
        "sign-in": "/sign-in",
        "not-found": "/nothing",
    }
