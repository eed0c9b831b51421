"""Fetch Celery's source distribution, run its tests twice, and compare how each ended.

The distribution is that of the Celery installed here. What its tests need and
ours do not is put into an environment of its own, on top of this one, so that
none of it can change what our own tests see.
"""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tests.servers import PrivateRedis

ROOT = Path(__file__).parents[2]
HOME = Path(sys.prefix) / "celery-suite"
CELERY = version("celery")

#: What Celery's tests import besides what is here.
NEEDED = (
    f"celery[sqlalchemy,pydantic,django,auth]=={CELERY}", "pytest-celery>=1.3", "pytest-rerunfailures",
    "pytest-subtests", "pytest-click", "pytest-order", "freezegun", "fakeredis[lua]", "pymemcache", "tblib",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Some of Celery's tests, and what they are run with."""

    name: str
    tests: tuple[str, ...]
    words: tuple[str, ...] = ()
    needs_redis: bool = False


UNIT = Part("unit", ("t/unit/app", "t/unit/tasks", "t/unit/worker"))
INTEGRATION = Part(
    "integration",
    ("t/integration/test_tasks.py", "t/integration/test_canvas.py"),
    # One of them needs two and a half minutes.
    ("--timeout=400",),
    needs_redis=True,
)


@dataclass
class Run:
    """One run of a part: how its tests ended, and what the extension counted."""

    outcomes: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    text: str = ""


def compare(part: Part, words: Sequence[str] = ()) -> int:
    """Run a part without and with the extension, say what came of it, and return 1 if anything differs."""
    source, python = fetched(), environment()
    plain, ours = both(source, python, part, [*part.tests, *words])
    differing = once = differences(plain, ours)
    # A test that ends now so, now so without us has nothing to say of us: both get another chance, alone.
    for _ in range(2):
        if not differing or len(differing) > 50:
            break
        again_plain, again_ours = both(source, python, part, sorted(differing))
        differing = differences(again_plain, again_ours)
    for test in sorted(set(once) - set(differing)):
        print(
            f"differed once, and not when run again: {test}: {once[test][0]} without, {once[test][1]} with the extension"
        )
    print(f"celery {CELERY}: {report(plain)} without the extension; {report(ours)} with it")
    print(f"the extension was there: {', '.join(f'{n} {what}' for what, n in ours.counts.items()) or 'no'}")
    for test, (without, with_) in sorted(differing.items()):
        print(f"differs: {test}: {without} without, {with_} with the extension")
    if not plain.outcomes or not all(ours.counts.get(what) for what in ("apps", "calls looked at", "tasks run")):
        print(plain.text[-3000:], ours.text[-3000:], sep="\n")
        print("the suite did not run, or the extension was not in it")
        return 1
    return 1 if differing else 0


def differences(plain: Run, ours: Run) -> dict[str, tuple[str, str]]:
    """The tests that ended differently: how without, how with."""
    tests = {*plain.outcomes, *ours.outcomes}
    found = {test: (plain.outcomes.get(test, "not run"), ours.outcomes.get(test, "not run")) for test in tests}
    return {test: pair for test, pair in found.items() if pair[0] != pair[1]}


def report(run: Run) -> str:
    """How many ended how: "3145 passed, 2 skipped"."""
    kinds = sorted(set(run.outcomes.values()))
    return ", ".join(f"{list(run.outcomes.values()).count(kind)} {kind}" for kind in kinds) or "nothing ran"


def both(source: Path, python: Path, part: Part, tests: Sequence[str]) -> tuple[Run, Run]:
    """The same tests without and with the extension, at the same time, each in a copy of the source."""
    with ExitStack() as closing:
        started = [_start(source, python, part, tests, with_us, closing) for with_us in (False, True)]
        plain, ours = (_ended(*one) for one in started)
    return plain, ours


def _start(
    source: Path, python: Path, part: Part, tests: Sequence[str], with_us: bool, closing: ExitStack
) -> tuple[subprocess.Popen[str], Path]:
    name = f"{part.name}-{'with' if with_us else 'without'}"
    folder = HOME / f"run-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    outcomes = HOME / f"outcomes-{name}.jsonl"
    outcomes.unlink(missing_ok=True)
    variables: dict[str, str] = {
        "PYTHONPATH": str(ROOT), "SUITE_OUTCOMES": str(outcomes), "WORKER_LOGLEVEL": "INFO",
        **({"SUITE_WITH": "1"} if with_us else {}),
    }  # fmt: skip
    if part.needs_redis:
        variables |= _redis(closing.enter_context(PrivateRedis()))
    process = subprocess.Popen(
        [str(python), "-m", "pytest", "-q", *tests, *part.words, "-p", "no:cacheprovider", "-p", "no:axme_celery",
         "-p", "no:xdist", "-p", "tests.celery_suite.plugin", "--no-header", "--tb=short"],
        cwd=folder, env={**os.environ, **variables}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    closing.callback(process.kill)
    return process, outcomes


def _redis(server: PrivateRedis) -> Mapping[str, str]:
    return {
        "TEST_BROKER": server.url, "TEST_BACKEND": server.url, "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(server.port),
    }  # fmt: skip


def _ended(process: subprocess.Popen[str], outcomes: Path) -> Run:
    text, _ = process.communicate()
    if not outcomes.exists():
        return Run(text=text)
    *tests, counts = [json.loads(line) for line in outcomes.read_text().splitlines()]
    return Run(dict(tests), counts, text)


# -- what it takes ----------------------------------------------------------------


def fetched() -> Path:
    """The unpacked source distribution of the Celery installed here; fetched once."""
    source = HOME / f"celery-{CELERY}"
    if not source.exists():
        HOME.mkdir(parents=True, exist_ok=True)
        _pip(
            Path(sys.executable),
            "download",
            "--no-deps",
            "--no-binary",
            "celery",
            "--dest",
            str(HOME),
            f"celery=={CELERY}",
        )
        with tarfile.open(HOME / f"celery-{CELERY}.tar.gz") as archive:
            archive.extractall(HOME / "unpacked", filter="data")
        (HOME / "unpacked" / f"celery-{CELERY}").rename(source)
    return source


def environment() -> Path:
    """The Python of the suite's own environment, which sees this one's packages too; made once."""
    folder = HOME / "environment"
    python, made = folder / "bin" / "python", folder / "made"
    if not made.exists() or made.read_text() != repr(NEEDED):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "underneath.pth").write_text("\n".join(site.getsitepackages()) + "\n")
        _pip(python, "install", *NEEDED)
        made.write_text(repr(NEEDED))
    return python


def _pip(python: Path, *words: str) -> None:
    subprocess.run([str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *words], check=True)
