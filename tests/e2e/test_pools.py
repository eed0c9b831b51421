"""Every pool of Celery carries an intent through its steps and all four waits."""

from __future__ import annotations

from .harness import Stage


def travel(stage: Stage, name: str) -> None:
    """Submit a journey, answer whatever it asks, and see that it went as told."""
    project, axme = stage.project, stage.axme
    result = project.journey.delay(name)
    intent = stage.intent_of(result)
    stage.wait_status(intent, "WAITING")
    axme.complete_tool("warehouse", f"{name}-job", {"rows": 3})
    wait = _human(stage, intent)
    axme.answer(wait, "approved", by="ana")

    ended = result.get(timeout=30)

    assert ended == {
        "intent": intent.id, "before": 1, "rows": {"rows": 3}, "approved": True, "by": "ana", "doubled": 42, "after": 2
    }  # fmt: skip
    assert intent.refresh().result == ended
    assert stage.pages_done(name) == [1, 2]
    assert [w.kind.value for w in intent.waits()] == ["TOOL", "HUMAN", "TIME", "AGENT"]
    assert stage.leg(intent).run == 5 and stage.leg(intent).attempts == 1


def _human(stage, intent):
    from .harness import until

    return until(
        lambda: next((w for w in intent.waits() if w.kind == "HUMAN" and w.status == "OPEN"), None),
        "question to people",
    )


def test_prefork(open_stage):
    stage = open_stage()
    stage.worker(beat=True)
    travel(stage, "one")
