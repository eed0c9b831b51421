"""A Python session for a page: reads what is typed as JSON lines, answers with what was printed.

Run as a program in the page's folder. Asked {"text": ..., "mode": "exec" or "single"}, it answers
{"printed": ..., "error": traceback or null}.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what others write to stdout must not be read as an answer
    sys.path.insert(0, os.getcwd())
    names: dict[str, object] = {"__name__": "__main__"}
    for line in sys.stdin:
        asked = json.loads(line)
        printed = io.StringIO()
        error = None
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(asked["text"], "<page>", asked["mode"]), names)
            except BaseException:
                error = traceback.format_exc()
        answers.write(json.dumps({"printed": printed.getvalue(), "error": error}) + "\n")


if __name__ == "__main__":
    main()
