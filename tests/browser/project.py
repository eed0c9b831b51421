"""A project whose people have things to decide: refunds, an export, expenses, a release, a contract."""

from __future__ import annotations

from typing import Any

from celery import Celery

from axme_celery import Axme, progress, step, wait_for_human, wait_for_tool

EXPENSE = {
    "type": "object",
    "required": ["amount", "category"],
    "properties": {
        "amount": {"type": "integer", "title": "Amount in euro", "minimum": 1, "maximum": 5000},
        "category": {"enum": ["travel", "books", "equipment"], "title": "Category"},
        "day": {"type": "string", "format": "date", "title": "Day"},
        "note": {"type": "string", "format": "textarea", "title": "Note", "description": "For the books."},
        "billable": {"type": "boolean", "title": "The client pays for it"},
    },
}


@step
def look_up_order(order: str) -> dict[str, Any]:
    return {"order": order, "customer": "Kim Osei", "paid": "129.00 EUR", "api_token": "tok_live_9f2"}


@step
def start_export(month: str) -> str:
    return f"job-{month}"


@step
def publish_page(number: int) -> int:
    return number * 1000


def make_app(**config: Any) -> Celery:
    app = Celery("shop", set_as_current=False, broker="amqp://127.0.0.1:1", backend="redis://127.0.0.1:1")
    app.conf.update(**config)
    axme = Axme(app)

    @axme.task(name="shop.refund", shared=False)
    def refund(order: str, amount: str, quorum: int = 1) -> dict[str, Any]:
        found = look_up_order(order)
        decision = wait_for_human(
            f"Refund {amount} to {found['customer']}?",
            to=["ana", "finance"],
            context={
                "description": "The parcel came **damaged**. The customer sent three photos, "
                "and [the courier agrees](https://courier.example/claims/77).",
                "order": order,
                "amount": amount,
                "customer": found["customer"],
                "card": {"number": "•••• 4242", "token": "tok_live_9f2"},
                "links": [{"title": "The order", "url": "https://shop.example/orders/" + order}],
            },
            timeout="2d",
            on_timeout="rejected",
            remind_every="12h",
            escalate_to="head-of-finance",
            quorum=quorum,
            require_comment="rejected",
        )
        return {"refunded": decision.approved, "by": decision.by}

    @axme.task(name="shop.export", shared=False, deadline="5d")
    def export(month: str) -> dict[str, Any]:
        job = start_export(month)
        rows = wait_for_tool("warehouse", job, timeout="4h")
        decision = wait_for_human(
            f"Publish the report of {month}?", to="analysts", context={"rows": rows}, timeout="2d"
        )
        total = 0
        for page in range(1, 9):
            total += publish_page(page)
            progress(page, 8, f"page {page}")
        return {"published": decision.approved, "rows": total}

    @axme.task(name="shop.expense", shared=False)
    def expense(who: str) -> Any:
        return wait_for_human("File your expenses for October", to=[who], type="form", form=EXPENSE, timeout="7d").data

    @axme.task(name="shop.release", shared=False)
    def release(version: str) -> str:
        return wait_for_human(
            f"Release {version} to production?", to=["ana", "bo", "release-managers"], type="review", quorum=2,
            not_by="requester", timeout="6h",
            context={
                "before": "replicas: 3\nimage: shop:1.41\nflags:\n  new_checkout: off\n",
                "after": "replicas: 5\nimage: shop:1.42\nflags:\n  new_checkout: on\n",
            },
        ).outcome  # fmt: skip

    @axme.task(name="shop.contract", shared=False)
    def contract(partner: str) -> str:
        return wait_for_human(
            f"Confirm the contract with {partner}", to="ana", type="confirmation", timeout="1h"
        ).outcome

    @axme.task(name="shop.sync", shared=False, max_attempts=1)
    def sync(shelf: str) -> None:
        look_up_order(shelf)
        raise ConnectionError(f"the warehouse does not answer about shelf {shelf}")

    @axme.task(name="shop.ask", shared=False)
    def ask(options: dict[str, Any]) -> Any:
        decision = wait_for_human(**{"title": "Well?", "to": "ana", **options})
        return {"outcome": decision.outcome, "by": decision.by, "comment": decision.comment, "data": decision.data}

    return app
