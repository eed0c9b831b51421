"""``python -m tests.migrating``: write what each step changes into docs/guides/migrating.md."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.docs.generated import Parts, write

from .steps import STEPS, diff, project_at

PAGE, WRITER = "docs/guides/migrating.md", "tests.migrating"


def changes() -> Parts:
    """Each step's changes, as a block of the page."""
    with tempfile.TemporaryDirectory() as folder:
        states = [project_at(count, Path(folder, str(count))) for count in range(len(STEPS) + 1)]
        texts = {
            step.name: f"```diff\n{diff(before, after)}\n```"
            for step, before, after in zip(STEPS, states, states[1:], strict=False)
        }
    return {name: lambda text=text: text for name, text in texts.items()}  # type: ignore[misc]


if __name__ == "__main__":
    write(WRITER, {PAGE: changes()})
