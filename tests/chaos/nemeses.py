"""What is done to a cluster while it works. Each nemesis acts once when called, and says what it did.

Two hands act at the same time, one on processes and one on stores, each through its own seeded sequence, in which every
nemesis comes up at least ``least`` times.
"""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psutil
import redis

from .cluster import LEASE_SECONDS, Cluster, Program

#: How long a broker hangs: far longer than a caller may be held up.
HANG_SECONDS = 3.0
#: A worker has its pool within this, also on a busy machine.
START_SECONDS = 10.0
#: Replies are lying in wait so long.
LOSE_SECONDS = 6.0
#: A pool child is left alone so long: a worker whose first children all die before they are up ends itself, by Celery's
#: own rule, and would say nothing about ours.
UP_SECONDS = 1.5


@dataclass(frozen=True)
class Nemesis:
    """One kind of trouble."""

    name: str
    #: "processes" or "stores".
    hand: str
    #: Acts once; returns how much it did, 0 when there was nothing to do it to.
    act: Callable[[Cluster, random.Random], int]
    #: What one act does, for the table of figures.
    what: str
    #: It must have done so much in a minute (rounded up), or the run shows nothing.
    least: float
    #: How often it comes up, beside the others of its hand.
    weight: int = 1


@dataclass(frozen=True)
class Act:
    """What a nemesis did, from when to when (seconds, monotonic)."""

    name: str
    began: float
    ended: float
    count: int


# -- on processes ---------------------------------------------------------------


def kill_child(cluster: Cluster, rng: random.Random) -> int:
    _wait_for(lambda: bool(_children(cluster)), START_SECONDS)
    if not (children := _children(cluster)):
        return 0
    # Mostly one that is in the middle of something: the others have nothing to lose.
    busy = cluster.busy_pids()
    hit = [child for child in children if child.pid in busy] if rng.random() < 0.8 else []
    with contextlib.suppress(psutil.Error):
        rng.choice(hit or children).kill()
        return 1
    return 0


def _children(cluster: Cluster) -> list[psutil.Process]:
    """Pool children that are up, of workers that are."""
    workers = [worker for worker in cluster.workers.values() if worker.is_up(UP_SECONDS)]
    return [child for worker in workers for child in worker.children(UP_SECONDS)]


def kill_worker(cluster: Cluster, rng: random.Random) -> int:
    worker = cluster.workers[rng.choice(sorted(cluster.workers))]
    worker.kill()
    time.sleep(rng.choice((0.0, rng.uniform(0.0, 1.5))))
    worker.start()
    _wait_for(worker.is_up, START_SECONDS)
    return 1


def kill_both_workers(cluster: Cluster, rng: random.Random) -> int:
    for worker in cluster.workers.values():
        worker.kill()
    time.sleep(rng.uniform(0.0, 1.0))
    for worker in cluster.workers.values():
        worker.start()
    _wait_for(lambda: all(worker.is_up() for worker in cluster.workers.values()), START_SECONDS)
    return 1


def pause_worker(cluster: Cluster, rng: random.Random) -> int:
    # One that is in the middle of a step: its child wakes up as a zombie and wants to record what it did.
    _wait_for(lambda: bool(_in_a_step(cluster)), START_SECONDS)
    worker = rng.choice(_in_a_step(cluster) or [cluster.workers[name] for name in sorted(cluster.workers)])
    with worker.paused(with_children=rng.random() < 0.7):
        time.sleep(LEASE_SECONDS + rng.uniform(0.5, 1.5))
    return 1


def _in_a_step(cluster: Cluster) -> list[Program]:
    """Workers one of whose children is in the middle of a step."""
    busy = cluster.busy_pids(in_a_step=True)
    return [worker for _, worker in sorted(cluster.workers.items()) if any(c.pid in busy for c in worker.children())]


def kill_submitter(cluster: Cluster, rng: random.Random) -> int:
    cluster.clients["submitter"].kill()
    cluster.clients["submitter"].start()
    return 1


def change_beats(cluster: Cluster, rng: random.Random) -> int:
    # In a circle, so that no turn is without effect: one beat, none, one again, five.
    following = {1: rng.choice((0, 5)), 0: 1, 5: 1}
    cluster.set_beats(following[cluster.beats])
    return 1


def shift_clock(cluster: Cluster, rng: random.Random) -> int:
    if cluster.wall.missing:
        return 0
    cluster.wall.shift(rng.choice((-3600.0, 7200.0, 86400.0, -7.0, 7.0, 0.0)))
    return 1


# -- on stores ------------------------------------------------------------------------


def copy_messages(cluster: Cluster, rng: random.Random) -> int:
    before = cluster.copier.copied
    cluster.copier.switch(True)
    time.sleep(rng.uniform(2.0, 4.0))
    cluster.copier.switch(False)
    return cluster.copier.copied - before


def flush_redis(cluster: Cluster, rng: random.Random) -> int:
    with contextlib.suppress(redis.RedisError):
        cluster.redis.admin.flushall()
        return 1
    return 0


