"""The warehouse: the outside system of the demo, in a process of its own.

Like a real one it takes a job, works on it for a while, says now and then that it
is alive, keeps the result in pages, and reports back by job id. It knows nothing
of intents; of this package it uses what any outside program would: ``complete_tool``
and ``heartbeat_tool``.

Asked twice for one job id it runs the job once. Killed while it works it begins
that job again at its next start, and a report that could not be delivered is made again.

    python -m axme_celery.demo.warehouse --home DIR
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from ..errors import AxmeError, BadInput, NotFound, WaitClosed
from .home import HOME_VARIABLE, DemoHome
from .source import Cell, Source, columns_and_batches, users_own, weather

log = logging.getLogger(__name__)

#: The name the warehouse has among tools: wait_for_tool(TOOL, job_id).
TOOL = "warehouse"
#: Every result has this many pages, of sizes that differ by one row at most.
PAGES = 50
#: A result larger than this fails the job: the demo keeps it on this disk.
MAX_ROWS = 1_000_000
#: Seconds between two signs of life while a job runs.
HEARTBEAT_SECONDS = 0.5
#: Seconds between two looks for work.
POLL_SECONDS = 0.1

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    asked_at TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'QUEUED',  -- QUEUED, RUNNING, DONE or FAILED
    times_run INTEGER NOT NULL DEFAULT 0,
    columns TEXT,                          -- JSON list
    row_count INTEGER,
    error TEXT,
    reported_at TEXT
);
CREATE TABLE IF NOT EXISTS result_rows (
    job_id TEXT NOT NULL,
    nth INTEGER NOT NULL,                  -- from 0
    cells TEXT NOT NULL,                   -- JSON list
    PRIMARY KEY (job_id, nth)
) WITHOUT ROWID;
"""


