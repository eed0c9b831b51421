"""A ScenarioBundle as people write it, read into the plain steps that are run.

Liberal in what it takes: published bundles use names the published schema does not have, and the other way round.
What cannot be run is an error; what would not be done as somebody may expect is a warning.

Source: AXP ScenarioBundle, and the published examples.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import BadInput
from .model import JsonDict
from .parties import MODES, address
from .texts import assignees, line

#: Steps of one scenario.
MOST_STEPS = 100
#: Task types of AXP that are no kinds of their own here, and whose outcomes they have.
ALIKE = {
    "provide_data": "form", "attach_file": "manual_action", "validate_real_world": "confirmation",
    "validate_output": "review", "delegation": "assignment", "reroute": "assignment", "escalate": "approval",
}  # fmt: skip
TASK_TYPES = {
    **ALIKE,
    **{
        each: each
        for each in (
            "approval", "confirmation", "review", "assignment", "form", "clarification", "manual_action", "override",
        )
    },
}  # fmt: skip
RUNTIME_TYPES = ("human_approval", "timeout", "reminder", "delay", "escalation", "notification")
_INTERNAL_TOOLS = {
    "tool.notification.": "notification", "tool.internal.notification": "notification",
    "tool.internal.delay": "delay", "tool.internal.timeout": "timeout", "tool.internal.reminder": "reminder",
    "tool.internal.escalation": "escalation", "tool.approval.human": "human", "tool.human.": "human",
}  # fmt: skip
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NO_ASSIGNEE = re.compile(r"[^A-Za-z0-9._%+@:/-]+")
#: What a bundle must show before a human step says yes, where it asks for evidence and has no form.
_EVIDENCE = {
    "type": "object", "required": ["evidence"],
    "properties": {"evidence": {"type": "string", "minLength": 1, "title": "Evidence"}},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Provision:
    """An agent a scenario needs."""

    role: str
    address: str
    display_name: str | None = None
    delivery_mode: str | None = None
    callback_url: str | None = None
    create_if_missing: bool = True


@dataclass(kw_only=True)
class Scenario:
    """What a bundle says, and everything that is wrong with it."""

    id: str = ""
    title: str = ""
    agents: list[Provision] = field(default_factory=list)
    #: role -> who that is.
    people: dict[str, list[str]] = field(default_factory=dict)
    intent_type: str = ""
    payload: JsonDict = field(default_factory=dict)
    deadline_at: str | None = None
    steps: list[JsonDict] = field(default_factory=list)
    entry: str = ""
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def program(self) -> JsonDict:
        """What is run: plain JSON, complete in itself."""
        return {"scenario_id": self.id, "title": self.title, "entry": self.entry, "steps": self.steps}

    @property
    def compile_id(self) -> str:
        """Tells this program from any other."""
        text = json.dumps(self.program, sort_keys=True, separators=(",", ":"))
        return "cmp_" + hashlib.sha256(text.encode()).hexdigest()[:24]


def read(bundle: object) -> Scenario:
    """Read a bundle. Never raises for what is in it: ``errors`` has what keeps it from being run."""
    found = Scenario()
    if not isinstance(bundle, Mapping):
        found.errors.append("the bundle must be a JSON object")
        return found
    _Reader(dict(bundle), found).read()
    return found


class _Reader:
    def __init__(self, bundle: JsonDict, into: Scenario) -> None:
        self._bundle = bundle
        self._into = into
        self._addresses: dict[str, str] = {}
        given = bundle.get("intent")
        self._intent_given: JsonDict = given if isinstance(given, dict) else {}

    def read(self) -> None:
        into, bundle = self._into, self._bundle
        into.id = self._line(bundle, "scenario_id", "", required=True) or ""
        if into.id and not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", into.id):
            self._wrong(f"scenario_id is {into.id[:80]!r}; it is words of letters, digits, _ and -, with dots between")
        into.title = self._line(bundle, "title", "") or into.id
        for name in ("description", "idempotency_key"):
            if bundle.get(name) is not None and not isinstance(bundle[name], str):
                self._wrong(f"{name} must be text")
        self._agents()
        self._humans()
        self._intent()
        self._steps()

    # -- who ---------------------------------------------------------------------

    def _agents(self) -> None:
        for n, agent in enumerate(self._objects(self._bundle, "agents", 50)):
            where = f"agents[{n}]."
            role = self._line(agent, "role", where) or self._line(agent, "address", where, required=True)
            given = agent.get("address") or role
            if role is None:
                continue
            try:
                at = address(given, f"{where}address")
            except BadInput as wrong:
                self._wrong(str(wrong))
                continue
            mode = self._line(agent, "delivery_mode", where)
            if mode is not None and mode not in MODES:
                self._wrong(f"{where}delivery_mode is {mode!r}; it is one of {', '.join(MODES)}")
                mode = None
            if role in self._addresses:
                self._wrong(f"{where}role {role!r} is there twice")
            self._addresses[role] = at
            self._into.agents.append(
                Provision(
                    role=role, address=at, display_name=self._line(agent, "display_name", where), delivery_mode=mode,
                    callback_url=self._line(agent, "callback_url", where, longest=2048),
                    create_if_missing=agent.get("create_if_missing") is not False,
                )
            )  # fmt: skip

    def _humans(self) -> None:
        for n, human in enumerate(self._objects(self._bundle, "humans", 20)):
            where = f"humans[{n}]."
            role = self._line(human, "role", where, required=True)
            if role is None:
                continue
            names = [role, *([human["contact"]] if isinstance(human.get("contact"), str) else [])]
            if role in self._addresses or role in self._into.people:
                self._wrong(f"{where}role {role!r} is there twice")
            self._into.people[role] = self._names(names, where)

    def _names(self, names: list[str], where: str) -> list[str]:
        """Names of people as assignees can be: what cannot stand in one becomes a dash."""
        kept = [_NO_ASSIGNEE.sub("-", name.strip()).strip("-") for name in names]
        try:
            return list(assignees([name for name in kept if name], f"{where}assignees"))
        except BadInput as wrong:
            self._wrong(str(wrong))
            return []

    def _who(self, given: object, where: str) -> list[str]:
        """Roles, or names, as assignees."""
        named = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        found: list[str] = []
        for one in named:
            if isinstance(one, str):
                found += self._into.people.get(one) or self._names([one], where)
        return list(dict.fromkeys(found))[:20]

    # -- what --------------------------------------------------------------------

    def _intent(self) -> None:
        intent = self._intent_given
        if not isinstance(self._bundle.get("intent"), dict):
            self._wrong("intent is missing: an object with type and payload")
            return
        self._into.intent_type = self._line(intent, "type", "intent.", required=True) or ""
        payload = intent.get("payload", {})
        if not isinstance(payload, dict):
            self._wrong("intent.payload must be an object")
            payload = {}
        self._into.payload = payload
        deadline = self._line(intent, "deadline_at", "intent.")
        self._into.deadline_at = deadline
        if deadline is not None and not re.match(r"\d{4}-\d\d-\d\dT", deadline):
            self._wrong(f"intent.deadline_at is {deadline[:80]!r}; write it like 2026-10-31T17:00:00Z")

    def _steps(self) -> None:
        workflow = self._bundle.get("workflow") or {}
        if not isinstance(workflow, Mapping):
            self._wrong("workflow must be an object")
            return
        if workflow.get("macro_id") is not None:
            self._wrong(f"workflow.macro_id {str(workflow['macro_id'])[:80]!r} is not known; write its steps")
            return
        key = "workflow_steps" if "workflow_steps" in self._bundle and "steps" not in workflow else "steps"
        source = self._bundle if key == "workflow_steps" else workflow
        given = self._objects(source, key, MOST_STEPS)
        steps = [self._step(n, each) for n, each in enumerate(given or self._only_step())]
        into = self._into
        into.steps = [each for each in steps if each is not None]
        ids = [each["id"] for each in into.steps]
        for twice in sorted({each for each in ids if ids.count(each) > 1}):
            self._wrong(f"step_id {twice!r} is there twice")
        if not into.steps:
            if not into.errors:
                self._wrong("there is nothing to do: give workflow.steps, an agent, or intent.human_task")
            return
        self._order(workflow, ids)

    def _only_step(self) -> list[JsonDict]:
        """A bundle without steps is one: its human task, or the work of its first agent."""
        task = self._intent_given.get("human_task")
        if isinstance(task, Mapping):
            role = next(iter(self._into.people), None)
            return [
                {"step_id": "human_task", "runtime_type": "human_approval", "assigned_to": role, "human_task": task}
            ]
        if self._into.agents:
            first = self._into.agents[0].role
            return [{"step_id": "task", "tool_id": "tool.agent.task.v1", "assigned_to": first}]
        return []

    def _order(self, workflow: Mapping[str, Any], ids: list[str]) -> None:
        """What follows what. Steps are run in the order they are written in, unless they say ``on_success``.

        Once any of them does, one that does not is an end. One that others go to ``on_failure`` is not fallen into.
        """
        into, known = self._into, set(ids)
        entry = workflow.get("entry_step")
        if entry is not None and entry not in known:
            self._wrong(f"workflow.entry_step {str(entry)[:80]!r} is no step")
        into.entry = entry if isinstance(entry, str) and entry in known else ids[0]
        for step in into.steps:
            for name in ("on_success", "on_failure"):
                if step[name] is not None and step[name] not in known:
                    self._wrong(f"{name} of step {step['id']!r} is {step[name]!r}, which is no step")
        if any(step["on_success"] is not None for step in into.steps):
            return
        handlers = {step["on_failure"] for step in into.steps}
        path = [step for step in into.steps if step["id"] not in handlers or step["id"] == into.entry]
        for step, after in itertools.pairwise(path):
            step["on_success"] = after["id"]

    # -- a step ---------------------------------------------------------------------

    def _step(self, n: int, given: JsonDict) -> JsonDict | None:
        where = f"steps[{n}]."
        step_id = self._line(given, "step_id", where, longest=100, required=True)
        if step_id is None:
            return None
        if not _ID.fullmatch(step_id):
            self._wrong(f"{where}step_id is {step_id!r}; it is letters, digits, _, - and .")
        where = f"step {step_id!r}: "
        kind = self._kind(given, where)
        role = self._line(given, "assigned_to", where)
        step: JsonDict = {
            "id": step_id, "kind": kind, "on_success": self._line(given, "on_success", where),
            "on_failure": self._line(given, "on_failure", where), "timeout": self._count(given, "step_deadline_seconds", where),
        }  # fmt: skip
        config = given.get("runtime_config") or given.get("config") or {}
        if not isinstance(config, Mapping):
            self._wrong(f"{where}runtime_config must be an object")
            config = {}
        if kind == "agent":
            step |= self._agent_step(given, role, where)
        if kind in ("delay", "timeout"):
            step["seconds"] = self._seconds({**given, **config}, where)
        if kind in ("notification", "reminder", "escalation"):
            text = {
                name: str(config[name])[:2000] for name in ("subject", "title", "body", "message") if config.get(name)
            }
            step["subject"] = text.get("subject") or text.get("title")
            step["body"] = text.get("body") or text.get("message")
        if kind in ("human", "notification", "reminder", "escalation") or given.get("requires_approval") is True:
            step |= self._human_step(given, config, role, kind, where)
        return step

    def _kind(self, given: JsonDict, where: str) -> str:
        runtime = self._line(given, "runtime_type", where)
        tool = self._line(given, "tool_id", where) or ""
        role = given.get("assigned_to")
        if runtime is not None:
            if runtime not in RUNTIME_TYPES:
                self._wrong(f"{where}runtime_type is {runtime[:80]!r}; it is one of {', '.join(RUNTIME_TYPES)}")
            return "human" if runtime == "human_approval" else runtime
        for prefix, kind in _INTERNAL_TOOLS.items():
            if tool.startswith(prefix):
                return kind
        if role in self._addresses:
            return "agent"
        if role in self._into.people or isinstance(given.get("human_task"), Mapping):
            return "human"
        if role is not None:
            self._wrong(f"{where}assigned_to is {str(role)[:80]!r}, which is no role of agents or humans")
        else:
            self._wrong(f"{where}nobody does it: give assigned_to, or a runtime_type ({', '.join(RUNTIME_TYPES)})")
        return "agent"

    def _agent_step(self, given: JsonDict, role: str | None, where: str) -> JsonDict:
        data = given.get("input", {})
        if not isinstance(data, dict):
            self._wrong(f"{where}input must be an object")
            data = {}
        retry = given.get("retry") or {}
        if not isinstance(retry, Mapping):
            self._wrong(f"{where}retry must be an object")
            retry = {}
        return {
            "address": self._addresses.get(role or "", ""),
            "input": data,
            "retries": self._count(retry, "max_retries", f"{where}retry.", least=0) or 0,
            "retry_delay": self._count(retry, "retry_delay_seconds", f"{where}retry.", least=0) or 30,
        }

    def _seconds(self, given: Mapping[str, Any], where: str) -> float:
        for name in ("seconds", "delay_seconds", "duration_seconds", "timeout_seconds", "step_deadline_seconds"):
            if given.get(name) is not None:
                return float(self._count(given, name, where) or 1)
        self._wrong(f"{where}how long? give runtime_config.seconds")
        return 1.0

    def _human_step(
        self, given: JsonDict, config: Mapping[str, Any], role: str | None, kind: str, where: str
    ) -> JsonDict:
        task = given.get("human_task") or {}
        if not isinstance(task, Mapping):
            self._wrong(f"{where}human_task must be an object")
            task = {}
        intent = self._intent_given
        asked = kind == "human" or given.get("requires_approval") is True
        task_type = self._line(task, "task_type", f"{where}human_task.") or (
            "approval" if kind != "notification" else "confirmation"
        )
        if task_type not in TASK_TYPES:
            self._wrong(f"{where}human_task.task_type is {task_type[:80]!r}; it is one of {', '.join(TASK_TYPES)}")
        outcomes = task.get("allowed_outcomes")
        if outcomes is not None and not (
            isinstance(outcomes, list)
            and 1 <= len(outcomes) <= 20
            and all(isinstance(o, str) and 0 < len(o) <= 64 for o in outcomes)
        ):
            self._wrong(f"{where}human_task.allowed_outcomes must be 1 to 20 words")
            outcomes = None
        form = task.get("form_schema") or task.get("form")
        if form is not None and not isinstance(form, dict):
            self._wrong(f"{where}human_task.form_schema must be an object")
            form = None
        to = self._who(task.get("assignees"), where) or self._who(config.get("to") or config.get("recipients"), where)
        if role in self._into.people:
            to = to or self._into.people[role]
        to = to or (self._into.people[next(iter(self._into.people))] if self._into.people else [])
        to += [each for each in self._who(task.get("notify_email"), where) if each not in to]
        if asked and not to:
            to = ["operators"]
            self._into.warnings.append(f"{where}nobody is named to answer it; the group 'operators' is asked")
        every = self._default(given, "remind_interval_seconds", where) or self._default(
            given, "remind_after_seconds", where
        )
        escalate = self._who(given.get("escalate_to") or config.get("escalate_to") or intent.get("escalate_to"), where)
        if escalate and asked and every is None and self._count(given, "step_deadline_seconds", where) is None:
            self._into.warnings.append(f"{where}escalate_to needs reminders or a deadline: nobody is ever escalated to")
            escalate = []
        return {
            "to": to,
            "asks": asked,
            "title": (
                self._line(task, "title", f"{where}human_task.") or f"{self._into.title}: {given.get('step_id')}"
            )[:255],
            "description": str(task.get("description") or "")[:4000] or None,
            "type": TASK_TYPES.get(task_type, "approval"),
            "outcomes": outcomes,
            "form": form or (dict(_EVIDENCE) if task.get("evidence_required") is True else None),
            "require_comment": task.get("required_comment") is True,
            "remind_every": every,
            "max_reminders": self._default(given, "max_reminders", where) or 3,
            "escalate_to": escalate,
        }

    def _default(self, given: JsonDict, name: str, where: str) -> int | None:
        """A number of the step, or else of the intent."""
        return self._count(given, name, where) or self._count(self._intent_given, name, "intent.")

    # -- small parts -------------------------------------------------------------------

    def _wrong(self, what: str) -> None:
        self._into.errors.append(what)

    def _line(
        self, given: Mapping[str, Any], name: str, where: str, *, longest: int = 255, required: bool = False
    ) -> str | None:
        value = given.get(name)
        if value is None:
            if required:
                self._wrong(f"{where}{name} is missing")
            return None
        try:
            return line(value, f"{where}{name}", longest=longest)
        except BadInput as wrong:
            self._wrong(str(wrong))
            return None

    def _count(self, given: Mapping[str, Any], name: str, where: str, *, least: int = 1) -> int | None:
        value = given.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10**9:
            self._wrong(f"{where}{name} is {str(value)[:80]!r}; it is a whole number of {least} or more")
            return None
        return value

    def _objects(self, given: Mapping[str, Any], name: str, most: int) -> list[JsonDict]:
        value = given.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self._wrong(f"{name} must be a list of objects")
            return []
        if len(value) > most:
            self._wrong(f"{name} has {len(value)} entries; the limit is {most}")
        return value[:most]
