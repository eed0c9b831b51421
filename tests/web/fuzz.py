"""``make fuzz``: requests made up from the OpenAPI document, against a real server, with every check there is.

    python -m tests.web.fuzz [--cases 10000] [--seed S]

The server is a process of its own on a new SQLite ledger; it ends with this one.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from celery import Celery
from werkzeug.serving import make_server

from axme_celery import Axme, keys
from axme_celery.web import create_app
from axme_celery.web.openapi import document
from axme_celery.webhook import Answer

HERE = Path(__file__).parent


def main() -> int:
    """What schemathesis ends with: 0 when no check failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.web.fuzz")
    parser.add_argument("--cases", type=int, default=10_000, help="about so many requests")
    parser.add_argument("--seed", type=int, help="the one that an earlier run printed")
    parser.add_argument("rest", nargs="*", help="further words for schemathesis run")
    asked = parser.parse_args()
    done = run(asked.cases, seed=asked.seed, rest=asked.rest, show=True)
    return done.returncode


def run(
    cases: int, *, seed: int | None = None, rest: list[str] | None = None, show: bool = False
) -> subprocess.CompletedProcess[str]:
    """Serve, and have schemathesis make about so many requests. Its output is in the result, unless it is shown."""
    with tempfile.TemporaryDirectory(prefix="axme-fuzz-") as folder:
        app = Celery("fuzz", broker="memory://", set_as_current=False)
        app.conf.update(
            axme_ledger_url=f"sqlite:///{folder}/ledger.db", axme_redis_url=None, axme_requests_per_minute=None,
            axme_webhook_retry_seconds=[],
        )  # fmt: skip
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        axme = Axme(app)
        # Nobody outside is called, whatever URLs are made up.
        axme.runtime.relay._courier._call = lambda *_: Answer(status=204)  # type: ignore[attr-defined]
        _, secret = keys.create(axme.runtime, name="fuzz", role="admin")
        server = make_server("127.0.0.1", 0, create_app(axme, secret_key="f" * 40), threaded=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            return subprocess.run(
                _command(f"http://127.0.0.1:{server.port}", secret, cases, seed) + (rest or []),
                cwd=folder, text=True, capture_output=not show, check=False,
                env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.web.formats", "PYTHONPATH": str(HERE.parents[1])},
            )  # fmt: skip
        finally:
            server.shutdown()
            thread.join(5)
            server.server_close()
            axme.drain(2)
            axme.close()


def _command(url: str, secret: str, cases: int, seed: int | None) -> list[str]:
    operations = sum(len(found) for found in document()["paths"].values())
    # The coverage phase makes some forty of each operation by itself.
    each = max(1, round(cases / operations) - 40)
    return [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(HERE / "fuzz.toml"), "run",
        f"{url}/openapi.json", "--header", f"x-api-key: {secret}", "--checks", "all", "--max-examples", str(each),
        "--no-color", "--workers", "2", *(["--seed", str(seed)] if seed is not None else []),
    ]  # fmt: skip


def count(output: str) -> int:
    """How many requests schemathesis says it made."""
    found = re.search(r"(\d[\d,]*) generated", output)
    return int(found[1].replace(",", "")) if found else 0


if __name__ == "__main__":
    sys.exit(main())
