"""Ids sort by when they were made, and never repeat."""

from __future__ import annotations

import os
import threading
import time
import uuid

from axme_celery import ids
from axme_celery.ids import uuid7


def test_an_id_is_a_uuid_of_version_7_that_tells_its_millisecond():
    """Any UUID library reads it."""
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(uuid7())
    after = time.time_ns() // 1_000_000

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= after + 1


def test_ids_of_one_process_always_grow_as_text():
    """Also thousands of them in a millisecond."""
    made = [uuid7() for _ in range(20_000)]

    assert made == sorted(set(made))


def test_ids_grow_when_the_clock_steps_back(monkeypatch):
    """An hour back, as a clock correction may do."""
    first = uuid7()
    now = time.time_ns()
    monkeypatch.setattr(ids.time, "time_ns", lambda: now - 3600 * 10**9)

    made = [first] + [uuid7() for _ in range(100)]

    assert made == sorted(set(made))
    assert all(uuid.UUID(each).version == 7 and uuid.UUID(each).variant == uuid.RFC_4122 for each in made)


def test_a_full_millisecond_carries_into_the_next(monkeypatch):
    """The tail overflows into the time, never into the version."""
    milli = time.time_ns() // 1_000_000 + 5000
    monkeypatch.setattr(ids, "_last", (milli << 74) | (1 << 74) - 1)

    made = uuid.UUID(uuid7())

    assert made.int >> 80 == milli + 1
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_threads_never_make_the_same_id():
    """Eight at once."""
    made: list[list[str]] = [[] for _ in range(8)]
    threads = [threading.Thread(target=lambda mine=mine: mine.extend(uuid7() for _ in range(2000))) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(mine == sorted(mine) for mine in made)
    assert len({each for mine in made for each in mine}) == 16_000


def test_a_forked_child_goes_its_own_way_even_if_a_thread_held_the_lock(monkeypatch):
    """Parent and child share neither an id nor the lock, though the clock stands still."""
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_800_000_000_000_000_000)
    monkeypatch.setattr(ids, "_last", 0)
    uuid7()
    read, write = os.pipe()
    ids._lock.acquire()
    child = os.fork()
    if child == 0:  # pragma: no cover, runs in the child
        os.write(write, "".join(uuid7() for _ in range(500)).encode())
        os._exit(0)
    ids._lock.release()
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    theirs = [text[i : i + 36] for i in range(0, len(text), 36)]
    ours = [uuid7() for _ in range(500)]

    assert len(theirs) == 500
    # A child that went on from the parent's last id would start within a few strides of it.
    first_ours, first_theirs = (uuid.UUID(each[0]).int & (1 << 62) - 1 for each in (ours, theirs))
    assert abs(first_ours - first_theirs) > 1 << 40
    assert not set(theirs) & set(ours)
