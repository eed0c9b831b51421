"""A DBOS worker program: recovers what an earlier worker of its name left, then serves its queue until SIGTERM."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def main() -> None:
    # Blocked before DBOS starts its threads, so that only this one takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])

    from dbos import DBOS

    from tests.bench.apps.dbos_app import QUEUE, launch

    launch(os.environ["BENCH_DBOS_URL"])
    DBOS.register_queue(QUEUE, polling_interval_sec=float(os.environ["BENCH_DBOS_POLL_SECONDS"]))
    Path(os.environ["BENCH_DIRECTORY"], "ready").touch()
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    os._exit(0)  # an orderly end would wait for its pollers; there is nothing left to keep


if __name__ == "__main__":
    main()
