"""The demo's pages: served beside the workers, with links that sign in once."""

from __future__ import annotations

import getpass
import importlib.util
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlencode

from .. import keys
from ..extension import Axme
from .narrator import Narrator
from .processes import Crew

#: The process's name, and what its pages cannot do without.
NAME = "web"
NEEDED = ("gunicorn", "flask_wtf", "markdown_it")
#: How long they may take to answer.
READY_SECONDS = 30.0


class Pages:
    """Where the pages are, and who may see them."""

    def __init__(self, axme: Axme, port: int) -> None:
        self._axme = axme
        self._address = f"http://127.0.0.1:{port}"

    def link(self, path: str) -> str:
        """An address that signs this machine's person in, as an analyst and admin, once, and leads to ``path``."""
        name = _name()
        _, secret = keys.create_link(self._axme.runtime, name=name, role="admin", groups=("analysts",))
        return f"{self._address}/sign-in?{urlencode({'link': secret, 'next': path})}"


def serve(axme: Axme, crew: Crew, narrator: Narrator, environment: Mapping[str, str]) -> Pages | None:
    """Start the pages; None, and said so, where what they need is not installed or they do not come up."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        narrator.tell("no pages", f"{', '.join(missing)} is not installed: pip install 'axme-celery[web]'")
        return None
    port = _free_port()
    command = [sys.executable, "-m", "axme_celery.cli", "-A", "axme_celery.demo.app", "web", "--dev"]
    crew.start(NAME, [*command, "--port", str(port), "--workers", "1", "--threads", "24"], environment)
    give_up_at = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up_at and crew.is_running(NAME):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return Pages(axme, port)
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    narrator.tell("no pages", f"they did not come up; {crew.log(NAME)} says why")
    crew.stop(NAME)
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "demo"
