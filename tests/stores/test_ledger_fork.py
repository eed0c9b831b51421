"""A ledger across a fork: every process has connections of its own, and hangs up on nobody else's."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from axme_celery.forkgate import ForkGate
from axme_celery.ledger import SqlLedger, engine, sqlite_pool

from .ledgers import handles, open_files, submitted

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["postgresql", "sqlite", "sqlite in memory"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "postgresql":
            found: str = request.getfixturevalue("postgres_ledger_url")
            return found
        case "sqlite":
            return f"sqlite:///{tmp_path}/ledger.db"
    return "sqlite://"


def test_a_parent_and_four_children_use_one_ledger(any_url: str) -> None:
    """Forked while the parent is busy: no crossed answers, no closed connections, not even when the children end."""
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "tests.stores.forking", any_url],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout.strip()) == (0, "whole"), ran.stderr


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a forked child that did this; 0 when it went well, and it may take ten seconds."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_in_the_middle_of_connecting_leaves_no_lock_behind(any_url: str) -> None:
    """The thread that held it is not in the child."""
    ledger = SqlLedger(any_url)
    intent = submitted(ledger).intent
    ledger.close()
    held, done = threading.Event(), threading.Event()

    def connecting() -> None:
        with ledger.engines._lock:
            held.set()
            done.wait(20)

    thread = threading.Thread(target=connecting)
    thread.start()
    held.wait()

    def ask() -> None:
        assert ledger.intent(intent.id) == intent

    code = in_child(ask)
    done.set()
    thread.join()
    assert code == 0
    assert ledger.intent(intent.id) == intent
    ledger.close()


def test_a_thread_behind_its_gate_still_gets_a_connection_while_a_fork_waits_for_it(any_url: str) -> None:
    """Neither waits for the other: the fork begins when the thread has done its piece of work, not when patience ends."""
    ledger, gate = SqlLedger(any_url), ForkGate()
    intent = submitted(ledger).intent
    inside, forking, done = threading.Event(), threading.Event(), threading.Event()
    os.register_at_fork(before=forking.set)  # runs before all that were registered earlier

    def work() -> None:
        with gate:
            inside.set()
            forking.wait(10)
            time.sleep(0.1)  # the fork has come to whatever it waits for by now
            assert ledger.intent(intent.id) == intent
            done.set()

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()

    def look() -> None:
        assert done.is_set()

    assert in_child(look) == 0
    thread.join()
    ledger.close()


def test_a_child_keeps_what_it_inherited_untouched(postgres_ledger: SqlLedger) -> None:
    """The parent's connections are set aside, whole, where nothing will ever collect them; a grandchild's likewise."""
    ledger = postgres_ledger
    with ledger.engines.connect(), ledger.engines.connect():
        pass
    submitted(ledger)
    parents, ready = ledger.engines.durable, ledger.engines._ready
    assert (parents.pool.checkedin(), len(ready)) == (1, 1)  # type: ignore[attr-defined]

    def look() -> None:
        assert parents in engine._inherited
        assert any(one is ready for one in engine._inherited)
        assert (parents.pool.checkedin(), len(ready)) == (1, 1)  # type: ignore[attr-defined]
        assert ledger.engines.durable is not parents
        submitted(ledger)
        childs = ledger.engines.durable

        def look_again() -> None:
            assert parents in engine._inherited
            assert childs in engine._inherited
            submitted(ledger)

        assert in_child(look_again) == 0

    assert in_child(look) == 0
    assert parents not in engine._inherited


def test_a_child_does_not_use_what_its_parent_had_in_hand_as_it_forked(postgres_ledger: SqlLedger) -> None:
    """Both would read from one line; the parent has its connection back, the child opens its own."""
    ledger = postgres_ledger
    submitted(ledger)

    def own() -> list[object]:
        return [ready.driver for ready in ledger.engines._ready]

    child: list[int] = []
    with ledger.engines.borrow() as driver:
        pid = os.fork()
        child.append(pid)
    if child == [0]:
        code = 1
        try:
            code = int(driver in own())
            submitted(ledger)
            code += int(driver in own())
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child[0], 0)[1]) == 0
    assert own() == [driver]
    submitted(ledger)


# -- SQLite, which must not be open at all when its process forks --


def test_a_child_inherits_no_open_sqlite_file(sqlite_ledger: SqlLedger) -> None:
    """Two threads had it open; the parent opens it again when it next needs it."""
    ledger = sqlite_ledger
    with ledger.engines.connect(), ledger.engines.connect():
        pass
    assert open_files(ledger)

    assert in_child(lambda: None if not open_files(ledger) else os._exit(3)) == 0

    assert not open_files(ledger)
    submitted(ledger)
    assert open_files(ledger)


def test_a_fork_waits_for_a_sqlite_transaction_under_way(sqlite_ledger: SqlLedger) -> None:
    """Else the child would find the write lock taken for ever, by a connection that only its parent has."""
    ledger = sqlite_ledger
    submitted(ledger)
    inside = threading.Event()

    def write_slowly() -> None:
        with ledger.engines.durable.begin():
            inside.set()
            time.sleep(0.5)
            # It may even need a second connection to finish.
            assert ledger.intents({}, None, 10)

    thread = threading.Thread(target=write_slowly)
    thread.start()
    inside.wait()
    began = time.monotonic()
    assert in_child(lambda: submitted(ledger, key="childs")) == 0
    took = time.monotonic() - began
    thread.join()

    assert 0.3 < took < 4
    assert ledger.intent_by_key("childs") is not None


def test_a_fork_does_not_wait_for_the_connection_in_its_own_hand(sqlite_ledger: SqlLedger) -> None:
    """Nobody could give that back; the child has no use for it."""
    submitted(sqlite_ledger)
    with sqlite_ledger.engines.connect():
        began = time.monotonic()
        assert in_child(lambda: None) == 0
        assert time.monotonic() - began < 2


def test_a_fork_waits_for_a_connection_that_was_borrowed_past_sqlalchemy(sqlite_ledger: SqlLedger) -> None:
    """A step's is. The child finds neither a file open nor the write lock taken."""
    ledger = sqlite_ledger
    submitted(ledger)
    inside, done = threading.Event(), threading.Event()

    def write_slowly() -> None:
        with ledger.engines.borrow() as driver:
            driver.begin(durable=True)
            inside.set()
            time.sleep(0.5)
            driver.commit()
            done.set()

    thread = threading.Thread(target=write_slowly)
    thread.start()
    inside.wait()

    def look() -> None:
        assert done.is_set()
        assert not open_files(ledger)
        submitted(ledger, key="childs")

    assert in_child(look) == 0
    thread.join()
    assert ledger.intent_by_key("childs") is not None


