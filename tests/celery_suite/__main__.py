"""``python -m tests.celery_suite [unit|integration] [words for pytest]``. Ends with 1 when any test ended differently."""

from __future__ import annotations

import sys

from .suite import INTEGRATION, UNIT, compare

if __name__ == "__main__":
    which, *words = sys.argv[1:] or ["unit"]
    (part,) = (part for part in (UNIT, INTEGRATION) if part.name == which)
    sys.exit(compare(part, words))
