"""Values as JSON text and back: payloads, results, answers.

What JSON knows comes back as it was, and so do ``datetime``, ``date``, ``time``, ``UUID``, ``Decimal`` and ``bytes``
(kombu's JSON, the same a Celery message uses; ``kombu.utils.json.register_type`` adds others). A tuple, and any other
list-like, comes back as a list; a subclass of ``dict``, ``str``, ``int`` or ``float`` as its plain form.

A value is refused before it is stored rather than found to be unreadable years later.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from kombu.utils import json as kombu_json

from .errors import NotJson, TooLarge

#: Lists and objects within one another. Deeper data breaks other readers, and some of them by crashing.
DEEPEST = 64

#: Digits of a whole number. Python itself refuses to read more (CVE-2020-10735).
MOST_DIGITS = 4300


class _Encoder(kombu_json.JSONEncoder):
    def default(self, value: Any) -> Any:
        # kombu would write these bytes as text, and PostgreSQL refuses text with a NUL.
        if isinstance(value, bytes) and b"\0" in value:
            return {"__type__": "base64", "__value__": base64.b64encode(value).decode()}
        return super().default(value)  # type: ignore[no-untyped-call]


# Kept, because making one costs as much as encoding a small value.
_encoder = _Encoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_canonical = _Encoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
_decoder = json.JSONDecoder(object_hook=kombu_json.object_hook)


def encode(value: Any, *, what: str, limit_bytes: int | None, setting: str = "") -> str:
    """A value as compact JSON text that ``decode`` reads back.

    what:        the value's name in a refusal ("result of step 'fetch'").
    limit_bytes: how long the text may be, as UTF-8; None where its parts were held to theirs.
    setting:     the key that raises the limit ("axme_result_bytes").

    Raises NotJson, naming the place within the value: NaN and infinities, NUL characters, lone surrogates,
    keys that are no text, whole numbers over 4300 digits, more than 64 levels, types JSON cannot carry.
    Raises TooLarge over the limit.
    """
    text = _text(_encoder, value, what)
    if limit_bytes is not None:
        size_bytes = len(text) if text.isascii() else len(text.encode())
        if size_bytes > limit_bytes:
            raise TooLarge(what, size_bytes, limit_bytes, setting)
    return text


def decode(text: str) -> Any:
    """The value of a text made by ``encode``.

    Raises NotJson for text that is not JSON, or that holds a type this process has not registered with kombu.
    """
    try:
        return _decoder.decode(text)
    except (ValueError, TypeError, ArithmeticError, RecursionError) as wrong:
        raise NotJson(
            f"a stored value cannot be read ({wrong}); if it holds a type of your own, "
            f"register it with kombu.utils.json.register_type in this process too: {text[:80]!r}"
        ) from wrong


def canonical_hash(value: Any) -> str:
    """SHA-256, in hex, of the value's compact JSON with sorted keys: equal for equal values, in every process.

    Raises NotJson as ``encode`` does.
    """
    return hashlib.sha256(_text(_canonical, value, "the value to compare").encode()).hexdigest()


# -- the fast way: encode, then look at value and text for signs of trouble ---


def _text(encoder: _Encoder, value: Any, what: str) -> str:
    try:
        text: str = encoder.encode(value)
    except Exception as wrong:  # a __json__ of the user's may raise anything
        raise NotJson(f"{what}: {_fault(value) or f'$ cannot be written as JSON ({wrong!r})'}") from wrong
    if _is_suspect(value) or _is_suspect_text(text):
        fault = _fault(value)
        if fault:
            raise NotJson(f"{what}: {fault}")
    return text


_SCALARS = frozenset({str, int, float, bool, type(None)})
_LEAVES = frozenset({datetime, date, time, Decimal, UUID, bytes})
_MARK = {"__type__", "__value__"}  # the keys of kombu's envelope for these


def _is_suspect(value: Any) -> bool:
    """Whether the value may hold what the encoder lets pass. True may be wrong, False never is.

    The encoder turns the key 1 into "1" without a word, writes any depth, and takes a dict of the user's
    for the envelope of a date. Types it knows only by hearsay (``__json__``) may do any of this.
    """
    if type(value) in _SCALARS:
        return False
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for each in level:
            inner: Iterable[Any]
            if isinstance(each, dict):
                for key in each:
                    if type(key) is not str and not isinstance(key, str):
                        return True
                if len(each) == 2 and each.keys() == _MARK:
                    return True
                inner = each.values()
            elif isinstance(each, (list, tuple)):
                inner = each
            elif type(each) in _LEAVES or isinstance(each, (str, int, float)):
                continue
            else:
                return True
            # The types are compared at C speed first: most containers hold scalars only.
            if not _SCALARS.issuperset(map(type, inner)):
                below += [one for one in inner if type(one) not in _SCALARS]
        if not below:
            return False
        level = below
    return True


_MANY_DIGITS = re.compile(rf"[0-9]{{{MOST_DIGITS + 1}}}")


def _is_suspect_text(text: str) -> bool:
    """Whether the text may hold characters or numbers to refuse. True may be wrong, False never is."""
    if "\\u0000" in text:
        return True
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return True
    return len(text) > MOST_DIGITS and _MANY_DIGITS.search(text) is not None


# -- the slow way: find the place and say it in words -------------------------


def _fault(value: Any, path: str = "$", depth: int = 0) -> str | None:
    """Where and why a value cannot be kept: "$.rows[3].cursor is a set, which JSON cannot carry"; None if it can."""
    # Iterative: what is looked at here may be too deep to recurse into, or contain itself.
    todo: list[tuple[Any, str, int]] = [(value, path, depth)]
    while todo:
        each, path, depth = todo.pop()
        if depth > DEEPEST or (depth == DEEPEST and isinstance(each, (dict, list, tuple))):
            return f"{_short(path)} is more than {DEEPEST} levels deep, or contains itself; flatten it"
        if isinstance(each, dict):
            for key in each:
                fault = _key_fault(key)
                if fault:
                    return f"{_short(path)} {fault}"
            if each.keys() == _MARK:
                return f"{_short(path)} has just the keys __type__ and __value__, which stand for dates and the like"
            todo += reversed([(one, _under(path, key), depth + 1) for key, one in each.items()])
        elif isinstance(each, (list, tuple)):
            todo += reversed([(one, f"{path}[{n}]", depth + 1) for n, one in enumerate(each)])
        else:
            fault = _leaf_fault(each)
            if fault:
                return f"{_short(path)} {fault}"
            if not isinstance(each, (str, int, float, bytes, type(None))):
                # Named by the path of the object, and one deeper: it may turn itself into itself for ever.
                plain = kombu_json.JSONEncoder().default(each)
                if isinstance(plain, dict) and plain.keys() == _MARK:
                    plain = plain["__value__"]
                todo.append((plain, path, depth + 1))
    return None


def _key_fault(key: Any) -> str | None:
    if not isinstance(key, str):
        return f"has the key {_short(_shown(key))} of type {type(key).__name__}; keys in JSON are text: use str(key)"
    return _text_fault(key, "has a key with ")


def _leaf_fault(each: Any) -> str | None:
    if isinstance(each, str):
        return _text_fault(each, "has ")
    if each is None or isinstance(each, bool):
        return None
    if isinstance(each, int):
        if abs(each).bit_length() > MOST_DIGITS * 3 and abs(each) >= 10**MOST_DIGITS:
            return f"is a whole number of more than {MOST_DIGITS} digits; pass it as text in parts"
        return None
    if isinstance(each, float):
        if each != each or each in (float("inf"), float("-inf")):
            return f"is {float(each)}, which JSON cannot carry; use None"
        return None
    if isinstance(each, bytes):
        return None
    try:
        kombu_json.JSONEncoder().default(each)
    except TypeError:
        name = type(each).__name__
        article = "an" if name[:1].lower() in "aeiou" else "a"
        return f"is {article} {name}, which JSON cannot carry; turn it into text, numbers, lists or dicts"
    except Exception as wrong:
        return f"is a {type(each).__name__} that failed to turn itself into JSON ({wrong!r})"
    return None


def _text_fault(text: str, has: str) -> str | None:
    if "\0" in text:
        return has + "a NUL character, which databases cannot keep; remove it, or pass bytes"
    try:
        text.encode()
    except UnicodeEncodeError:
        return has + 'half a character (a lone surrogate); decode the text with errors="replace"'
    return None


def _under(path: str, key: str) -> str:
    return f"{path}.{key}" if key.isidentifier() else f"{path}[{json.dumps(_short(key))}]"


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # a repr of somebody else's, in the middle of telling an error
        return f"<{type(value).__name__}>"


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:60]}...{text[-57:]}"
