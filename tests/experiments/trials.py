"""The experiments. Each returns what came of it in words, and whether the work was done once and whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from celery import chain, chord

from .world import VISIBILITY_SECONDS, Way, World


@dataclass(frozen=True)
class Outcome:
    """What came of the work."""

    told: str
    #: Every task done exactly once, and the result there.
    well: bool


@dataclass(frozen=True)
class Trial:
    """One experiment."""

    name: str
    #: What happens, for the table.
    title: str
    run: Callable[[World], Outcome]
    config: dict[str, Any] = field(default_factory=dict)


def killed_in_a_chain(world: World, kill: Callable[[World, Any, int], None]) -> Outcome:
    do = world.project.do
    names = ("a", "b", "c", "d")
    worker = world.start_worker()
    with world.held("b"):
        result = world.give(chain(*(do.si(name) for name in names)))
        kill(world, worker, world.wait_began("b"))
    return _ended(world, result, names)


def killed_in_a_header(world: World, kill: Callable[[World, Any, int], None]) -> Outcome:
    do, join = world.project.do, world.project.join
    worker = world.start_worker()
    with world.held("b"):
        result = world.give(chord([do.si(name) for name in ("a", "b", "c")], join.s()))
        pid = world.wait_began("b")
        # The others are to have ended, and to be known to have.
        world.wait_done("a", "c")
        kill(world, worker, pid)
    return _ended(world, result, ("a", "b", "c", "body"))


def killed_alone(world: World, kill: Callable[[World, Any, int], None]) -> Outcome:
    worker = world.start_worker()
    with world.held("a"):
        result = world.give(world.project.do.si("a"))
        kill(world, worker, world.wait_began("a"))
    return _ended(world, result, ("a",))


def the_worker(world: World, worker: Any, pid: int) -> None:
    """SIGKILL to parent and children at once; then another worker."""
    worker.kill_group()
    world.worker(beat=world.way is not Way.PLAIN)


def the_child(world: World, worker: Any, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def the_parent(world: World, worker: Any, pid: int) -> None:
    """SIGKILL to the parent alone, which takes its children down; then another worker."""
    worker.send(signal.SIGKILL)
    worker.wait_ended()
    world.worker(beat=world.way is not Way.PLAIN)


def cold_shutdown(world: World, worker: Any, pid: int) -> None:
    """SIGQUIT: the worker ends without waiting for its tasks; then another."""
    worker.send(signal.SIGQUIT)
    worker.wait_ended()
    world.worker(beat=world.way is not Way.PLAIN)


def long_countdown(world: World) -> Outcome:
    """Four times the visibility timeout, two workers."""
    world.start_worker()
    world.start_worker()
    result = world.give(world.project.do.si("a"), countdown=4 * VISIBILITY_SECONDS)
    world.pass_seconds(4 * VISIBILITY_SECONDS)
    return _ended(world, result, ("a",), settle_seconds=3)


def longer_than_the_timeout(world: World) -> Outcome:
    """A task with ``acks_late`` that takes three times the visibility timeout, two workers."""
    world.start_worker()
    world.start_worker()
    with world.held("a"):
        result = world.give(world.project.do_late.si("a"))
        world.wait_began("a")
        world.pass_seconds(3 * VISIBILITY_SECONDS + 1)
    return _ended(world, result, ("a",), settle_seconds=3)


def longer_than_results_live(world: World) -> Outcome:
    """A chord one of whose members takes three times ``result_expires``."""
    do, join = world.project.do, world.project.join
    world.start_worker()
    with world.held("b"):
        result = world.give(chord([do.si(name) for name in ("a", "b", "c")], join.s()))
        world.wait_began("b")
        world.pass_seconds(9)
    return _ended(world, result, ("a", "b", "c", "body"))


def _ended(world: World, result: Any, names: tuple[str, ...], settle_seconds: float = 0.0) -> Outcome:
    state = world.state_at_rest(result)
    world.pass_seconds(settle_seconds)
    once = all(len(world.effects("done", name)) == 1 for name in names)
    return Outcome(f"{world.counts(*names)}; {state}", state in ("SUCCESS", "COMPLETED") and once)


def _kills(work: Callable[[World, Any], Outcome], kill: Any) -> Callable[[World], Outcome]:
    return lambda world: work(world, kill)


TRIALS = (
    Trial("chain-worker", "`kill -9` of the worker in the second link of a chain", _kills(killed_in_a_chain, the_worker)),
    Trial("chain-child", "`kill -9` of the pool child there", _kills(killed_in_a_chain, the_child)),
    Trial("chord-worker", "`kill -9` of the worker in a chord's header", _kills(killed_in_a_header, the_worker)),
    Trial("chord-child", "`kill -9` of the pool child there", _kills(killed_in_a_header, the_child)),
    Trial("parent", "`kill -9` of the worker's parent alone", _kills(killed_alone, the_parent)),
    Trial("cold", "SIGQUIT to the worker (a cold shutdown)", _kills(killed_alone, cold_shutdown)),
    Trial("countdown", "a countdown of 4 visibility timeouts", long_countdown),
    Trial("late", "a task with `acks_late` of 3 visibility timeouts", longer_than_the_timeout),
    Trial(
        "expires", "a chord with a member of 3 times `result_expires`", longer_than_results_live,
        {"result_expires": 3},
    ),
)  # fmt: skip
