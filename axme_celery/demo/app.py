"""The demo's Celery app: one task that asks a warehouse, exports 50 pages, asks a person, and publishes.

Read it as an example. It is an ordinary app with ``Axme(app)`` added; nothing in it
knows that its worker will be killed, except the one line in ``export_page`` that holds
page 47 still so that the kill always falls into the middle of a step.
"""

from __future__ import annotations

import time
from typing import Any

from celery import Celery

from axme_celery import Axme, current_step, progress, step, wait_for_human, wait_for_tool

from . import files, report, warehouse, witness
from .home import DemoHome, write_whole

home = DemoHome.from_environment()
config = home.read_config()

files.register()  # the broker, where there is no Redis

app = Celery("axme_demo")
app.conf.update(config.celery_settings())
app.conf.update(
    axme_ledger_url=config.ledger_url,
    axme_redis_url=config.redis_url,
    # 15 by default. Short, so that nobody has to watch a dead worker for long.
    axme_lease_seconds=4,
    axme_tick_seconds=0.5,
    # 600 by default. A message on files is lost with the worker that took it.
    axme_requeue_seconds=10,
)
axme = Axme(app)

#: The page in the middle of which the runner kills the worker.
KILL_PAGE = 47
#: How long that page lies still for the kill, at most.
HOLD_SECONDS = 30.0
#: What an export of a page costs, so that the demo can be watched.
PAGE_SECONDS = 0.05

#: What an analyst may fill in at sign-off.
SIGN_OFF_FORM = {
    "type": "object",
    "properties": {"headline": {"type": "string", "minLength": 1, "maxLength": 80, "title": "Headline of the summary"}},
    "additionalProperties": False,
}


@step
def start_warehouse_export() -> str:
    """Ask for the report. The step's key is the job's id: asked again after a crash, the warehouse runs it once."""
    return warehouse.ask(home.warehouse, current_step().idempotency_key)


@step
def export_page(job_id: str, page: int) -> dict[str, Any]:
    """Fetch one page from the warehouse and write it as CSV."""
    run = current_step().run
    witness.note(home.witness, "started", page, run)
    _, rows = warehouse.read_page(home.warehouse, job_id, page)
    time.sleep(PAGE_SECONDS)
    if page == KILL_PAGE:
        hold_still_for_the_kill()
    write_whole(home.part(page), report.as_csv(rows))
    witness.note(home.witness, "wrote", page, run)
    return {"page": page, "rows": len(rows)}


@step
def publish_csv(month: str, job_id: str, pages: int) -> dict[str, Any]:
    """Join the pages to one file with a header."""
    columns = warehouse.job(home.warehouse, job_id).columns
    path = home.published / f"export-{month}.csv"
    write_whole(path, report.as_csv([columns]) + "".join(read_part(page) for page in range(1, pages + 1)))
    return {"file": str(path)}


@step
def publish_summary(month: str, headline: str, job_id: str, signed_by: str | None) -> dict[str, Any]:
    """Write what a reader wants to know first."""
    table = report.read_csv(home.published / f"export-{month}.csv")
    path = home.published / f"summary-{month}.md"
    write_whole(path, report.summary(headline, table, signed_by=signed_by))
    return {"file": str(path)}


@axme.task(name="axme_demo.monthly_export", deadline="2d")  # type: ignore[untyped-decorator]
def monthly_export(month: str) -> dict[str, Any]:
    """The whole story, from the question to the warehouse to the published files."""
    job_id = start_warehouse_export()
    table = wait_for_tool(warehouse.TOOL, job_id, timeout="1h", heartbeat="1m")  # no worker is busy meanwhile
    for page in range(1, table["pages"] + 1):
        export_page(job_id, page)
        progress(page, table["pages"])
    decision = wait_for_human(
        f"Publish the export {month}?",
        to="analysts",
        context={"rows": table["rows"], "columns": table["columns"]},
        form=SIGN_OFF_FORM,
        timeout="1d",
    )
    if not decision.approved:
        return {"rows": table["rows"], "published": [], "rejected_by": decision.by}
    headline = (decision.data or {}).get("headline") or f"Export {month}"
    csv = publish_csv(month, job_id, table["pages"])
    summary = publish_summary(month, headline, job_id, decision.by)
    return {"rows": table["rows"], "published": [csv["file"], summary["file"]], "approved_by": decision.by}


def read_part(page: int) -> str:
    """One exported page, newlines as they are."""
    return home.part(page).read_bytes().decode()


def hold_still_for_the_kill() -> None:
    """Wait while the runner's marker is there. It takes it away after the kill, so the next run goes straight on."""
    give_up_at = time.monotonic() + HOLD_SECONDS
    while home.kill_marker.exists() and time.monotonic() < give_up_at:
        time.sleep(0.05)
