"""The demo's home: one folder with everything a run of the demo leaves on the machine.

All the demo's processes are told one thing, where the home is (``AXME_DEMO_HOME``),
and read the rest from ``demo.json`` in it. So a second shell joins with one variable.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BadInput

#: The one environment variable of the demo's processes.
HOME_VARIABLE = "AXME_DEMO_HOME"


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What the demo's processes agree on. Kept as ``demo.json``, for its owner's eyes: URLs may hold passwords."""

    broker_url: str
    result_backend: str
    ledger_url: str
    #: The tracker's Redis; None: the ledger's database is the tracker.
    redis_url: str | None = None
    broker_transport_options: dict[str, Any] = field(default_factory=dict)
    #: Queue of this run alone, so that a shared broker's other workers are left in peace.
    queue: str = "axme-demo"
    #: The user's own database for the warehouse; None: the weather of Seattle.
    source_url: str | None = None
    query: str | None = None

    def celery_settings(self) -> dict[str, Any]:
        """What of this is Celery's own configuration. All else of Celery stays at its defaults, early ack included."""
        return {
            "broker_url": self.broker_url,
            "broker_transport_options": self.broker_transport_options,
            "broker_connection_retry_on_startup": True,
            "result_backend": self.result_backend,
            "result_expires": 3600,
            "task_default_queue": self.queue,
        }


class DemoHome:
    """Where things are, below one folder. Makes nothing until asked."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self.config_file = self.path / "demo.json"
        self.logs = self.path / "logs"
        #: Who started and wrote which page; see witness.py.
        self.witness = self.path / "witness.jsonl"
        #: While this file is there, page 47 waits to be killed.
        self.kill_marker = self.path / "kill-at-47"
        self.warehouse = self.path / "warehouse"
        self.parts = self.path / "parts"
        self.published = self.path / "published"
        self.broker = self.path / "broker"
        self.results = self.path / "results"
        self.ledger = self.path / "axme.db"
        self.beat_schedule = self.path / "beat-schedule"

    @classmethod
    def from_environment(cls) -> DemoHome:
        """The home this process was told of. Raises BadInput when it was told of none."""
        path = os.environ.get(HOME_VARIABLE)
        if not path:
            raise BadInput(
                f"{HOME_VARIABLE} is not set; start the demo with `axme-celery demo`, which prints the value"
            )
        return cls(path)

    def make(self) -> None:
        """Make the folders. Refuses a folder that holds anything: a second story would read the first one's pages."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise BadInput(
                f"{self.path} is not an empty folder; name a new one with --home, or none for a temporary one"
            )
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.logs, self.warehouse, self.parts, self.published, self.broker, self.results):
            folder.mkdir(mode=0o700)

    def write_config(self, config: DemoConfig) -> None:
        """Keep the configuration for the other processes."""
        descriptor = os.open(self.config_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(config), file, indent=2)

    def read_config(self) -> DemoConfig:
        """The configuration. Raises BadInput when no demo lives here."""
        try:
            return DemoConfig(**json.loads(self.config_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise BadInput(
                f"no demo in {self.path}: {self.config_file.name} is missing; check {HOME_VARIABLE}"
            ) from None

    def part(self, page: int) -> Path:
        """The CSV file of one page, counted from 1."""
        return self.parts / f"page-{page:02}.csv"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a kill leaves the old one or the new one, never half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
