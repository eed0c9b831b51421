"""Dead letters: what could not go on, by what it died of; started again or put away, one or many."""

from __future__ import annotations

from typing import Any

from flask import redirect, request, url_for

from ... import submit
from ...errors import AxmeError, BadInput, NotFound
from ...model import DeadLetter
from ...who import Actor, Role
from ..house import house, need
from . import blueprint
from .paging import LINES, cut, filters
from .shown import page, part_wanted, reason_given

#: As many are done in one request; a group that is larger takes several.
MOST_AT_ONCE = 200


@blueprint.get("/dead-letters")
def dead_letters() -> Any:
    """The open ones in groups, and the letters of a group or a state."""
    actor = need()
    ledger = house().rt.ledger
    given = filters("state", "kind", "code")
    state = given["state"] if given["state"] in ("OPEN", "REPLAYED", "DISCARDED", "all") else "OPEN"
    asked = {**given, "state": "" if state == "all" else state}
    after = request.args.get("after", "")[:36] or None
    lines, older, first = cut(
        ledger.views.find_letters(asked, actor.owner, after, LINES + 1), lambda line: line[0].id
    )  # fmt: skip
    return page(
        "_letters_live.html" if part_wanted() else "dead_letters.html",
        tab="dead_letters",
        groups=ledger.views.letter_groups(actor.owner),
        lines=lines,
        older=older,
        first=first,
        given={**given, "state": state},
        count=ledger.views.count_letters(actor.owner),
        most=MOST_AT_ONCE,
    )


@blueprint.post("/dead-letters")
def settle_letters() -> Any:
    """Replay or discard those that are ticked, or all of a group; say of each how it went."""
    actor = need(Role.OPERATOR)
    reason, verb = reason_given(), request.form.get("verb")
    if verb not in ("replay", "discard"):
        raise BadInput("Choose to replay or to discard.")
    chosen = _chosen(actor)
    if not chosen:
        raise BadInput("Tick the letters first, or choose a group.")
    done: list[tuple[DeadLetter, str, str]] = []
    for letter in chosen:
        try:
            if verb == "replay":
                new = submit.replay(house().rt, letter.id, by=actor.id, reason=reason)
                done.append((letter, "good", new.id))
            else:
                submit.discard(house().rt, letter.id, by=actor.id, reason=reason)
                done.append((letter, "gone", ""))
        except AxmeError as refused:
            done.append((letter, "bad", str(refused)))
    if len(done) == 1 and done[0][1] == "good":
        return redirect(url_for("axme.pages.intent", intent_id=done[0][2]), 303)
    return page("letters_done.html", tab="dead_letters", done=done, verb=verb, reason=reason)


def _chosen(actor: Actor) -> list[DeadLetter]:
    """The open letters a form names, of those that exist for them. Raises NotFound."""
    ledger = house().rt.ledger
    if request.form.get("group_code"):
        wanted = {"state": "OPEN", "kind": request.form.get("group_kind", ""), "code": request.form["group_code"]}
        return [letter for letter, _ in ledger.views.find_letters(wanted, actor.owner, None, MOST_AT_ONCE)]
    found = []
    for letter_id in request.form.getlist("letter")[:MOST_AT_ONCE]:
        letter = ledger.dead_letter(letter_id)
        intent = None if letter is None else ledger.intent(letter.intent_id)
        if letter is None or intent is None or not actor.sees(intent.owner):
            raise NotFound("dead letter", letter_id)
        found.append(letter)
    return found
