"""The rules: what may happen to an intent, and what each decision writes.

Pure: no clock, no store, no randomness. A decision takes what was loaded, the
occasion (the moment and fresh ids), and returns a ``Change``; or it refuses by
raising. ``moves`` has the tables, ``runs`` a leg's life, ``waits`` a wait's,
``ends`` how an intent is ended from outside.
"""

from . import agents
from .ends import cancel, time_out
from .ends import fail as fail_from_outside
from .gates import GATE, gated
from .moves import MOVES, NOTES, Occasion
from .runs import (
    claim,
    complete,
    fail,
    hand_back,
    lose,
    park,
    repeat,
    replay_from,
    resend,
    retry,
    submit,
    unpark,
)
from .waits import answer, due, fire, heartbeat, open_wait, rest_again

__all__ = [
    "GATE",
    "MOVES",
    "NOTES",
    "Occasion",
    "agents",
    "answer",
    "cancel",
    "claim",
    "complete",
    "due",
    "fail",
    "fail_from_outside",
    "fire",
    "gated",
    "hand_back",
    "heartbeat",
    "lose",
    "open_wait",
    "park",
    "repeat",
    "replay_from",
    "resend",
    "rest_again",
    "retry",
    "submit",
    "time_out",
    "unpark",
]
