"""Durable intents over the Celery you already run: submit, wait, complete."""

from .context import current_intent, progress
from .errors import (
    AgentFailed,
    AxmeError,
    BadInput,
    BadSetting,
    IntentCanceled,
    IntentEnded,
    IntentFailed,
    IntentNotCompleted,
    IntentTimedOut,
    KeyConflict,
    LedgerNotMigrated,
    LedgerUnavailable,
    LegInterrupt,
    NotAllowed,
    NotFound,
    NotJson,
    OutsideIntent,
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
from .wait import wait_for_agent, wait_for_human, wait_for_time, wait_for_tool

__version__ = "0.1.0"

__all__ = [
    "AgentFailed",
    "Axme",
    "AxmeError",
    "BadInput",
    "BadSetting",
    "Decision",
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
    "NotAllowed",
    "NotFound",
    "NotJson",
    "OutsideIntent",
    "StepFailed",
    "StepInterrupted",
    "TooLarge",
    "ToolFailed",
    "TrackerUnavailable",
    "UnsupportedWork",
    "WaitClosed",
    "WaitTimedOut",
    "current_intent",
    "current_step",
    "progress",
    "step",
    "wait_for_agent",
    "wait_for_human",
    "wait_for_time",
    "wait_for_tool",
]
