"""Exceptions in words and back: of the same class, saying the same, with what they carried."""

from __future__ import annotations

import json
from decimal import Decimal
from urllib.error import HTTPError

import pytest

from axme_celery import BadInput, IntentFailed, KeyConflict, StepFailed, ToolFailed, WaitTimedOut
from axme_celery.failure import TRACEBACK_CHARACTERS, describe, revive


class Awkward(Exception):
    """Its ``__init__`` takes what its ``args`` do not tell."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.number = code
        self.cannot_be_kept = object()


class Silent(Exception):
    """Says nothing."""


def described(error: Exception) -> dict:
    """As the ledger gives it back."""
    try:
        raise error
    except Exception as raised:
        return json.loads(json.dumps(describe(raised, attributes=True)))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such month"),
        ValueError(),
        KeyError("k"),
        ConnectionError("down", "host"),
        FileNotFoundError(2, "No such file", "report.csv"),
        ZeroDivisionError("division by zero"),
        json.JSONDecodeError("bad", "{", 1),
        Awkward(7, detail="odd"),
        Silent(),
        BadInput("quorum is 0"),
        StepFailed("fetch", "too large"),
        ToolFailed("warehouse", "job-7", "no rows"),
        WaitTimedOut("w-1", "Publish?", None),
        KeyConflict("k", "i-1"),
        IntentFailed("i-1", "code", "words"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_recorded_exception_is_raised_again_as_the_same_class_saying_the_same(error):
    """A task's ``except`` handles it in every run as it did in the first."""
    again = revive(described(error))

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert {k: v for k, v in vars(error).items() if isinstance(v, str | int)}.items() <= vars(again).items()


def test_a_file_error_still_names_its_file():
    """``filename`` and ``errno`` are what its handler looks at."""
    again = revive(described(FileNotFoundError(2, "No such file", "report.csv")))

    assert (again.errno, again.filename) == (2, "report.csv")


def test_a_class_that_is_not_loaded_here_cannot_be_revived():
    """The caller then says in words what happened."""

    class Local(Exception):
        pass

    unknown = described(ValueError("x")) | {"exception": "no.such.module:Error"}

    assert revive(described(Local("x"))) is None
    assert revive(unknown) is None


@pytest.mark.parametrize("name", ["builtins:SystemExit", "builtins:int", "builtins:exec", "os:system", "builtins:", ""])
def test_only_exceptions_are_ever_made(name):
    """A record that was tampered with makes nothing else, and nothing that leaves a process."""
    tampered = described(ValueError("1")) | {"exception": name}

    assert revive(tampered) is None


def test_an_exception_that_would_say_something_else_is_not_passed_off_as_the_recorded_one():
    """Better no exception than a wrong one: its arguments could not all be kept."""
    again = revive(described(UnicodeDecodeError("utf8", b"x", 0, 1, "bad")))

    assert again is None


def test_what_databases_cannot_keep_is_written_out():
    """NUL and lone surrogates come from the wildest places: other people's error messages."""
    words = described(ValueError("a\x00b\ud800c"))

    assert words["message"] == "a\\x00b\\ud800c"
    assert words["args"] == ["a\\x00b\\ud800c"]
    json.dumps(words, ensure_ascii=False).encode()


def test_a_code_of_its_own_goes_before_the_class_name():
    """Short and for machines: it becomes the intent's error code."""
    own, plain = described(WaitTimedOut("w-1", "?", None)), described(ValueError("x"))

    assert (own["code"], plain["code"]) == ("wait_timeout", "ValueError")


def test_long_messages_and_tracebacks_are_cut():
    """An error is a note, not a dump; of a traceback the end is what tells."""

    def deep(n: int) -> None:
        if n == 0:
            raise ValueError("x" * 10_000)
        deep(n - 1)

    try:
        deep(200)
    except ValueError as error:
        words = describe(error)

    assert len(words["message"]) == 2000
    assert len(words["traceback"]) == TRACEBACK_CHARACTERS
    assert words["traceback"].rstrip().endswith("xxx")


def test_arguments_that_are_no_plain_values_are_left_out():
    """They are not ours to serialize."""
    unkept = (Decimal(1), object(), float("nan"), float("inf"), -float("inf"), 10**4300, -(10**4300))
    words = described(ValueError("kept", 1, None, True, 2.5, 10**4299, *unkept))

    assert words["args"] == ["kept", 1, None, True, 2.5, 10**4299]


def test_an_exception_that_cannot_say_what_it_is_is_recorded_all_the_same():
    """The bug may be in its text, or in its code; the failure is told by its class."""

    class Broken(Exception):
        def __str__(self):
            raise AttributeError("row")

        @property
        def code(self):
            raise LookupError("code")

    broken, huge = described(Broken("x")), described(ValueError(10**5000, "x"))

    assert (broken["code"], broken["message"], broken["args"]) == ("Broken", "Broken", ["x"])
    assert (huge["code"], huge["message"], huge["args"]) == ("ValueError", "ValueError", ["x"])
    assert "Broken" in broken["traceback"]
    assert revive(broken) is None


def test_an_exceptions_attributes_are_for_the_task_itself():
    """What others are shown of a failed intent has its words only: an attribute may be a request's secret."""
    error = HTTPError("http://host/?token=abc", 500, "oops", None, None)

    shown = describe(error)
    kept = describe(error, attributes=True)

    assert "attributes" not in shown and "token" not in json.dumps(shown)
    assert kept["attributes"]["code"] == 500
