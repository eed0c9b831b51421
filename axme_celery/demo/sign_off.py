"""The analyst's sign-off: on this terminal, in a second shell, or by ``--yes``.

The terminal and the ledger are watched at once: whoever answers first decides,
and the other is told.
"""

from __future__ import annotations

import getpass
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from ..errors import WaitClosed
from ..model import Wait, WaitStatus
from .narrator import Narrator

#: Seconds between two looks at the ledger while nobody types.
LOOK_SECONDS = 0.3


class Answerer(Protocol):
    """Who takes the answer. ``Axme`` is one."""

    def answer(
        self, wait: str, outcome: str, *, by: str, comment: str | None = None, data: dict[str, Any] | None = None
    ) -> object: ...


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a person said."""

    outcome: str
    by: str
    comment: str | None = None
    data: dict[str, Any] | None = None


#: What ``--yes`` says.
UNATTENDED = Answer(
    outcome="approved", by="demo --yes", comment="Nobody is at the terminal; approved by the demo.", data={}
)


def sign_off(
    wait: Wait,
    *,
    axme: Answerer,
    look: Callable[[], Wait],
    narrator: Narrator,
    terminal: TextIO | None,
    command: str,
    link: str | None = None,
) -> None:
    """Return when the wait is closed, by an answer given here or anywhere else.

    look:     reads the wait as it stands now.
    terminal: where a person types; None answers UNATTENDED at once.
    command:  what to type in a second shell, shown to the person.
    link:     the page of the sign-off.
    """
    if terminal is None:
        answer: Answer | None = UNATTENDED
    else:
        page = "" if link is None else f"Answer on its page (this link signs you in, once):\n{link}\n"
        narrator.tell("asked", f"{wait.title}\n{page}Answer here, or in a second shell:\n{command}")
        answer = _from_terminal(terminal, look, narrator)
    if answer is None:
        return
    try:
        axme.answer(wait.id, answer.outcome, by=answer.by, comment=answer.comment, data=answer.data)
    except WaitClosed as closed:
        narrator.tell("too late", str(closed))


def _from_terminal(terminal: TextIO, look: Callable[[], Wait], narrator: Narrator) -> Answer | None:
    """Ask until there is a yes or a no; None when somebody else has answered meanwhile."""
    narrator.ask("Publish? [y/n]")
    watched = [terminal]
    while True:
        typed, _, _ = select.select(watched, [], [], LOOK_SECONDS)
        if look().status != WaitStatus.OPEN:
            narrator.plain("")
            return None
        if not typed:
            continue
        line = terminal.readline()
        if not line:
            # The terminal is gone; the second shell remains.
            watched = []
            continue
        match line.strip().lower():
            case "y" | "yes":
                return _approval(terminal, narrator)
            case "n" | "no":
                narrator.ask("Why not?")
                return Answer(outcome="rejected", by=getpass.getuser(), comment=terminal.readline().strip() or None)
            case _:
                narrator.ask("Please type y or n:")


def _approval(terminal: TextIO, narrator: Narrator) -> Answer:
    narrator.ask("Headline of the summary (Enter for none):")
    # Cut rather than refused: the form allows 80 characters.
    headline = terminal.readline().strip()[:80]
    narrator.ask("Comment (Enter for none):")
    comment = terminal.readline().strip() or None
    return Answer(
        outcome="approved", by=getpass.getuser(), comment=comment, data={"headline": headline} if headline else {}
    )
