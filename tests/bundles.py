"""ScenarioBundles for the tests: in the forms published ones are written in."""

from __future__ import annotations

from typing import Any

AGENT = {"role": "checker", "address": "change-checker", "delivery_mode": "stream", "create_if_missing": True}
PERSON = {"role": "operator", "display_name": "Operations Team"}


def check(**fields: Any) -> dict[str, Any]:
    """A step for the agent."""
    return {
        "step_id": "check", "tool_id": "tool.agent.task.v1", "assigned_to": "checker", "step_deadline_seconds": 60,
        **fields,
    }  # fmt: skip


def approve(task: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A step for the person."""
    return {
        "step_id": "approve", "tool_id": "tool.approval.human_signoff", "assigned_to": "operator",
        "requires_approval": True, "step_deadline_seconds": 3600, "remind_after_seconds": 600,
        "remind_interval_seconds": 600, "max_reminders": 3,
        "human_task": {"title": "Deploy?", "description": "Read the results.", **(task or {})}, **fields,
    }  # fmt: skip


def bundle(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A bundle with these steps."""
    return {
        "scenario_id": "deploy.approval.v1", "title": "Deploy with a sign-off", "agents": [AGENT], "humans": [PERSON],
        "workflow": {"steps": list(steps) or [check(), approve()]},
        "intent": {
            "type": "intent.deployment.approval.v1", "payload": {"service": "gateway", "version": "3.2.1"},
            "max_delivery_attempts": 3,
        },
        **fields,
    }  # fmt: skip
