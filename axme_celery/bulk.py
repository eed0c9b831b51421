"""One answer to many waits: of one kind, opened with ``bulk=True``; each decided on its own, with its own event."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from . import answer as answers
from .errors import AxmeError, BadInput, NotAllowed, NotFound
from .model import Wait, WaitKind
from .ports import Runtime

#: As many as somebody can have looked at.
MOST = 200


@dataclass(frozen=True)
class Row:
    """What became of one of them."""

    wait_id: str
    #: None where there is no such wait.
    title: str | None
    intent_id: str | None
    #: None where the answer was taken, or stood already.
    error: AxmeError | None


def answer(
    rt: Runtime,
    wait_ids: Sequence[str],
    outcome: str,
    *,
    by: str,
    comment: str | None = None,
    groups: Collection[str] | None = None,
    via: str | None = None,
    expected_hashes: Mapping[str, str] | None = None,
) -> list[Row]:
    """Give one answer to many waits. Returns a row for each, in the order given.

    expected_hashes: of what the person was shown, by wait.

    A wait that is closed, or that this person may not answer, or was not opened for this, spoils only its own row.
    Raises BadInput, with nothing answered, for waits of several kinds, more than 200, none, or one of them twice.
    """
    if not 1 <= len(wait_ids) <= MOST or len(set(wait_ids)) != len(wait_ids):
        raise BadInput(f"{len(wait_ids)} waits were given; give 1 to {MOST}, each once")
    found = {record.wait.id: record.wait for record in rt.ledger.wait_records(wait_ids)}
    kinds = {(w.request["task_type"], *w.request["outcomes"]) for w in found.values() if w.kind is WaitKind.HUMAN}
    if len(kinds) > 1:
        listed = "; ".join(sorted(f"{task_type}: {', '.join(outcomes)}" for task_type, *outcomes in kinds))
        raise BadInput(f"these waits are of {len(kinds)} kinds ({listed}); answer one kind at a time")
    rows = []
    for wait_id in wait_ids:
        wait, error = found.get(wait_id), None
        try:
            _may_be_one_of_many(wait, wait_id)
            answers.answer(
                rt, wait_id, outcome, by=by, comment=comment, groups=groups, via=via,
                expected_hash=(expected_hashes or {}).get(wait_id),
            )  # fmt: skip
        except AxmeError as refusal:
            error = refusal
        rows.append(
            Row(wait_id, wait.title if wait is not None else None, wait.intent_id if wait is not None else None, error)
        )
    return rows


def _may_be_one_of_many(wait: Wait | None, wait_id: str) -> None:
    if wait is None:
        raise NotFound("wait", wait_id)
    if wait.kind is not WaitKind.HUMAN:
        raise BadInput(f"wait {wait.id} is for a {wait.kind.value.lower()}, not for a person: {wait.title}")
    if not wait.request.get("bulk"):
        raise NotAllowed(f"wait {wait.id} is to be answered by itself: it was not opened with bulk=True", "not_bulk")


__all__ = ["MOST", "Row", "answer"]
