"""Exceptions as the ledger keeps them: described in words, never pickled.

``revive`` gives back the same kind of exception, so that a task's ``except
ConnectionError`` handles a recorded failure as it handled the first. It only
looks among classes already loaded, and only makes exceptions.
"""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable
from typing import Any

from .model import JsonDict

#: The part of a traceback that is kept.
TRACEBACK_CHARACTERS = 4000

#: Python refuses to read or write whole numbers of more digits.
_TOO_LARGE = 10**4300


def describe(error: BaseException, *, attributes: bool = False) -> JsonDict:
    """An exception's code, words, class, plain arguments, and the end of its traceback.

    attributes: its plain attributes too. For what the same task is to handle again, not for what others are shown.
    """
    described: JsonDict = {
        "code": _said(error, lambda: str(getattr(error, "code", None) or ""))[:255],
        "message": _said(error, lambda: storable(str(error)))[:2000],
        "exception": f"{type(error).__module__}:{type(error).__qualname__}",
        "args": [_kept(a) for a in _arguments(error) if _is_plain(a)],
        "traceback": storable("".join(traceback.format_exception(error)))[-TRACEBACK_CHARACTERS:],
    }
    if attributes:
        described["attributes"] = {name: _kept(value) for name, value in vars(error).items() if _is_plain(value)}
    return described


def revive(described: JsonDict) -> Exception | None:
    """The exception again, if its class is loaded here; else None.

    Its ``__init__`` is not called: what it took is not known, and often is not what it keeps as ``args``.
    """
    module, _, path = str(described.get("exception", "")).partition(":")
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return None
    try:
        revived: Exception = found.__new__(found, *described.get("args", ()))
        vars(revived).update(described.get("attributes", {}))
        said = str(revived)
    except Exception:
        return None
    return revived if (said or found.__name__) == described.get("message") else None


def _said(error: BaseException, say: Callable[[], str]) -> str:
    """What it says; the name of its class where that is nothing, or where saying it raises: it is a failure all the same."""
    try:
        return say() or type(error).__name__
    except Exception:
        return type(error).__name__


def _arguments(error: BaseException) -> tuple[object, ...]:
    """What it can be made from again: its ``args``; those of an OSError lack the file name."""
    if isinstance(error, OSError) and error.args == (error.errno, error.strerror) and error.filename is not None:
        return *error.args, error.filename
    return error.args


def _kept(value: object) -> object:
    return storable(value)[:2000] if isinstance(value, str) else value


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str) or (isinstance(value, int) and abs(value) < _TOO_LARGE)


def storable(text: str) -> str:
    """Text with what databases cannot keep written out: NUL, halves of characters."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
