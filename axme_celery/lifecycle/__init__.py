"""The rules: what may happen to an intent, and what each decision writes.

Pure: no clock, no store, no randomness. A decision takes what was loaded, the
occasion (the moment and fresh ids), and returns a ``Change``; or it refuses by
raising. ``moves`` has the tables, ``runs`` a leg's life, ``waits`` a wait's,
``voters`` who may answer one, ``nudges`` what happens while nobody does,
``handover`` how it is passed on or given more time, ``ends`` how an intent is
ended from outside.
"""

from . import agents
from .called import call, not_called, uncall
from .ends import cancel, time_out
from .ends import fail as fail_from_outside
from .gates import GATE, gated, stands_anew
from .handover import delegate, extend_intent, extend_wait, reassign
from .moves import MOVES, NOTES, Occasion
from .nudges import due, pending, with_moments
from .runs import (
    add_member,
    claim,
    complete,
    fail,
    hand_back,
    lose,
    park,
    repeat,
    replace_leg,
    replay_from,
    resend,
    retry,
    submit,
    submit_plan,
    told_why,
    unpark,
)
from .shown import shown_hash, shown_with
from .turns import Fallout, Turn, join_too_large, pass_join, rest
from .voters import REQUESTER, Refusal, barred, goes_back_to, may_answer, needs_comment, vote_of
from .waits import Finish, NodeEnd, answer, closed_by_time, fire, heartbeat, open_wait, rest_again

__all__ = [
    "GATE",
    "MOVES",
    "NOTES",
    "REQUESTER",
    "Fallout",
    "Finish",
    "NodeEnd",
    "Occasion",
    "Refusal",
    "Turn",
    "add_member",
    "agents",
    "answer",
    "barred",
    "call",
    "cancel",
    "claim",
    "closed_by_time",
    "complete",
    "delegate",
    "due",
    "extend_intent",
    "extend_wait",
    "fail",
    "fail_from_outside",
    "fire",
    "gated",
    "goes_back_to",
    "hand_back",
    "heartbeat",
    "join_too_large",
    "lose",
    "may_answer",
    "needs_comment",
    "not_called",
    "open_wait",
    "park",
    "pass_join",
    "pending",
    "reassign",
    "repeat",
    "replace_leg",
    "replay_from",
    "resend",
    "rest",
    "rest_again",
    "retry",
    "shown_hash",
    "shown_with",
    "stands_anew",
    "submit",
    "submit_plan",
    "time_out",
    "told_why",
    "uncall",
    "unpark",
    "vote_of",
    "with_moments",
]
