"""A real browser: Debian's chromium, installed where apt-get works, and said loudly where it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
#: Waits for another installation that is under way, as on a machine that has just been started.
INSTALL = [
    "apt-get", "-o", "DPkg::Lock::Timeout=60", "install", "-y", "--no-install-recommends", "chromium",
    "fonts-dejavu-core",
]  # fmt: skip
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: axe-core's rules for accessible pages (MPL-2.0), as its package has them.
AXE = Path(__file__).parent / "axe-core" / "axe.min.js"


class NoBrowser(Exception):
    """There is none, and none could be installed; the message says what was tried."""


def program() -> str:
    """The browser's program; installed with apt-get where there is none. Raises NoBrowser."""
    found = os.environ.get("AXME_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found:
        return found
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise NoBrowser("no chromium here, and it cannot be installed: set AXME_CHROMIUM to one, or install chromium")
    for command in (["apt-get", "update"], INSTALL):
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
        if done.returncode and command is INSTALL:
            raise NoBrowser(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    installed = shutil.which("chromium")
    if installed is None:
        raise NoBrowser("apt-get installed chromium, and there is none")
    return installed
