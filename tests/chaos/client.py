"""A client that keeps a history of what it asked and what it was told."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from axme_celery.errors import BadInput, IntentEnded, KeyConflict, NotAllowed, NotFound, WaitClosed

from .witness import note

#: What a verb raises when it certainly did nothing.
REFUSALS = (WaitClosed, IntentEnded, NotAllowed, NotFound, KeyConflict, BadInput)


class Client:
    """Submits, answers, completes and cancels, each with an invoke line before and an ok, fail or info line after."""

    def __init__(self, axme: Any) -> None:
        self._axme = axme
        #: How the last call ended: ok, fail or info.
        self.last = ""

    def submit(self, work: Any, *, key: str, **how: Any) -> Any:
        """The intent's handle; None when it is not known whether there is one."""
        return self._call("submit", {"key": key}, lambda: self._axme.submit(work, key=key, **how))

    def answer(self, wait_id: str, outcome: str, by: str) -> bool:
        """True when it was told that its answer stands."""
        asked = {"wait": wait_id, "outcome": outcome, "by": by}
        return self._call("answer", asked, lambda: self._axme.answer(wait_id, outcome, by=by)) is not None

    def delegate(self, wait_id: str, to: str, by: str) -> bool:
        """True when it was told that the answer is somebody else's now."""
        asked = {"wait": wait_id, "to": to, "by": by}
        return self._call("delegate", asked, lambda: self._axme.delegate(wait_id, to, by=by)) is not None

    def extend(self, wait_id: str, duration: str, by: str) -> bool:
        """True when it was told that the wait has more time."""
        asked = {"wait": wait_id, "duration": duration, "by": by}
        return self._call("extend", asked, lambda: self._axme.extend(wait_id, duration, by=by)) is not None

    def complete_tool(self, tool: str, job_id: str, result: Any) -> bool:
        """True when it was told that its report is kept."""
        asked = {"tool": tool, "job": job_id, "result": result}
        return self._call("complete_tool", asked, lambda: self._axme.complete_tool(tool, job_id, result) or True)

    def cancel(self, intent_id: str, by: str) -> bool:
        """True when it was told that the intent is canceled."""
        asked = {"intent": intent_id, "by": by}
        return self._call("cancel", asked, lambda: self._axme.cancel(intent_id, "chaos", by=by)) is not None

    def _call(self, op: str, asked: dict[str, Any], ask: Callable[[], Any]) -> Any:
        line = {"op": op, "id": uuid.uuid4().hex[:12], **asked}
        self.last = "info"
        note("invoke", **line)
        try:
            told = ask()
        except REFUSALS as refusal:
            self.last = "fail"
            note("fail", **line, why=type(refusal).__name__)
            return None
        except Exception as trouble:
            note("info", **line, why=f"{type(trouble).__name__}: {trouble}"[:300])
            return None
        self.last = "ok"
        note("ok", **line, **({"intent": told.id} if op in ("submit", "answer") else {}))
        return told
