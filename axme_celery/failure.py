"""Exceptions as the ledger keeps them: described in words, never pickled.

``revive`` gives back the same kind of exception, so that a task's ``except
ConnectionError`` handles a recorded failure as it handled the first. It only
looks among classes already loaded, and only makes exceptions.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

from .model import JsonDict

#: The part of a traceback that is kept.
TRACEBACK_CHARACTERS = 4000


def describe(error: BaseException) -> JsonDict:
    """An exception's code, words, class, plain arguments, and the end of its traceback."""
    return {
        "code": str(getattr(error, "code", None) or type(error).__name__)[:255],
        "message": _storable(str(error))[:2000] or type(error).__name__,
        "exception": f"{type(error).__module__}:{type(error).__qualname__}",
        "args": [_storable(a)[:2000] if isinstance(a, str) else a for a in error.args if _is_plain(a)],
        "traceback": _storable("".join(traceback.format_exception(error)))[-TRACEBACK_CHARACTERS:],
    }


def revive(described: JsonDict) -> Exception | None:
    """The exception again, if its class is loaded here and takes its arguments; else None."""
    module, _, path = str(described.get("exception", "")).partition(":")
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return None
    try:
        revived = found(*described.get("args", ()))
    except Exception:
        return None
    return revived if str(revived) == described.get("message") or not described.get("message") else None


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and value == value)


def _storable(text: str) -> str:
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
