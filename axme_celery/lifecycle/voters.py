"""Who may answer a wait: the one rule that pages, HTTP, inbox and command line all ask.

A caller either vouches for the person (``names`` is None: the application's own code, the command line), or says who
they are: their id and the groups they are in. Then they must be among those the wait is for.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..errors import BadInput
from ..model import Intent, JsonDict, Wait, WaitKind, WaitStatus
from ..texts import folded

#: In ``not_by``: whoever submitted the intent.
REQUESTER = "requester"


class Refusal(NamedTuple):
    """Why somebody may not answer."""

    #: "closed", "not_for_people", "excluded", "delegated", "voted" or "not_assigned".
    code: str
    #: In words, for that person.
    reason: str


def may_answer(wait: Wait, names: Collection[str] | None, by: str) -> Refusal | None:
    """None where this person may answer the wait; else why not.

    by:    the person's id.
    names: their id and groups; None where the caller vouches for them.

    Pure, and says the same as the inbox's query: an open wait is in somebody's inbox exactly when they may answer it.
    """
    if wait.kind is not WaitKind.HUMAN:
        return Refusal("not_for_people", f"wait {wait.id} is for a {wait.kind.value.lower()}, not for a person")
    if wait.status is not WaitStatus.OPEN:
        return Refusal("closed", f"wait {wait.id} is closed: {wait.status.value.lower()}")
    own = {folded(by), *(folded(name) for name in names or ())}
    if not own.isdisjoint(wait.excluded):
        return Refusal("excluded", f"{by} may not answer wait {wait.id}: its not_by excludes them; someone else must")
    if folded(by) in {folded(given["by"]) for given in wait.delegations}:
        return Refusal("delegated", f"{by} has delegated wait {wait.id}, and so does not answer it any more")
    if vote_of(wait, by) is not None:
        return Refusal("voted", f"{by} has already answered wait {wait.id}; it needs other people")
    if names is not None and not {by, *names} & set(wait.to):
        return Refusal("not_assigned", f"wait {wait.id} is for {', '.join(wait.to)}, and {by} is none of them")
    return None


def barred(wait: Wait) -> frozenset[str]:
    """Everybody who may not answer, or not any more; as ``folded`` names."""
    return wait.excluded | wait.done


def vote_of(wait: Wait, by: str) -> JsonDict | None:
    """What this person has answered, where several must."""
    return next((vote for vote in wait.votes if folded(vote["by"]) == folded(by)), None)


def without_requester(request: JsonDict, requester: str | None) -> JsonDict:
    """The request with the name of who submitted the intent, where ``not_by`` speaks of them.

    Raises BadInput where nobody said who that was: then it cannot be seen to that they keep out of it.
    """
    if REQUESTER not in request.get("not_by", ()):
        return request
    if requester is None:
        raise BadInput(
            'not_by has "requester", but the intent does not say who that is; give submit(..., requester="ana")'
        )
    named = (requester if name == REQUESTER else name for name in request["not_by"])
    return request | {"not_by": list(dict.fromkeys(named))}


def goes_back_to(intent: Intent) -> tuple[str, ...]:
    """The intents that this one was begun for: the one it repeats, and the one that has begun it, which is its requester."""
    requester = intent.requester or ""
    begun_by = requester.removeprefix("intent:") if requester.startswith("intent:") else None
    return tuple(id for id in (intent.replay_of, begun_by) if id)


def needs_comment(wait: Wait, outcome: str) -> bool:
    """Whether this outcome of the wait must be given with words."""
    return bool(wait.request.get("require_comment")) or outcome in wait.request.get("comment_for", ())