def restart_redis(cluster: Cluster, rng: random.Random) -> int:
    cluster.redis.kill()
    time.sleep(rng.uniform(0.0, 1.0))
    cluster.redis.start()
    return 1


def hang_redis(cluster: Cluster, rng: random.Random) -> int:
    # With somebody to answer meanwhile.
    _wait_for(lambda: cluster.open_human_waits() >= 2, START_SECONDS)
    with cluster.hurried(), cluster.redis.paused():
        time.sleep(HANG_SECONDS)
    return 1


def crash_postgres(cluster: Cluster, rng: random.Random) -> int:
    cluster.postgres.crash()
    time.sleep(rng.choice((0.0, rng.uniform(0.0, 1.0))))
    cluster.postgres.start()
    return 1


def lose_commits(cluster: Cluster, rng: random.Random) -> int:
    return _lose(cluster, "COMMIT", rng.randint(1, 4))


def lose_checkpoints(cluster: Cluster, rng: random.Random) -> int:
    return _lose(cluster, "checkpoint", rng.randint(1, 3))


def _lose(cluster: Cluster, what: str, count: int) -> int:
    before = cluster.proxy.lost[what]
    cluster.proxy.lose(what, count)
    _wait_for(lambda: cluster.proxy.lost[what] >= before + count, LOSE_SECONDS)
    cluster.proxy.lose(what, 0)
    return cluster.proxy.lost[what] - before


def _wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Until it is so, but no longer than that."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)


PROCESSES, STORES = "processes", "stores"
ALL: tuple[Nemesis, ...] = (
    Nemesis("kill child", PROCESSES, kill_child, "SIGKILL of a pool child", 15, weight=28),
    Nemesis("kill worker", PROCESSES, kill_worker, "SIGKILL of a worker and its pool, then a new one", 2, weight=3),
    Nemesis("kill both workers", PROCESSES, kill_both_workers, "SIGKILL of all workers at once", 0.5),
    Nemesis("pause worker", PROCESSES, pause_worker, "SIGSTOP past the lease, then SIGCONT", 1, weight=2),
    Nemesis("kill submitter", PROCESSES, kill_submitter, "SIGKILL of the client that submits", 1),
    Nemesis("change beats", PROCESSES, change_beats, "no beat, one, or five", 2, weight=3),
    Nemesis("shift clock", PROCESSES, shift_clock, "a worker's wall clock put hours or a day off", 2, weight=3),
    Nemesis("copy messages", STORES, copy_messages, "messages delivered three times", 10, weight=2),
    Nemesis("flush redis", STORES, flush_redis, "FLUSHALL", 2, weight=3),
    Nemesis("restart redis", STORES, restart_redis, "Redis killed and started empty", 1, weight=2),
    Nemesis("hang redis", STORES, hang_redis, "Redis stopped for three seconds", 1, weight=2),
    Nemesis("crash postgres", STORES, crash_postgres, "pg_ctl stop -m immediate, then started", 1, weight=2),
    Nemesis("lose commits", STORES, lose_commits, "replies to COMMIT lost", 3, weight=3),
    Nemesis("lose checkpoints", STORES, lose_checkpoints, "replies to a checkpoint's insert lost", 1, weight=2),
)
BY_NAME = {nemesis.name: nemesis for nemesis in ALL}


class Hand(threading.Thread):
    """Does one nemesis after another, in an order that the seed gives, until it is told to stop."""

    def __init__(self, cluster: Cluster, nemeses: Sequence[Nemesis], seed: str, pause_seconds: float) -> None:
        super().__init__(name=f"chaos-{nemeses[0].hand}", daemon=True)
        self._cluster, self._nemeses, self._pause_seconds = cluster, nemeses, pause_seconds
        self._random = random.Random(seed)
        self._stopped = threading.Event()
        self.acts: list[Act] = []
        #: What made it stop before it was told to.
        self.trouble: Exception | None = None

    def run(self) -> None:
        try:
            for nemesis in self._order():
                if self._stopped.wait(self._random.uniform(0.0, 2 * self._pause_seconds)):
                    return
                began = time.monotonic()
                count = nemesis.act(self._cluster, self._random)
                self.acts.append(Act(nemesis.name, began, time.monotonic(), count))
        except Exception as trouble:
            self.trouble = trouble

    def stop(self) -> None:
        """Let the present act come to its end, and act no more."""
        self._stopped.set()
        self.join(60)

    def _order(self) -> Iterator[Nemesis]:
        """Each once, so that a slow machine comes to all of them, too; then rounds of each as often as it weighs.

        Every round is in another order.
        """
        round_ = list(self._nemeses)
        while True:
            self._random.shuffle(round_)
            yield from round_
            round_ = [nemesis for nemesis in self._nemeses for _ in range(nemesis.weight)]


def least(nemeses: Sequence[Nemesis], seconds: float) -> dict[str, int]:
    """How much each must have done in a run of so many seconds."""
    return {nemesis.name: math.ceil(nemesis.least * seconds / 60) for nemesis in nemeses}


def done(acts: Sequence[Act]) -> Counter[str]:
    """How much each has done."""
    counts: Counter[str] = Counter()
    for act in acts:
        counts[act.name] += act.count
    return counts
