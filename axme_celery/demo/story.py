"""The story as it is told: submit, wait, export, kill, take over, sign off, publish, prove.

Each part watches what really happens, in the ledger and in the witness's log, says so,
and fails by name when it does not come in time.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, TypeVar

from ..model import Status, Wait, WaitKind, WaitStatus
from . import proof, report, warehouse, witness
from .app import KILL_PAGE, axme, config, monthly_export
from .home import HOME_VARIABLE, DemoHome
from .narrator import Narrator
from .pages import Pages
from .processes import Crew, DemoFailed
from .sign_off import sign_off

T = TypeVar("T")

#: Seconds between two looks at what happens.
LOOK_SECONDS = 0.05
#: How long a part of the story may take that depends on no person. Several times what it takes on a slow machine.
PART_SECONDS = 60.0


class Story:
    """One telling, in a home whose processes already run."""

    def __init__(
        self, home: DemoHome, crew: Crew, narrator: Narrator, *, terminal: TextIO | None, pages: Pages | None = None
    ) -> None:
        """terminal: where a person signs off; None signs off unattended. pages: where it can be watched."""
        self._home = home
        self._crew = crew
        self._narrator = narrator
        self._terminal = terminal
        self._pages = pages
        self._intent_id = ""
        #: Name and process of the killed, and when (seconds since 1970).
        self._killed: tuple[str, int] | None = None
        self._killed_at = 0.0
        #: Highest page told of.
        self._told_page = 0

    def tell(self, month: str) -> bool:
        """Tell it all. True when the proof holds. Raises DemoFailed."""
        self._home.kill_marker.touch()
        self._submit(month)
        self._await_warehouse()
        self._kill()
        self._await_takeover()
        self._sign_off()
        self._await_end()
        self._show_timeline()
        return self._prove()

    # -- the parts, in their order --

    def _submit(self, month: str) -> None:
        intent = axme.submit(monthly_export.s(month), key=config.queue, tags=("demo",))
        self._intent_id = intent.id
        self._narrator.tell("submitted", f"intent {intent.id}: the ledger has it, whatever dies now")
        if self._pages is not None:
            self._narrator.tell("live page", f"{self._pages.link(f'/intents/{intent.id}')}\n(signs you in, once)")

    def _await_warehouse(self) -> None:
        self._until("the wait for the warehouse", lambda: self._wait(WaitKind.TOOL))
        self._narrator.tell("waiting", "for the warehouse to run its query; no worker is busy with it")
        rows = self._until("the warehouse's report", self._rows_reported)
        self._narrator.tell(
            "resumed", f"the warehouse reported {rows:,} rows in {warehouse.PAGES} pages; exporting them"
        )

    def _rows_reported(self) -> int | None:
        """How many, once the intent has heard of it; None for ever when the job failed, which ends the intent."""
        if self._opened(WaitKind.TOOL).status != WaitStatus.ANSWERED:
            return None
        return warehouse.job(self._home.warehouse, self._job_id).row_count

    def _kill(self) -> None:
        line = self._until(f"page {KILL_PAGE}", lambda: self._begun(KILL_PAGE, 1))
        name = self._crew.group_of(line.pid)
        if name is None:
            raise DemoFailed(f"page {KILL_PAGE} runs in process {line.pid}, which belongs to no worker of this demo")
        self._killed = (name, line.pid)
        self._crew.kill_group(name)
        self._killed_at = time.time()
        # Only now: the next run must find page 47 an ordinary page.
        self._home.kill_marker.unlink()
        self._narrator.tell("KILLED", f"{name} and its pool (SIGKILL), in the middle of page {KILL_PAGE}")

    def _await_takeover(self) -> None:
        line = self._until("the takeover", lambda: self._begun(KILL_PAGE, 2))
        self._narrator.tell(
            "taken over",
            f"{line.at - self._killed_at:.1f} s after the kill, by {self._crew.group_of(line.pid)}\n"
            f"run {line.run} goes on with page {KILL_PAGE}; those before it are recorded and do not run again",
        )

    def _sign_off(self) -> None:
        self._until("the question to the analyst", lambda: self._wait(WaitKind.HUMAN))
        wait = self._opened(WaitKind.HUMAN)
        self._narrator.tell("waiting", "for a person; for days if need be, and no worker, no message is held for it")
        sign_off(
            wait,
            axme=axme,
            look=lambda: self._opened(WaitKind.HUMAN),
            narrator=self._narrator,
            terminal=self._terminal,
            command=approve_command(self._home, wait.id),
            link=None if self._pages is None else self._pages.link(f"/waits/{wait.id}"),
        )
        decided = self._opened(WaitKind.HUMAN)
        words = f": {decided.comment}" if decided.comment else ""
        self._narrator.tell("signed off", f"{decided.outcome} by {decided.answered_by}{words}")

    def _await_end(self) -> None:
        self._until("the end", lambda: axme.intent(self._intent_id).status == Status.COMPLETED)
        result = axme.intent(self._intent_id).result
        files = result["published"]
        self._narrator.tell("COMPLETED", "\n".join(["published:", *files]) if files else "nothing was published")
        for file in files:
            if file.endswith(".md"):
                self._narrator.heading("The summary")
                self._narrator.plain(Path(file).read_text(encoding="utf-8"))

    def _show_timeline(self) -> None:
        self._narrator.heading("The timeline, as the ledger has it")
        began = axme.intent(self._intent_id).created_at
        for event in axme.intent(self._intent_id).events():
            reason = f" {event.waiting_reason}" if event.waiting_reason else ""
            actor = f", by {event.actor}" if event.actor else ""
            seconds = (event.at - began).total_seconds()
            self._narrator.plain(f"{event.seq:3}  {seconds:6.2f} s  {event.type}{reason}{actor}")

    def _prove(self) -> bool:
        seen = self._seen()
        self._narrator.heading("Who wrote which page, by the witness's log")
        for first, last, run, pid in proof.who_wrote_what(seen.lines):
            killed = ", killed" if self._killed and pid == self._killed[1] else ""
            self._narrator.plain(f"pages {first:2} to {last:2}   run {run}   process {pid}{killed}")
        self._narrator.heading("The proof")
        claims = proof.claims(seen)
        for claim in claims:
            self._narrator.plain(f"[ok] {claim.says}" if claim.holds else f"[NO] {claim.says}\n     {claim.but}")
        holds = all(claim.holds for claim in claims)
        self._narrator.heading("It holds." if holds else "IT DOES NOT HOLD.")
        return holds

    def _seen(self) -> proof.Seen:
        name, pid = self._killed or ("", 0)
        steps = [step for step in axme.intent(self._intent_id).steps() if step.name.endswith("export_page")]
        job_id = self._job_id
        pages = range(1, warehouse.PAGES + 1)
        asked_for = [row for page in pages for row in warehouse.read_page(self._home.warehouse, job_id, page)[1]]
        files = axme.intent(self._intent_id).result["published"]
        published = Path(files[0]).read_bytes().decode().partition("\n")[2] if files else None
        return proof.Seen(
            pages=warehouse.PAGES,
            kill_page=KILL_PAGE,
            killed_pid=pid,
            exit_code=self._crew.exit_code(name),
            lines=witness.read(self._home.witness),
            recorded={json.loads(step.value)["page"]: step.run for step in steps},
            exported="".join(
                self._home.part(page).read_bytes().decode() for page in pages if self._home.part(page).exists()
            ),
            asked_for=report.as_csv(asked_for),
            warehouse_runs=warehouse.job(self._home.warehouse, job_id).times_run,
            published=published,
        )

    # -- how it watches --

    def _until(self, what: str, look: Callable[[], T | None]) -> T:
        """Look until there is something to see. Raises DemoFailed when it cannot come any more, or takes too long."""
        give_up_at = time.monotonic() + PART_SECONDS
        while True:
            seen = look()
            self._tell_pages()
            if seen:
                return seen
            self._check(what)
            if time.monotonic() > give_up_at:
                raise DemoFailed(f"{what} did not come within {PART_SECONDS:.0f} s; the logs say more")
            time.sleep(LOOK_SECONDS)

    def _check(self, what: str) -> None:
        for name in self._crew.names:
            if not self._crew.is_running(name) and (self._killed is None or name != self._killed[0]):
                raise DemoFailed(f"{name} ended (exit code {self._crew.exit_code(name)}) while {what} was awaited")
        intent = axme.intent(self._intent_id)
        if intent.status.is_final and intent.status != Status.COMPLETED:
            raise DemoFailed(f"the intent ended {intent.status} while {what} was awaited: {intent.error}")

    def _tell_pages(self) -> None:
        wrote = {line.page: line for line in witness.read(self._home.witness) if line.what == "wrote"}
        for page in range(self._told_page + 10, len(wrote) + 1, 10):
            line = wrote.get(page)
            if line is not None:
                self._told_page = page
                self._narrator.tell("exported", f"pages up to {page}, by {self._crew.group_of(line.pid)}")

    def _begun(self, page: int, times: int) -> witness.Line | None:
        """The page's n-th beginning, once there is one."""
        begun = [line for line in witness.read(self._home.witness) if (line.what, line.page) == ("started", page)]
        return begun[times - 1] if len(begun) >= times else None

    def _wait(self, kind: WaitKind) -> Wait | None:
        """The intent's one wait of this kind, once it has been opened."""
        return next((wait for wait in axme.intent(self._intent_id).waits() if wait.kind == kind), None)

    @property
    def _job_id(self) -> str:
        return self._opened(WaitKind.TOOL).job_id or ""

    def _opened(self, kind: WaitKind) -> Wait:
        wait = self._wait(kind)
        if wait is None:
            raise DemoFailed(f"the intent has lost its {kind} wait")
        return wait


def approve_command(home: DemoHome, wait_id: str) -> str:
    """What answers this wait from another shell, wherever that shell is."""
    here = Path(sys.executable).with_name("axme-celery")
    program = "axme-celery" if shutil.which("axme-celery") else str(here)
    words = [program, "-A", "axme_celery.demo.app", "approve", wait_id, "--by", "ana", "--comment", "looks right"]
    words += ["--data", json.dumps({"headline": "Signed off in a second shell"})]
    return f"{HOME_VARIABLE}={shlex.quote(str(home.path))} {shlex.join(words)}"
