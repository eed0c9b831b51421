"""The stage of an experiment: the project in one of three ways, on a Redis of its own."""

from __future__ import annotations

import time
from enum import Enum
from typing import Any

from tests.e2e.harness import Stage, until
from tests.servers import PrivateRedis

#: The broker gives a message that was not acknowledged to another worker after this long.
VISIBILITY_SECONDS = 3
#: Where nothing is left to be done, a result is waited for this long.
PATIENCE_SECONDS = 8


class Way(Enum):
    """How the work is given to Celery."""

    PLAIN = "plain Celery"
    NAMED = "named in `axme_tasks`"
    SUBMITTED = "`axme.submit(...)`"


class World(Stage):
    """A project and its processes, in one way."""

    project_name = "tests.experiments.project"

    def __init__(self, way: Way, redis: PrivateRedis, **config: Any) -> None:
        self.way = way
        ours = {} if way is Way.PLAIN else {"axme_eta_threshold_seconds": 1, "axme_requeue_seconds": 5}
        if way is Way.NAMED:
            ours["axme_tasks"] = ["shop.*"]
        options = {
            "visibility_timeout": VISIBILITY_SECONDS, "unacked_restore_interval": 1, "unacked_restore_throttle": 1,
        }  # fmt: skip
        super().__init__(redis.url, None, redis, broker_transport_options=options, **ours, **config)
        if way is Way.PLAIN:
            for key in [key for key in self.config if key.startswith("axme_")]:
                del self.config[key]
        self._results: list[Any] = []

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "EXPERIMENT_WITH": "" if self.way is Way.PLAIN else "yes"}

    def start_worker(self, **how: Any) -> Any:
        """A worker; with us the first has the beat inside."""
        return self.worker(beat=self.way is not Way.PLAIN and not self.programs, **how)

    def give(self, canvas: Any, **options: Any) -> Any:
        """Give this work to Celery in the world's way; its result, or its intent."""
        if self.way is Way.SUBMITTED:
            return self.axme.submit(canvas.set(**options) if options else canvas)
        return self._held(canvas.apply_async(**options))

    def _held(self, result: Any) -> Any:
        """Hold on to a result: one that is let go asks its backend, which may be gone by then."""
        self._results.append(result)
        return result

    def close(self) -> None:
        for result in self._results:
            while result is not None:
                for one in getattr(result, "results", None) or (result,):
                    one.backend = None
                result = result.parent
        super().close()

    def wait_began(self, name: str) -> int:
        """Until this task has begun: the pid of where."""
        return int(until(lambda: self.effects("began", name), f"begin of {name}")[0]["pid"])

    def wait_done(self, *names: str) -> None:
        """Until these tasks are done, and a moment later."""
        for name in names:
            until(lambda name=name: self.effects("done", name), f"end of {name}")  # type: ignore[misc]
        self.pass_seconds(0.5)

    def state_at_rest(self, result: Any) -> str:
        """Wait until the work is done or nothing is left that could do it; how it stands then."""
        if self.way is Way.SUBMITTED:
            until(lambda: result.refresh().status.is_final, "end of the intent", 60)
            return str(result.status)
        if self.way is Way.NAMED:
            until(result.ready, "result", 60)
            return str(result.state)
        # Whatever the broker still holds has been given out again, and what came of that has been done.
        until(lambda: not self.held_by_broker(), "empty broker", 60)
        look = [self._held(self.project.app.send_task("idle.look")) for _ in range(8)]
        until(lambda: all(one.ready() for one in look), "idle worker", 60)
        # A dead pool child may go unnoticed for five seconds.
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not result.ready() and time.monotonic() < give_up_at:
            time.sleep(0.1)
        return str(result.state)

    def held_by_broker(self) -> int:
        """Messages in the queue and in workers' hands."""
        return int(self.redis.admin.llen("celery")) + int(self.redis.admin.hlen("unacked"))

    def counts(self, *names: str) -> str:
        """How often each was done, and begun where that differs: "a 1, b 1 (began 2)"."""
        told = []
        for name in names:
            began, done = len(self.effects("began", name)), len(self.effects("done", name))
            told.append(f"{name} {done}" + (f" (began {began})" if began != done else ""))
        return ", ".join(told)

    def pass_seconds(self, seconds: float) -> None:
        """An experiment may take its time."""
        time.sleep(seconds)
