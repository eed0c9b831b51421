"""Ids that sort by when they were made: UUID version 7 (RFC 9562).

Sorting matters: rows of a table keyed by them are appended at its end, and a page of them is read in order.
They are unique, not secret: never use one as a token.
"""

from __future__ import annotations

import os
import random
import threading
import time

_TAIL_BITS = 74  # what follows the 48 bit millisecond, without the version and variant bits
_lock = threading.Lock()
_random = random.Random()  # seeded by the system; asking it for each id would cost a system call
_last = 0  # the last id made here, without its version and variant bits


def uuid7() -> str:
    """A new id, "0192f0c1-7b3a-7c4d-9e5f-0123456789ab".

    Each is greater, as text, than every one this process made before, also within a millisecond,
    across threads, and when the clock steps back.
    """
    global _last
    value = (time.time_ns() // 1_000_000) << _TAIL_BITS | _random.getrandbits(_TAIL_BITS)
    with _lock:
        if value <= _last:
            # Same millisecond, or the clock went back: go on from the last one by a random stride.
            # A full tail carries into the millisecond, which only moves the id a little ahead.
            value = _last + 1 + (value & 0xFFFFFFFF)
        _last = value
    high = value >> 62  # millisecond and the first 12 bits of the tail
    text = f"{high >> 12:012x}7{high & 0xFFF:03x}{1 << 63 | value & (1 << 62) - 1:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _forget() -> None:
    # A forked child that kept _last would walk the same ids as its parent in that millisecond,
    # and go on with its random numbers; and a lock held by another thread at the fork would stay held for ever.
    global _lock, _last, _random
    _lock, _last, _random = threading.Lock(), 0, random.Random()


os.register_at_fork(after_in_child=_forget)
