"""What the warehouse runs its query on: the weather of Seattle, or the user's own database.

Reads only. A user's query must be one SELECT or WITH, runs in a read-only
transaction where the database knows such a thing (PostgreSQL, MySQL, SQLite),
and is rolled back at the end everywhere.
"""

from __future__ import annotations

import csv
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from ..errors import BadInput

#: What a result cell may be on its way to a CSV file.
Cell = str | int | float | None

#: Each day, and the rain of the thirty days up to it: something a warehouse has to compute.
WEATHER_QUERY = """\
SELECT date, weather, precipitation, temp_max, temp_min, wind,
       ROUND(SUM(precipitation) OVER (ORDER BY date ROWS 29 PRECEDING), 1) AS precipitation_30_days
FROM weather
ORDER BY date"""

_COMMENT_OR_QUOTED = re.compile(
    r"""--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\$(\w*)\$.*?\$\1\$""", re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A database and the query to run on it."""

    url: str
    query: str
    #: Rows fetched at a time.
    batch_rows: int = 1000
    #: Pause between two fetches; the bundled data set is so small that nobody would see the warehouse work.
    pause_seconds: float = 0.0


def weather(folder: Path) -> Source:
    """The bundled data set, loaded into a SQLite database of its own in ``folder`` on first use."""
    database = folder / "weather.db"
    if not database.exists():
        _load_weather(database)
    return Source(url=f"sqlite:///{database}", query=WEATHER_QUERY, batch_rows=30, pause_seconds=0.02)


def users_own(url: str, query: str) -> Source:
    """The user's database and query. Raises BadInput unless it is one reading statement, and the database is there."""
    statement = one_reading_statement(query)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Without the cause: it would carry the URL, and with it the password, into a log.
        raise BadInput(
            "--source is not a SQLAlchemy URL; write for instance postgresql+psycopg://user@host/name"
        ) from None
    file = parsed.database if parsed.get_backend_name() == "sqlite" else None
    if file and file != ":memory:" and not file.startswith("file:") and not Path(file).is_file():
        # SQLite would make an empty one.
        raise BadInput(f"--source: there is no database file {file}")
    return Source(url=url, query=statement)


def one_reading_statement(query: str) -> str:
    """The query without its closing semicolon, if it is a single SELECT or WITH. Raises BadInput otherwise."""
    # Judged with comments and quoted parts taken out: a ';' within them ends no statement.
    bare = _COMMENT_OR_QUOTED.sub(lambda found: " " if found[0].startswith(("--", "/*")) else "''", query)
    bare = bare.strip().rstrip("; \t\n")
    if not re.match(r"[(\s]*(SELECT|WITH)\b", bare, re.IGNORECASE):
        raise BadInput("--query must begin with SELECT or WITH; the demo only reads")
    if ";" in bare:
        raise BadInput("--query holds more than one statement; give one SELECT or WITH")
    return query.strip().rstrip("; \t\n")


def columns_and_batches(source: Source) -> Iterator[tuple[list[str], list[list[Cell]]]]:
    """Run the query and yield (columns, the next rows) until there are no more.

    Streams: never more than ``batch_rows`` rows in memory, where the database's driver can do that.
    A result of no rows yields nothing. Raises what the database raises.
    """
    engine = create_engine(source.url)
    try:
        with engine.connect() as connection:
            result = _read_only(connection).exec_driver_sql(source.query)
            columns = list(result.keys())
            while rows := result.fetchmany(source.batch_rows):
                yield columns, [[_cell(value) for value in row] for row in rows]
            connection.rollback()
    finally:
        engine.dispose()


def _read_only(connection: Connection) -> Connection:
    """Take from the connection the right to write, where the database can."""
    # no_parameters: a '%' in the user's SQL is a '%', not a placeholder.
    connection = connection.execution_options(stream_results=True, no_parameters=True)
    match connection.dialect.name:
        case "postgresql":
            connection = connection.execution_options(postgresql_readonly=True)
        case "sqlite":
            connection.exec_driver_sql("PRAGMA query_only = ON")
        case "mysql" | "mariadb":
            connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
            connection.commit()
    return connection


def _cell(value: Any) -> Cell:
    """One value as it goes into a CSV file: numbers stay, bytes turn to hex, all else is its text."""
    match value:
        case None | str() | int() | float():
            return value
        case bytes() | memoryview():
            return bytes(value).hex()
        case _:
            return str(value)


def _load_weather(database: Path) -> None:
    """Fill a fresh database; it appears under its name only when it is whole."""
    unfinished = database.with_suffix(".loading")
    unfinished.unlink(missing_ok=True)
    text = (resources.files("axme_celery.demo") / "data" / "seattle-weather.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    connection = sqlite3.connect(unfinished)
    try:
        with connection:
            connection.execute(
                "CREATE TABLE weather (date TEXT PRIMARY KEY, precipitation REAL, temp_max REAL, temp_min REAL, "
                "wind REAL, weather TEXT)"
            )
            connection.executemany(
                "INSERT INTO weather VALUES (:date, :precipitation, :temp_max, :temp_min, :wind, :weather)",
                [{**row, "date": row["date"].replace("/", "-")} for row in rows],
            )
    finally:
        connection.close()
    unfinished.rename(database)
