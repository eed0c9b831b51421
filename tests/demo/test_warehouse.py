"""The warehouse: one run a job id, pages that never change, a report that arrives."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from axme_celery.demo import warehouse as house
from axme_celery.demo.source import Source, users_own, weather
from axme_celery.demo.warehouse import PAGES, Warehouse, ask, job, page_bounds, read_page
from axme_celery.errors import BadInput, LedgerUnavailable, NotFound, WaitClosed


class Desk:
    """Takes the warehouse's reports, or refuses as many as it was told to."""

    def __init__(self, refusals: list[Exception] | None = None) -> None:
        self.reports: list[tuple[str, object, object]] = []
        self.heartbeats: list[object] = []
        self.refusals = refusals or []

    def complete_tool(self, tool, job_id, result=None, error=None):
        assert tool == "warehouse"
        if self.refusals:
            raise self.refusals.pop(0)
        self.reports.append((job_id, result, error))

    def heartbeat_tool(self, tool, job_id):
        self.heartbeats.append(job_id)


@pytest.fixture
def quick(tmp_path) -> Source:
    """The weather, without the pauses."""
    loaded = weather(tmp_path)
    return Source(url=loaded.url, query=loaded.query)


def numbers(count: int) -> Source:
    """A query that gives the numbers from 1 to count."""
    return Source(
        url="sqlite://",
        query=f"WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n WHERE x < {count}) SELECT x FROM n",
    )


def test_a_job_is_run_reported_and_its_pages_are_the_query(tmp_path, quick):
    """50 pages, together the 1461 rows in the query's order."""
    desk = Desk()
    ask(tmp_path, "october")

    assert Warehouse(tmp_path, quick, desk).work_once()

    [(job_id, result, error)] = desk.reports
    assert (job_id, result["rows"], result["pages"], error) == ("october", 1461, PAGES, None)
    pages = [read_page(tmp_path, "october", page) for page in range(1, PAGES + 1)]
    assert {len(rows) for _, rows in pages} == {29, 30}
    assert [row[0] for _, rows in pages for row in rows] == sorted(row[0] for _, rows in pages for row in rows)
    assert sum(len(rows) for _, rows in pages) == 1461
    assert all(columns == result["columns"] for columns, _ in pages)


def test_it_gives_signs_of_life_while_it_works(tmp_path, quick):
    """At least one, under the job's id."""
    desk = Desk()
    ask(tmp_path, "october")

    Warehouse(tmp_path, quick, desk).work_once()

    assert desk.heartbeats and set(desk.heartbeats) == {"october"}


def test_asked_twice_for_one_job_it_runs_once(tmp_path, quick):
    """Asked again before, and again after it ran: one run, one report."""
    desk = Desk()
    ask(tmp_path, "october")
    ask(tmp_path, "october")
    warehouse = Warehouse(tmp_path, quick, desk)
    warehouse.work_once()
    ask(tmp_path, "october")

    assert not warehouse.work_once()
    assert job(tmp_path, "october").times_run == 1
    assert len(desk.reports) == 1


def test_killed_at_work_it_begins_the_job_again_from_nothing(tmp_path):
    """Rows of the killed run are not among those of the next."""
    ask(tmp_path, "october")

    class Power(BaseException):
        pass

    class PowerCut(Desk):
        def heartbeat_tool(self, tool, job_id):
            raise Power

    with pytest.raises(Power):
        Warehouse(tmp_path, numbers(3000), PowerCut()).work_once()
    assert job(tmp_path, "october").state == "RUNNING"

    after = Warehouse(tmp_path, numbers(2000), desk := Desk())
    after.recover()
    after.work_once()

    assert job(tmp_path, "october").times_run == 2
    assert desk.reports[0][1]["rows"] == 2000
    assert read_page(tmp_path, "october", 50)[1][-1] == [2000]


def test_a_report_that_is_not_taken_is_made_again(tmp_path):
    """The ledger was away for a moment; the job is not run again for that."""
    desk = Desk([LedgerUnavailable("away"), LedgerUnavailable("still away")])
    ask(tmp_path, "october")
    warehouse = Warehouse(tmp_path, numbers(60), desk)

    for _ in range(4):
        warehouse.work_once()

    assert len(desk.reports) == 1
    assert job(tmp_path, "october").times_run == 1


def test_a_report_nobody_waits_for_any_more_is_settled(tmp_path):
    """The intent was canceled, or heard it already: the warehouse does not nag."""
    desk = Desk([WaitClosed("wait-1", "CANCELED", datetime.now(UTC), "ana")])
    ask(tmp_path, "october")
    warehouse = Warehouse(tmp_path, numbers(60), desk)
    warehouse.work_once()

    assert not warehouse.work_once()
    assert job(tmp_path, "october").reported_at is not None
    assert desk.reports == []


@pytest.mark.parametrize(
    ("query", "message"),
    [("SELECT * FROM nowhere", "no such table: nowhere"), ("SELECT 1 WHERE 1 = 0", "no rows")],
)
def test_a_query_that_fails_is_reported_with_its_reason(tmp_path, query, message):
    """And the warehouse takes the next job."""
    desk = Desk()
    ask(tmp_path, "october")
    Warehouse(tmp_path, users_own("sqlite://", query), desk).work_once()
    ask(tmp_path, "november")
    Warehouse(tmp_path, numbers(60), desk).work_once()

    (failed_id, _, error), (done_id, result, _) = desk.reports
    assert failed_id == "october" and message in error["message"]
    assert done_id == "november" and result["rows"] == 60


def test_a_result_too_large_for_the_demo_is_refused_with_the_limit(tmp_path, monkeypatch):
    """Before it fills the disk."""
    monkeypatch.setattr(house, "MAX_ROWS", 1500)
    desk = Desk()
    ask(tmp_path, "october")

    Warehouse(tmp_path, numbers(5000), desk).work_once()

    assert "more than 1,500 rows; add a LIMIT" in desk.reports[0][2]["message"]


def test_a_result_of_few_rows_has_empty_pages_and_loses_none(tmp_path):
    """Seven rows on fifty pages."""
    ask(tmp_path, "october")
    Warehouse(tmp_path, numbers(7), Desk()).work_once()

    rows = [row for page in range(1, PAGES + 1) for row in read_page(tmp_path, "october", page)[1]]

    assert rows == [[n] for n in range(1, 8)]


@pytest.mark.parametrize("row_count", [1, 49, 50, 51, 1461, 999_999])
def test_pages_follow_each_other_without_gap_or_overlap(row_count):
    """And differ by one row at most."""
    bounds = [page_bounds(row_count, page) for page in range(1, PAGES + 1)]

    assert bounds[0][0] == 0 and bounds[-1][1] == row_count
    assert all(end == first for (_, end), (first, _) in pairwise(bounds))
    assert max(end - first for first, end in bounds) - min(end - first for first, end in bounds) <= 1


def test_a_page_that_cannot_be_read_is_refused_by_name(tmp_path):
    """No such job, no such page, not done yet."""
    with pytest.raises(NotFound, match="october"):
        read_page(tmp_path, "october", 1)
    ask(tmp_path, "october")
    with pytest.raises(BadInput, match="QUEUED"):
        read_page(tmp_path, "october", 1)
    with pytest.raises(BadInput, match="51"):
        read_page(tmp_path, "october", 51)
