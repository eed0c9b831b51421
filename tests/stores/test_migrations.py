"""Migrations: they make exactly the tables the code uses, at any time, and by two at once.

They only ever add between minor versions: workers of the version before go on while and after they run.
"""

from __future__ import annotations

import ast
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, delete, text, update

from axme_celery.errors import LedgerNotMigrated, LedgerUnavailable
from axme_celery.ids import uuid7
from axme_celery.ledger import SqlLedger, migrate, schema, tables
from axme_celery.model import Change, EarlyAnswer

#: What a database knows of our tables, however they were made.
CATALOG = {
    "postgresql": [
        "SELECT relname, relkind, relpersistence, reloptions FROM pg_class WHERE relname LIKE '%axme_%'",
        "SELECT table_name, column_name, ordinal_position, data_type, character_maximum_length, is_nullable, "
        "column_default FROM information_schema.columns WHERE table_name LIKE 'axme_%'",
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'axme_%'",
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid::regclass::text LIKE 'axme_%'",
    ],
    "sqlite": ["SELECT type, name, tbl_name, sql FROM sqlite_master WHERE tbl_name LIKE 'axme_%'"],
}


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "postgresql":
        found: str = request.getfixturevalue("postgres_url")
        return found
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def catalog(engine: Engine) -> set[tuple[str, ...]]:
    """Names, columns, types, indexes with their conditions and storage, white space aside."""
    with engine.connect() as connection:
        rows = [row for query in CATALOG[engine.dialect.name] for row in connection.execute(text(query))]
    return {tuple(re.sub(r"\s+", " ", str(value)) for value in row) for row in rows}


# -- the tables --


def test_migrations_and_tables_agree(url: str, engine: Engine) -> None:
    """Alembic finds nothing to add to what the migrations made: no table, column, type or index."""
    migrate.upgrade(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "version_table": schema.VERSION_TABLE.name}
        )
        assert compare_metadata(context, tables.metadata) == []


def test_migrated_and_created_databases_are_the_same_to_the_letter(url: str, engine: Engine) -> None:
    """Conditions of partial indexes, what is unlogged, storage options and constraint names too."""
    migrate.upgrade(url)
    migrated = catalog(engine)
    with engine.begin() as connection:
        tables.metadata.drop_all(connection)
        schema.VERSION_TABLE.drop(connection)
    assert catalog(engine) == set()

    with engine.begin() as connection:
        schema.create(connection)

    assert catalog(engine) == migrated
    assert len(migrated) > 25


def test_the_code_asks_for_the_last_migration() -> None:
    """What a ledger must have had, and what a new SQLite ledger is marked with, is the head of the migrations."""
    assert migrate.head() == schema.REVISION


def test_migrations_only_add() -> None:
    """No migration drops, renames or alters: the version before goes on beside it."""
    allowed = {"create_table", "create_index", "add_column", "bulk_insert", "get_context", "execute"}
    scripts = sorted(Path(migrate.__file__).with_name("migrations").glob("versions/*.py"))
    used = {
        node.func.attr
        for script in scripts
        for node in ast.walk(ast.parse(script.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "op"
    }
    assert scripts
    assert used <= allowed
    assert not any("def downgrade" in script.read_text() for script in scripts)


# -- upgrade --


def test_an_empty_database_becomes_a_ledger(url: str) -> None:
    """From nothing to a ledger that takes and gives, with an identity."""
    assert migrate.current(url) is None

    assert migrate.upgrade(url) == migrate.head() == migrate.current(url)

    ledger = SqlLedger(url)
    ledger.commit(Change(early=(EarlyAnswer(tool="t", job_id="1", answer="completed:1", at=datetime.now(UTC)),)))
    assert ledger.early_answer("t", "1") is not None
    assert ledger.revision() == migrate.head()
    assert re.fullmatch("[0-9a-f]{32}", ledger.id)
    ledger.close()


def test_upgrading_again_changes_nothing(url: str, engine: Engine) -> None:
    """It may be part of every deployment."""
    migrate.upgrade(url)
    ledger = SqlLedger(url)
    before, identity = catalog(engine), ledger.id

    assert migrate.upgrade(url) == migrate.head()

    assert catalog(engine) == before
    assert SqlLedger(url).id == identity
    ledger.close()


def upgrade_when_told(url: str, go: object, told: object) -> None:
    go.wait()  # type: ignore[attr-defined]
    try:
        told.put(migrate.upgrade(url))  # type: ignore[attr-defined]
    except BaseException as error:
        told.put(repr(error))  # type: ignore[attr-defined]


def test_processes_that_upgrade_at_once_are_all_right(url: str) -> None:
    """Two pods of one deployment: one migrates, the other finds it done."""
    processes = multiprocessing.get_context("spawn")
    go, told = processes.Barrier(3), processes.Queue()
    both = [processes.Process(target=upgrade_when_told, args=(url, go, told)) for _ in range(3)]
    for one in both:
        one.start()

    assert [told.get(timeout=60) for _ in both] == [migrate.head()] * 3

    for one in both:
        one.join(60)
    assert migrate.current(url) == migrate.head()


def test_threads_that_upgrade_at_once_are_all_right(url: str) -> None:
    """Alembic's state is global; ours to guard."""
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: migrate.upgrade(url), range(4))) == [migrate.head()] * 4


