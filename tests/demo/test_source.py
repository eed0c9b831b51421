"""The warehouse's data: the bundled weather, and a user's database that must only be read."""

from __future__ import annotations

import sqlite3

import pytest

from axme_celery.demo import source as sources
from axme_celery.demo.source import Source, columns_and_batches, one_reading_statement, users_own, weather
from axme_celery.errors import BadInput


def all_rows(source: Source) -> tuple[list[str], list[list[object]]]:
    batches = list(columns_and_batches(source))
    return batches[0][0], [row for _, rows in batches for row in rows]


@pytest.fixture
def shop(tmp_path):
    """A user's own database, with some rows and all kinds of values."""
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE sales (id INTEGER, item TEXT, price REAL, photo BLOB, note TEXT)")
        connection.executemany(
            "INSERT INTO sales VALUES (?, ?, ?, ?, ?)",
            [(n, f"100% item-{n}", n / 2, b"\x00\xff", None) for n in range(1, 8)],
        )
    return path


def test_the_bundled_weather_is_every_day_of_four_years(tmp_path):
    """1461 rows, in the order of their dates, with the query's own column computed."""
    columns, rows = all_rows(weather(tmp_path))

    assert columns == ["date", "weather", "precipitation", "temp_max", "temp_min", "wind", "precipitation_30_days"]
    assert len(rows) == 1461
    assert (rows[0][0], rows[-1][0]) == ("2012-01-01", "2015-12-31")
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert rows[29][6] == pytest.approx(sum(row[2] for row in rows[:30]), abs=0.05)


def test_the_weather_is_loaded_once_and_half_a_load_is_thrown_away(tmp_path):
    """A kill while loading leaves nothing that later looks whole."""
    (tmp_path / "weather.loading").write_bytes(b"half a database")

    first = weather(tmp_path)
    changed_at = (tmp_path / "weather.db").stat().st_mtime_ns
    weather(tmp_path)

    assert len(all_rows(first)[1]) == 1461
    assert (tmp_path / "weather.db").stat().st_mtime_ns == changed_at


def test_a_users_query_is_streamed_and_its_percent_signs_are_left_alone(shop):
    """Batches of the asked size; bytes become hex, NULL stays NULL."""
    query = "SELECT id, photo, note FROM sales WHERE item LIKE '100%' ORDER BY id"
    own = Source(url=f"sqlite:///{shop}", query=query, batch_rows=3)

    batches = list(columns_and_batches(own))

    assert [len(rows) for _, rows in batches] == [3, 3, 1]
    assert batches[0][1][0] == [1, "00ff", None]


def test_a_result_without_rows_yields_nothing(shop):
    """There is no page to make of it; the warehouse says so."""
    assert list(columns_and_batches(users_own(f"sqlite:///{shop}", "SELECT * FROM sales WHERE id < 0"))) == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "  select * from t; ",
        "WITH a AS (SELECT ';') SELECT * FROM a",
        "-- a comment; with a semicolon\nSELECT 1",
        "/* two; */ (SELECT 1) UNION (SELECT 2)",
        'SELECT "odd;name" FROM t',
        "SELECT*FROM t",
    ],
)
def test_one_reading_statement_is_taken(query):
    """A semicolon in a comment, a string or a name ends nothing."""
    assert one_reading_statement(query) == query.strip().rstrip("; ")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("DELETE FROM sales", "SELECT or WITH"),
        ("", "SELECT or WITH"),
        ("-- SELECT\nDROP TABLE sales", "SELECT or WITH"),
        ("SELECTED", "SELECT or WITH"),
        ("SELECT 1; DELETE FROM sales", "more than one"),
        ("SELECT '--'; DROP TABLE sales", "more than one"),
    ],
)
def test_anything_but_one_reading_statement_is_refused(query, reason):
    """Refused before a connection is made."""
    with pytest.raises(BadInput, match=reason):
        users_own("sqlite://", query)


def test_a_with_that_writes_is_refused_by_the_database(shop):
    """The words at the start are only the first look: the connection itself cannot write."""
    writing = users_own(f"sqlite:///{shop}", "WITH x AS (SELECT 1) DELETE FROM sales WHERE id IN (SELECT * FROM x)")

    with pytest.raises(Exception, match="readonly"):
        all_rows(writing)

    assert sqlite3.connect(shop).execute("SELECT COUNT(*) FROM sales").fetchone() == (7,)


def test_a_database_file_that_is_not_there_is_refused_and_not_made(tmp_path):
    """A mistyped path must not leave an empty file."""
    with pytest.raises(BadInput, match=r"no database file .*shpo\.db"):
        users_own(f"sqlite:///{tmp_path}/shpo.db", "SELECT 1")

    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_no_url_is_refused_without_repeating_it():
    """It may hold a password."""
    with pytest.raises(BadInput) as refused:
        users_own("not a url: hunter2", "SELECT 1")

    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_the_data_says_where_it_is_from():
    """The README beside the data names its source and its rights, and the file is the one it names."""
    import hashlib
    from importlib import resources

    data = resources.files(sources.__package__) / "data"
    readme = (data / "README.md").read_text()

    assert "NOAA" in readme and "public domain" in readme and "vega_datasets" in readme
    assert hashlib.sha256((data / "seattle-weather.csv").read_bytes()).hexdigest() in readme
