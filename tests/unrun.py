"""No test goes unrun in silence: the run ends by naming each, and why.

With ``CI=true`` a test that did not run has failed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

import pytest


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def _reason(report: Any) -> str:
    """Why it was skipped, in one line of words."""
    where_and_why = report.longrepr
    reason = where_and_why[2] if isinstance(where_and_why, tuple) else str(where_and_why)
    return str(reason).removeprefix("Skipped: ")


def _fail_in_ci(report: Any) -> None:
    if _in_ci() and report.skipped and not hasattr(report, "wasxfail"):
        report.longrepr = f"did not run, and with CI=true that is a failure: {_reason(report)}"
        report.outcome = "failed"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    _fail_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    report = yield
    _fail_in_ci(report)
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    unrun: dict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        unrun[_reason(report)].append(report.nodeid)
    if not unrun:
        return
    loud = {"red": True, "bold": True}
    count = sum(len(tests) for tests in unrun.values())
    terminalreporter.write_sep("!", f"{count} DID NOT RUN", **loud)
    for reason, tests in unrun.items():
        terminalreporter.write_line(reason, **loud)
        for test in sorted(tests):
            terminalreporter.write_line(f"    {test}", red=True)
    terminalreporter.write_sep("!", "the rest says nothing about these", **loud)
