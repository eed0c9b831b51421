"""Texts that are kept and shown: names, ids, titles, comments."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .errors import BadInput

_ASSIGNEE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+@:/-]{0,199}")


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


def assignees(to: str | Sequence[str], what: str) -> tuple[str, ...]:
    """People and groups as a tuple; refuses what cannot be one."""
    names = (to,) if isinstance(to, str) else tuple(to) if isinstance(to, list | tuple | set | frozenset) else None
    if not names or len(names) > 20:
        raise BadInput(f"{what} is {to!r}; give a name or a list of 1 to 20 names")
    for name in names:
        if not isinstance(name, str) or not _ASSIGNEE.fullmatch(name):
            raise BadInput(
                f"{what} names {name!r}, which is no assignee; use a user, group or address such as "
                f"'ana', 'group:analysts' or 'ana@example.com' (letters, digits and . _ % + @ : / -, at most 200)"
            )
    return tuple(dict.fromkeys(names))


def folded(name: str) -> str:
    """A name as it is compared where somebody is to be kept out: "Ana@x.org" is no other person than "ana@x.org"."""
    return unicodedata.normalize("NFKC", name).casefold()


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
