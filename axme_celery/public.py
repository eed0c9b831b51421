"""The public names, and where each lives. axme_celery itself offers them, and loads them when first asked."""

from . import wait
from .callbacks import callback_url
from .context import current_intent, progress
from .errors import (
    AgentFailed,
    AxmeError,
    BadInput,
    BadSetting,
    HandledByQueue,
    IntentCanceled,
    IntentEnded,
    IntentFailed,
    IntentNotCompleted,
    IntentTimedOut,
    KeyConflict,
    LedgerNotMigrated,
    LedgerUnavailable,
    LegInterrupt,
    LinkInvalid,
    NotAllowed,
    NotFound,
    NotJson,
    OutsideIntent,
    ShownChanged,
    StaleGeneration,
    StepFailed,
    StepInterrupted,
    TooLarge,
    ToolFailed,
    TrackerUnavailable,
    UnsupportedWork,
    WaitClosed,
    WaitTimedOut,
)
from .extension import Axme
from .handle import IntentHandle as Intent
from .model import Decision
from .step import current_step, step
from .waitcalls import WaitCall

wait_for_agent = WaitCall(wait.wait_for_agent)
wait_for_human = WaitCall(wait.wait_for_human)
wait_for_time = WaitCall(wait.wait_for_time)
wait_for_tool = WaitCall(wait.wait_for_tool)

__all__ = [
    "AgentFailed",
    "Axme",
    "AxmeError",
    "BadInput",
    "BadSetting",
    "Decision",
    "HandledByQueue",
    "Intent",
    "IntentCanceled",
    "IntentEnded",
    "IntentFailed",
    "IntentNotCompleted",
    "IntentTimedOut",
    "KeyConflict",
    "LedgerNotMigrated",
    "LedgerUnavailable",
    "LegInterrupt",
    "LinkInvalid",
    "NotAllowed",
    "NotFound",
    "NotJson",
    "OutsideIntent",
    "ShownChanged",
    "StaleGeneration",
    "StepFailed",
    "StepInterrupted",
    "TooLarge",
    "ToolFailed",
    "TrackerUnavailable",
    "UnsupportedWork",
    "WaitClosed",
    "WaitTimedOut",
    "callback_url",
    "current_intent",
    "current_step",
    "progress",
    "step",
    "wait_for_agent",
    "wait_for_human",
    "wait_for_time",
    "wait_for_tool",
]
