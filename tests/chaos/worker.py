"""A worker without a worker's processes: takes messages from a world's broker and runs each as Celery does."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from kombu.utils.json import loads

from tests.hands import work_on

from .world import World


class Worker:
    """Runs messages in the caller's thread; what it acknowledges is gone."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: When messages with a countdown may be had, by the trial's clock.
        self._due_at: dict[str, float] = {}

    def next(self) -> Path | None:
        """The oldest message that may be had now."""
        return next((path for path in self._world.messages if self._is_due(path)), None)

    def run(self, path: Path, *, text: str | None = None, keep: bool = False) -> None:
        """Run a message. ``text``: read already. ``keep`` it in the broker, as if it were delivered once more."""

        def tell(word: str) -> None:
            if word != "requeued" and not keep:
                path.unlink(missing_ok=True)

        with self._world.app.connection_for_read() as connection:
            channel = connection.default_channel
            work_on(self._world.app, channel.Message(loads(text or path.read_text()), channel), tell)

    def _is_due(self, path: Path) -> bool:
        """A message with a countdown is held back, as a worker does. Celery reckons it by the wall clock."""
        eta = loads(path.read_text())["headers"].get("eta")
        if eta is None:
            return True
        now = self._world.clock.passed_seconds
        if path.name not in self._due_at:
            self._due_at[path.name] = now + (datetime.fromisoformat(eta) - datetime.now(UTC)).total_seconds()
        return now >= self._due_at[path.name]
