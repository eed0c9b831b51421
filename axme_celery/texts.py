"""Texts that are kept and shown: names, ids, titles, comments."""

from __future__ import annotations

from .errors import BadInput


def line(value: object, what: str, *, longest: int = 255) -> str:
    """One printable line of at most so many characters.

    what: the argument's name, for the refusal ("by", "job_id").

    Raises BadInput for anything else: what is no text, blank, has control characters or halves of characters.
    """
    if not isinstance(value, str) or not value.strip() or len(value) > longest or not value.isprintable():
        raise BadInput(f"{what} is {_shown(value)}; it is one printable line of 1 to {longest} characters")
    return value


def text(value: object, what: str, *, longest: int) -> str:
    """Text of any lines, of at most so many characters. Raises BadInput, also for what databases cannot keep."""
    if (
        not isinstance(value, str)
        or len(value) > longest
        or "\0" in value
        or any("\ud800" <= c <= "\udfff" for c in value)
    ):
        raise BadInput(f"{what} is {_shown(value)}; it is text of at most {longest} characters, without NUL")
    return value


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
