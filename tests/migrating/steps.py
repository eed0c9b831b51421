"""The five steps, as changes of the project's files."""

from __future__ import annotations

import difflib
import shutil
from dataclasses import dataclass
from pathlib import Path

BEFORE = Path(__file__).with_name("shop_before")


@dataclass(frozen=True)
class Edit:
    """In this file, this text becomes that."""

    file: str
    before: str
    after: str


@dataclass(frozen=True)
class Step:
    """One step of the guide."""

    name: str
    edits: tuple[Edit, ...]


STEPS = (
    Step("install", (
        Edit("shop/app.py", "from celery import Celery\n", "from axme_celery import Axme\nfrom celery import Celery\n"),
        Edit("shop/app.py", 'os.environ["SHOP_REDIS"]\n', 'os.environ["SHOP_REDIS"]\naxme = Axme(app)\n'),
    )),
    Step("name", (
        Edit("shop/app.py", "axme = Axme(app)\n", 'app.conf.axme_tasks = ["shop.*"]\naxme = Axme(app)\n'),
    )),
    Step("submit", (
        Edit("shop/orders.py", "from shop.app import app\n", "from shop.app import app, axme\n"),
        Edit(
            "shop/orders.py",
            "    return chain(charge.s(order), ship.s(), thank.s()).delay()\n",
            '    return axme.submit(chain(charge.s(order), ship.s(), thank.s()), key=f"order-{order}")\n',
        ),
        Edit("shop/reports.py", "from shop.app import app\n", "from shop.app import app, axme\n"),
        Edit(
            "shop/reports.py",
            "    return chain(pages, publish.si(month)).delay()\n",
            '    return axme.submit(chain(pages, publish.si(month)), key=f"report-{month}")\n',
        ),
        Edit("test_shop.py", 'orders.place("A1").get(timeout=30)', 'orders.place("A1").wait(30)'),
        Edit("test_shop.py", 'reports.start("2026-10").get(timeout=30)', 'reports.start("2026-10").wait(30)'),
    )),
    Step("steps", (
        Edit("shop/orders.py", "from celery import chain\n", "from axme_celery import step\nfrom celery import chain\n"),
        Edit("shop/orders.py", "def charge_card(", "@step\ndef charge_card("),
        Edit("shop/orders.py", "def print_invoice(", "@step\ndef print_invoice("),
    )),
    Step("waits", (
        Edit(
            "shop/reports.py",
            "from celery import chain, chord\n",
            "from axme_celery import wait_for_human\nfrom celery import chain, chord\n",
        ),
        Edit(
            "shop/reports.py",
            '    return axme.submit(chain(pages, publish.si(month)), key=f"report-{month}")\n',
            '    approval = wait_for_human.s(f"Publish {month}?", to="analysts", timeout="5d")\n'
            '    return axme.submit(chain(pages, approval, publish.si(month)), key=f"report-{month}")\n',
        ),
        Edit(
            "test_shop.py",
            "from shop import orders, reports\n",
            "import time\n\nfrom shop import orders, reports\nfrom shop.app import axme\n",
        ),
        Edit(
            "test_shop.py",
            "def test_a_month_is_published():\n"
            '    assert reports.start("2026-10").wait(30) == "publish 2026-10"\n',
            "def test_a_month_is_published_when_an_analyst_says_so():\n"
            '    report = reports.start("2026-10")\n'
            "    while not report.waits():\n"
            "        time.sleep(0.1)\n"
            '    assert "publish 2026-10" not in asked()\n'
            "\n"
            '    axme.answer(report.waits()[0], "approved", by="analysts")\n'
            "\n"
            '    assert report.wait(30) == "publish 2026-10"\n',
        ),
    )),
)  # fmt: skip


def project_at(count: int, folder: Path) -> Path:
    """The project after so many steps, in a folder of its own."""
    shutil.copytree(BEFORE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for step in STEPS[:count]:
        for edit in step.edits:
            path = folder / edit.file
            text = path.read_text()
            assert text.count(edit.before) == 1, f"step {step.name}: {edit.file} has {edit.before!r} not once"
            path.write_text(text.replace(edit.before, edit.after))
    return folder


def diff(before: Path, after: Path) -> str:
    """What changed between two states of the project: each file's name, then its lines, " ..." where some are left out."""
    told: list[str] = []
    for path in sorted(after.rglob("*.py")):
        name = path.relative_to(after)
        old, new = (Path(side, name).read_text().splitlines() for side in (before, after))
        lines = list(difflib.unified_diff(old, new, n=1, lineterm=""))[3:]
        if lines:
            told.append(f"@@ {name}")
            told += [" ..." if line.startswith("@@") else line for line in lines if line != " "]
    return "\n".join(told)