def test_an_upgrade_that_fails_changes_nothing(url: str, engine: Engine) -> None:
    """Somebody's table is in the way of ours: an error that says so, and no half of a ledger."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE axme_locks (theirs INTEGER)"))
    before = catalog(engine)

    with pytest.raises(LedgerUnavailable, match="axme_locks"):
        migrate.upgrade(url)

    assert catalog(engine) == before
    assert migrate.current(url) is None


def test_the_sql_to_run_by_hand_makes_the_same_tables(url: str, engine: Engine) -> None:
    """For a team whose database administrator runs all SQL."""
    script = migrate.upgrade(url, sql=True)
    assert migrate.current(url) is None
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        if engine.dialect.name == "sqlite":
            raw.executescript(script)
        else:
            raw.execute(script)

    by_hand = catalog(engine)

    with engine.begin() as connection:
        tables.metadata.drop_all(connection)
        schema.VERSION_TABLE.drop(connection)
    migrate.upgrade(url)
    assert catalog(engine) == by_hand


def test_a_database_that_is_away_is_a_clear_error() -> None:
    """And the password is not in it."""
    with pytest.raises(LedgerUnavailable, match=r"127\.0\.0\.1:1/none was not migrated") as refused:
        migrate.upgrade("postgresql+psycopg://postgres:secret@127.0.0.1:1/none")
    assert "secret" not in str(refused.value)


# -- what a ledger says of its tables --


def test_a_sqlite_ledger_made_on_first_use_is_up_to_date(tmp_path: Path) -> None:
    """Nobody need migrate it, and whoever does finds nothing to do."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = SqlLedger(url)
    identity = ledger.id

    assert ledger.revision() == migrate.current(url) == migrate.head()
    assert migrate.upgrade(url) == migrate.head()

    assert SqlLedger(url).id == identity
    ledger.close()


def test_an_empty_postgresql_says_migrate(postgres_url: str) -> None:
    """Whatever is asked of it; and once it is migrated the same process goes on."""
    ledger = SqlLedger(postgres_url)
    calls: list[Callable[[], object]] = [
        lambda: ledger.intent("x"),
        lambda: ledger.id,
        lambda: ledger.commit(Change(early=(EarlyAnswer(tool="t", job_id="1", answer="", at=datetime.now(UTC)),))),
        lambda: ledger.outbox_due(datetime.now(UTC), 1, 1),
        lambda: ledger.prune([uuid7()]),
    ]
    assert ledger.revision() is None
    for call in calls:
        with pytest.raises(LedgerNotMigrated, match="migrate"):
            call()

    migrate.upgrade(postgres_url)

    for call in calls:
        call()
    ledger.close()


def test_tables_older_than_the_code_say_migrate(url: str, engine: Engine) -> None:
    """A new version deployed before its migration: refused with both revisions, not with a missing column."""
    migrate.upgrade(url)
    with engine.begin() as connection:
        connection.execute(update(schema.VERSION_TABLE).values(version_num="0000"))

    ledger = SqlLedger(url)
    with pytest.raises(LedgerNotMigrated, match="revision 0000 and this version needs " + schema.REVISION):
        ledger.intent("x")

    with engine.begin() as connection:
        connection.execute(delete(schema.VERSION_TABLE))
    with pytest.raises(LedgerNotMigrated, match="no tables"):
        ledger.intent("x")
    ledger.close()


def test_tables_newer_than_the_code_are_used(url: str, engine: Engine) -> None:
    """The version before goes on after the migration of the next."""
    migrate.upgrade(url)
    with engine.begin() as connection:
        connection.execute(update(schema.VERSION_TABLE).values(version_num="9999"))

    ledger = SqlLedger(url)
    assert ledger.intent("x") is None
    ledger.close()


def test_using_a_ledger_loads_no_alembic(tmp_path: Path) -> None:
    """A worker does not pay for migrations."""
    code = (
        f"import sys; from axme_celery.ledger import SqlLedger; SqlLedger('sqlite:///{tmp_path}/a.db').id; "
        f"assert not [m for m in sys.modules if m.startswith('alembic')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