class Reporter(Protocol):
    """How the warehouse reaches whoever waits. ``Axme`` is one."""

    def complete_tool(
        self, tool: str, job_id: str, result: dict[str, Any] | None = None, error: dict[str, Any] | None = None
    ) -> object: ...

    def heartbeat_tool(self, tool: str, job_id: str) -> object: ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as the warehouse keeps it."""

    id: str
    state: str
    times_run: int
    columns: list[str]
    row_count: int | None
    error: str | None
    reported_at: str | None


# -- what a client of the warehouse may do: ask, look, read a page --


def ask(folder: Path, job_id: str) -> str:
    """Ask for the report under this id and return the id. Asking again changes nothing."""
    with _jobs(folder) as connection:
        connection.execute("INSERT INTO jobs (id, asked_at) VALUES (?, ?) ON CONFLICT DO NOTHING", (job_id, _now()))
    return job_id


def job(folder: Path, job_id: str) -> Job:
    """The job as it stands. Raises NotFound."""
    with _jobs(folder) as connection:
        row = connection.execute(
            "SELECT id, state, times_run, columns, row_count, error, reported_at FROM jobs WHERE id = ?", (job_id,)
        ).fetchone()
    if row is None:
        raise NotFound("warehouse job", job_id)
    return Job(
        id=row[0],
        state=row[1],
        times_run=row[2],
        columns=json.loads(row[3] or "[]"),
        row_count=row[4],
        error=row[5],
        reported_at=row[6],
    )


def read_page(folder: Path, job_id: str, page: int) -> tuple[list[str], list[list[Cell]]]:
    """Columns and rows of one page, counted from 1. The same page always holds the same rows.

    A result of fewer rows than pages has some empty pages.
    Raises NotFound for an unknown job, BadInput for a page out of range or a job that is not done.
    """
    if not 1 <= page <= PAGES:
        raise BadInput(f"page {page} does not exist; pages go from 1 to {PAGES}")
    found = job(folder, job_id)
    if found.state != "DONE" or found.row_count is None:
        raise BadInput(f"warehouse job {job_id} is {found.state}, it has no pages to read")
    first, end = page_bounds(found.row_count, page)
    with _jobs(folder) as connection:
        rows = connection.execute(
            "SELECT cells FROM result_rows WHERE job_id = ? AND nth >= ? AND nth < ? ORDER BY nth",
            (job_id, first, end),
        ).fetchall()
    return found.columns, [json.loads(cells) for (cells,) in rows]


def page_bounds(row_count: int, page: int) -> tuple[int, int]:
    """First row and the row after the last of a page, rows counted from 0."""
    return (page - 1) * row_count // PAGES, page * row_count // PAGES


# -- the warehouse itself --


class Warehouse:
    """Works off the jobs of one folder, one after another. One such process a folder."""

    def __init__(self, folder: Path, source: Source, reporter: Reporter) -> None:
        self._folder = folder
        self._source = source
        self._reporter = reporter

    def recover(self) -> None:
        """Queue again what a killed predecessor was working on."""
        with _jobs(self._folder) as connection:
            connection.execute("UPDATE jobs SET state = 'QUEUED' WHERE state = 'RUNNING'")

    def work_once(self) -> bool:
        """Run the oldest queued job, if there is one, and report what is unreported. True when something was done."""
        job_id = self._claim()
        if job_id is not None:
            self._run(job_id)
        return self._report_all() or job_id is not None

    def _claim(self) -> str | None:
        with _jobs(self._folder) as connection:
            claimed = connection.execute(
                "UPDATE jobs SET state = 'RUNNING', times_run = times_run + 1 WHERE id = "
                "(SELECT id FROM jobs WHERE state = 'QUEUED' ORDER BY asked_at, id LIMIT 1) RETURNING id"
            ).fetchall()
            # What a killed run left behind would collide with the rows of this one.
            connection.executemany("DELETE FROM result_rows WHERE job_id = ?", claimed)
        return claimed[0][0] if claimed else None

    def _run(self, job_id: str) -> None:
        log.info("job %s runs", job_id)
        try:
            columns, row_count = self._keep_result(job_id)
        except Exception as failure:
            # Whatever the database says, the one who waits is told; a warehouse that dies of a bad query tells nobody.
            log.exception("job %s failed", job_id)
            self._finish(job_id, "FAILED", error=f"{type(failure).__name__}: {getattr(failure, 'orig', failure)}")
        else:
            self._finish(job_id, "DONE", columns=columns, row_count=row_count)

    def _keep_result(self, job_id: str) -> tuple[list[str], int]:
        columns: list[str] = []
        row_count = 0
        heartbeat_due = time.monotonic()
        for names, rows in columns_and_batches(self._source):
            columns = names
            if row_count + len(rows) > MAX_ROWS:
                raise BadInput(f"the query gives more than {MAX_ROWS:,} rows; add a LIMIT")
            with _jobs(self._folder) as connection:
                connection.executemany(
                    "INSERT INTO result_rows VALUES (?, ?, ?)",
                    [(job_id, row_count + nth, json.dumps(row)) for nth, row in enumerate(rows)],
                )
            row_count += len(rows)
            if time.monotonic() >= heartbeat_due:
                self._heartbeat(job_id)
                heartbeat_due = time.monotonic() + HEARTBEAT_SECONDS
            time.sleep(self._source.pause_seconds)
        if not row_count:
            raise BadInput("the query gives no rows; there is nothing to export")
        return columns, row_count

    def _heartbeat(self, job_id: str) -> None:
        try:
            self._reporter.heartbeat_tool(TOOL, job_id)
        except AxmeError as failure:
            # A missed sign of life is made up by the next; the job goes on. The wait may also not be open yet.
            log.info("job %s: heartbeat not taken: %s", job_id, failure)

    def _finish(
        self,
        job_id: str,
        state: str,
        *,
        columns: list[str] | None = None,
        row_count: int | None = None,
        error: str | None = None,
    ) -> None:
        with _jobs(self._folder) as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, columns = ?, row_count = ?, error = ? WHERE id = ?",
                (state, json.dumps(columns or []), row_count, error, job_id),
            )
        log.info("job %s is %s: %s", job_id, state, error or f"{row_count} rows")

    def _report_all(self) -> bool:
        """Report each ended job once; one whose report is not taken is reported again at the next look."""
        with _jobs(self._folder) as connection:
            ended = connection.execute(
                "SELECT id FROM jobs WHERE state IN ('DONE', 'FAILED') AND reported_at IS NULL ORDER BY asked_at, id"
            ).fetchall()
        reported = False
        for (job_id,) in ended:
            if self._report(job(self._folder, job_id)):
                # Marked after the report: killed in between, it is reported twice, and the second is refused.
                with _jobs(self._folder) as connection:
                    connection.execute("UPDATE jobs SET reported_at = ? WHERE id = ?", (_now(), job_id))
                reported = True
        return reported

    def _report(self, ended: Job) -> bool:
        try:
            if ended.state == "DONE":
                result = {"rows": ended.row_count, "pages": PAGES, "columns": ended.columns}
                self._reporter.complete_tool(TOOL, ended.id, result)
            else:
                self._reporter.complete_tool(TOOL, ended.id, error={"message": ended.error})
        except WaitClosed as closed:
            log.info("job %s: nobody waits any more: %s", ended.id, closed)
        except AxmeError as failure:
            log.warning("job %s: report not taken, will try again: %s", ended.id, failure)
            return False
        else:
            log.info("job %s is reported", ended.id)
        return True


def source_of(home: DemoHome) -> Source:
    """What this demo's warehouse runs on, as its configuration says."""
    config = home.read_config()
    if config.source_url and config.query:
        return users_own(config.source_url, config.query)
    return weather(home.warehouse)


@contextmanager
def _jobs(folder: Path) -> Iterator[sqlite3.Connection]:
    """One transaction on the jobs' database; made on first use."""
    connection = sqlite3.connect(folder / "jobs.db", timeout=10)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_TABLES)
        with connection:
            yield connection
    finally:
        connection.close()


def _now() -> str:
    return datetime.now(UTC).isoformat()


def main(arguments: list[str] | None = None) -> None:
    """Work until told to stop (SIGTERM, Ctrl-C)."""
    parser = argparse.ArgumentParser(prog="python -m axme_celery.demo.warehouse", description="The demo's warehouse.")
    parser.add_argument("--home", required=True, help="the demo's folder")
    home = DemoHome(parser.parse_args(arguments).home)
    os.environ[HOME_VARIABLE] = str(home.path)

    # Only here: the app is configured from the environment, and asking for a job needs no app.
    from .app import axme

    def stop(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    warehouse = Warehouse(home.warehouse, source_of(home), axme)
    warehouse.recover()
    log.info("open")
    try:
        while True:
            if not warehouse.work_once():
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