def test_who_comes_for_a_connection_during_a_fork_is_let_in_after_it(sqlite_ledger: SqlLedger) -> None:
    """Whichever way they come."""
    ledger = sqlite_ledger
    intent = submitted(ledger).intent
    came: list[str] = []
    sqlite_pool._before()
    threads = [
        threading.Thread(target=lambda: came.append("driver") if ledger.intent(intent.id) else None),
        threading.Thread(target=lambda: came.append("SQLAlchemy") if ledger.intents({}, None, 1) else None),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    before, files = list(came), open_files(ledger)
    sqlite_pool._door.open()
    for thread in threads:
        thread.join(10)

    assert (before, files) == ([], [])
    assert sorted(came) == ["SQLAlchemy", "driver"]


def test_a_connection_whose_borrower_was_struck_down_at_the_door_is_given_back(sqlite_ledger: SqlLedger) -> None:
    """A time limit's exception comes between any two instructions; every later fork would wait for nobody."""
    submitted(sqlite_ledger)
    loan = sqlite_ledger.engines.borrow()
    loan.__enter__()
    assert sqlite_pool._door._own.count == 1

    del loan

    assert sqlite_pool._door._own.count == 0
    assert len(handles(sqlite_ledger)) == 1


def test_a_child_that_was_forked_with_a_connection_in_hand_waits_for_its_own_threads(sqlite_ledger: SqlLedger) -> None:
    """What its parent had in hand is given back there, too, and stands for nobody else's."""
    ledger = sqlite_ledger
    submitted(ledger)
    parent = os.getpid()
    with ledger.engines.borrow():
        pid = os.fork()
    if os.getpid() != parent:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            inside, done = threading.Event(), threading.Event()

            def work() -> None:
                with ledger.engines.borrow():
                    inside.set()
                    time.sleep(0.5)
                    done.set()

            threading.Thread(target=work).start()
            inside.wait()
            forked: list[int] = []
            # By another thread than the one that came out twice.
            thread = threading.Thread(target=lambda: forked.append(in_child(lambda: done.is_set() or os._exit(2))))
            thread.start()
            thread.join()
            code = forked[0]
        finally:
            os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_two_threads_that_fork_at_once_shut_nobody_out(sqlite_ledger: SqlLedger) -> None:
    """The door opens again when the last of them has forked."""
    submitted(sqlite_ledger)
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(in_child(lambda: submitted(sqlite_ledger)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert codes == [0] * 4
    with ThreadPoolExecutor(2) as pool:
        pool.submit(submitted, sqlite_ledger).result(10)
    assert len(sqlite_ledger.intents({}, None, 10)) == 6


def test_a_parent_that_closes_its_sqlite_ledger_takes_nothing_of_its_childs(sqlite_ledger: SqlLedger) -> None:
    """The last to close a ledger tidies up its log. A child that only seemed to be there would write into the void."""
    ledger = sqlite_ledger
    submitted(ledger, key="parents")
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()

    def write_before_and_after() -> None:
        submitted(ledger, key="before")
        os.write(to_parent, b".")
        os.read(from_parent, 1)
        submitted(ledger, key="after")

    def meanwhile() -> None:
        os.read(from_child, 1)
        ledger.intent_by_key("parents")
        ledger.close()
        os.write(to_child, b".")

    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            write_before_and_after()
        finally:
            os._exit(0)
    meanwhile()
    os.waitpid(pid, 0)

    assert [key for key in ("parents", "before", "after") if ledger.intent_by_key(key) is None] == []


def test_a_ledger_in_memory_outlives_the_children_of_its_process() -> None:
    """They share it, and it goes with the process that made it."""
    ledger = SqlLedger("sqlite://")
    submitted(ledger)

    assert in_child(lambda: submitted(ledger, key="childs")) == 0

    assert ledger.intent_by_key("childs") is not None
    folder = ledger.engines._folder
    assert folder is not None
    ledger.close()
    assert folder.exists()


def test_a_ledger_in_memory_goes_with_its_owner() -> None:
    """It leaves nothing behind, not even for those who never close one."""
    ledger = SqlLedger("sqlite://")
    submitted(ledger)
    folder = ledger.engines._folder
    assert folder is not None
    assert folder.exists()
    del ledger
    gc.collect()
    assert not folder.exists()
