"""Gunicorn's configuration for the web door: ``gunicorn -c python:axme_celery.web.gunicorn_conf 'proj.web:app'``.

Threads, for a live stream holds one as long as its page is open. Keep ``axme_live_clients`` below their number.
What gunicorn is told on its command line, or in GUNICORN_CMD_ARGS, wins over this.
"""

from __future__ import annotations

import signal
from typing import Any

worker_class = "gthread"
workers = 2
threads = 64
#: How long requests may take to end when the process is asked to; streams end at once, see below.
graceful_timeout = 30
keepalive = 5
#: It would be a file in the home directory, which a container may not have.
control_socket_disable = True
#: Addresses of people and, in one-time links, secrets do not belong in a log of every request.
accesslog = None


def post_worker_init(worker: Any) -> None:
    """Have live streams end when the worker is asked to: it would wait its whole grace for them."""
    from axme_celery.web import live

    before = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: Any) -> None:
        live.close_all()
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, stop)
