"""Is the wheel whole? ``python -m tests.wheel dist/axme_celery-....whl``

Everything under version control in the package must be in it (Lua, migrations,
data, templates, ``py.typed``), and it must work in an environment that has
nothing else, away from the sources.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def missing_from(wheel: Path) -> set[str]:
    """Files of the package that git knows, or would take, and the wheel does not have."""
    listing = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "axme_celery"]
    known = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\n")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in known if name and (ROOT / name).exists()} - set(archive.namelist())


def try_it(wheel: Path) -> None:
    """Install it into an empty environment; import it and run its command there."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        for command in (
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel.resolve()],
            [python, "-c", "import axme_celery; print('imported from', axme_celery.__file__)"],
            [python.with_name("axme-celery"), "--help"],
            [python, "-m", "celery", "axme", "--help"],
        ):
            subprocess.run([str(word) for word in command], cwd=folder, check=True)


def main() -> None:
    wheel = Path(sys.argv[1])
    if missing := missing_from(wheel):
        sys.exit(f"{wheel} lacks {', '.join(sorted(missing))}")
    try_it(wheel)
    print(f"{wheel.name}: whole, and works in an empty environment")


if __name__ == "__main__":
    main()
