"""``watch``: intents as they happen: bars on a terminal, one line for each event elsewhere."""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from . import documents
from .arguments import DURATION
from .output import as_json as plain
from .output import shortened, status_of, text_of
from .project import with_axme

if TYPE_CHECKING:
    from ..extension import Axme
    from ..handle import IntentHandle
    from ..model import Event, Progress

#: How often the bars are drawn anew.
DRAW_SECONDS = 0.5
BAR_WIDTH = 24
#: From this many columns on there is room for whole ids.
WIDE = 120


@dataclass
class Watched:
    """One intent, as far as it is known here."""

    intent: IntentHandle
    #: The event that says best where it stands.
    last: Event | None = None
    ended: bool = False

    def saw(self, event: Event) -> None:
        """Take note of an event; within a wait, the one that says what for stays."""
        if event.status != "WAITING" or "title" in event.details:
            self.last = event


@click.command(short_help="Watch intents live until they have ended.")
@click.argument("intent_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--timeout", type=DURATION, help="Watch no longer than this; exit code 1 if one has not ended by then.")
@click.option("--json", "as_json", is_flag=True, help="Each event as a JSON document on a line of its own.")
@with_axme
def watch(axme: Axme, intent_ids: tuple[str, ...], timeout: float | None, as_json: bool) -> None:
    """Watch intents until they have ended: live bars on a terminal, one line for each event elsewhere.

    Ends with 0 only if all of them are COMPLETED. Stopping it (Ctrl-C, 130) stops nothing but the watching.
    """
    watched = {id: Watched(axme.intent(id)) for id in dict.fromkeys(intent_ids)}
    live = not as_json and _can_redraw(len(watched))
    screen = Screen()
    try:
        for events in _events(list(watched.values()), timeout):
            for event in events:
                watched[event.intent_id].saw(event)
                if not live:
                    click.echo(json.dumps(documents.record(event), default=plain) if as_json else _line(event))
            if live:
                width = shutil.get_terminal_size().columns - 1
                screen.draw([shortened(_bar(one, width), width) for one in watched.values()])
    except KeyboardInterrupt:
        click.echo("\nno longer watching; the intents go on", err=True)
        sys.exit(130)
    unfinished = [one for one in watched.values() if not one.ended]
    if unfinished:
        click.echo(f"{len(unfinished)} of {len(watched)} have not ended; they go on", err=True)
    if any(one.intent.refresh().status != "COMPLETED" for one in watched.values()):
        sys.exit(1)


def _events(watched: Sequence[Watched], timeout: float | None) -> Iterator[list[Event]]:
    """The events of all of them as they come, none when there was none for a while; until all have ended."""
    told: queue.SimpleQueue[tuple[Watched, Event | Exception | None]] = queue.SimpleQueue()

    def follow(one: Watched) -> None:
        try:
            for event in one.intent.follow():
                told.put((one, event))
            told.put((one, None))
        except Exception as error:  # said by the main thread, where the errors of verbs are told
            told.put((one, error))

    for one in watched:
        threading.Thread(target=follow, args=(one,), daemon=True).start()
    until = None if timeout is None else time.monotonic() + timeout
    while not all(one.ended for one in watched):
        left = DRAW_SECONDS if until is None else min(DRAW_SECONDS, until - time.monotonic())
        if left <= 0:
            return
        events = []
        try:
            news = told.get(timeout=left)
            while True:
                one, event = news
                if isinstance(event, Exception):
                    raise event
                if event is None:
                    one.ended = True
                else:
                    events.append(event)
                news = told.get_nowait()
        except queue.Empty:
            yield events


class Screen:
    """Lines at the bottom of a terminal, drawn over one another."""

    def __init__(self) -> None:
        self._drawn = 0

    def draw(self, lines: Sequence[str]) -> None:
        """Put these lines where the last ones were."""
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        click.echo(up + "".join(f"\x1b[2K{line}\n" for line in lines), nl=False)
        self._drawn = len(lines)


def _can_redraw(count: int) -> bool:
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return False
    return count < shutil.get_terminal_size().lines


def _line(event: Event) -> str:
    """An event as one line: moment, intent, what happened, where it stands, and what that means."""
    words = [text_of(event.at), event.intent_id, event.type.removeprefix("intent.")]
    words += [status_of(event.status, event.waiting_reason), _meaning(event)]
    return "  ".join(word for word in words if word)


def _bar(one: Watched, width: int) -> str:
    """An intent as one line: how far it is, and where it stands. On a narrow terminal only the end of its id."""
    intent, last = one.intent, one.last
    progress = max(intent.progress().values(), key=lambda p: p.at, default=None)
    name = intent.id if width >= WIDE else f"…{intent.id[-8:]}"
    words = [name, text_of(intent.type), _progress(progress, done=intent.status == "COMPLETED")]
    if last is not None:
        words += [status_of(last.status, last.waiting_reason), _meaning(last)]
    return "  ".join(word for word in words if word)


def _progress(progress: Progress | None, *, done: bool) -> str:
    if progress is None:
        return ""
    if progress.total is None or progress.total <= 0:
        return f"{progress.done:g}" + (f" {text_of(progress.note)}" if progress.note else "")
    share = 1.0 if done else min(1.0, max(0.0, progress.done / progress.total))
    filled = round(share * BAR_WIDTH)
    bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}]"
    note = f" {text_of(progress.note)}" if progress.note else ""
    return f"{bar} {progress.done:g}/{progress.total:g}{note}"


def _meaning(event: Event) -> str:
    """What an event's details say, in a few words."""
    details = event.details
    words = [str(details.get("title") or details.get("reason") or "")]
    error = details.get("error")
    if isinstance(error, dict):
        words.append(f"{error.get('message')} [{error.get('code')}]")
    who = details.get("pending_with") or details.get("to") or details.get("escalated_to")
    if who:
        words.append("to " + ", ".join(map(str, who)))
    if details.get("outcome"):
        words.append(f"{details['outcome']} by {event.actor}" if event.actor else str(details["outcome"]))
    elif details.get("cause"):
        words.append(str(details["cause"]))
    return text_of(" ".join(word for word in dict.fromkeys(words) if word))
