"""The two command lines as wholes: same verbs, exit codes, what they load, how they find the project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from axme_celery.cli import VERBS

from .command_line import CELERY, ROOT, SCRIPT, desk_fixture, read_until  # noqa: F401

#: What issue and design name, and no verb of what does not exist yet.
PROMISED = {
    *("demo", "dev", "migrate", "submit", "list", "show", "watch", "cancel", "replay", "fork", "unpark"),
    *("bulk", "delegate", "reassign", "extend"),
    *("inbox", "answer", "approve", "reject", "complete-tool", "dead-letters", "sweep", "doctor", "prune", "audit"),
    *("keys", "web", "webhooks", "deliveries", "scenarios", "advise"),
}


def call(*words: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, timeout=60)


def desk_environment(desk) -> dict[str, str]:
    return {"DOORS_CONFIG": json.dumps(desk.config), "AXME_ACTOR": "olga"}


# -- the verbs --


def test_every_verb_that_is_promised_is_there_and_explains_itself(desk):
    """On its help page, with a line in the list of verbs."""
    assert set(VERBS) == PROMISED
    listed = desk.run("--help").stdout

    for verb in VERBS:
        assert f"\n  {verb} " in listed
        assert "Usage:" in desk.run(verb, "--help").stdout


def test_exit_codes_are_documented_on_the_help_page(desk):
    text = desk.run("--help").stdout

    for code in range(6):
        assert f"\n    {code}  " in text


def test_both_command_lines_do_the_same(desk):
    """``celery -A proj axme VERB`` and ``axme-celery -A proj VERB``, in processes of their own."""
    intent = desk.submit("doors.add", 1, 2)

    ours = call(*SCRIPT, "-A", "tests.doors.project", "list", "--json", **desk_environment(desk))
    celerys = call(*CELERY, "axme", "list", "--json", **desk_environment(desk))

    assert ours.returncode == celerys.returncode == 0, ours.stderr + celerys.stderr
    assert ours.stdout == celerys.stdout
    assert [one["id"] for one in json.loads(ours.stdout)] == [intent.id]


def test_both_command_lines_refuse_alike(desk):
    """One line on stderr, no traceback, the same code."""
    ours = call(*SCRIPT, "-A", "tests.doors.project", "show", "x", **desk_environment(desk))
    celerys = call(*CELERY, "axme", "show", "x", **desk_environment(desk))

    assert (ours.returncode, celerys.returncode) == (3, 3)
    assert (
        ours.stderr
        == celerys.stderr
        == ("Error: no intent x in this ledger; check the id, and that this process uses the same axme_ledger_url\n")
    )


def test_the_demo_needs_no_project(tmp_path):
    """Nor does its refusal."""
    said = call(*SCRIPT, "demo", "--query", "SELECT 1", folder=tmp_path, AXME_APP="", CELERY_APP="")

    assert said.returncode == 1 and "go together" in said.stderr and list(tmp_path.iterdir()) == []


# -- what it costs everybody --


def test_celery_s_own_help_shows_the_group_and_loads_no_database_and_no_web(desk):
    """Celery imports the group at every call of ``celery``, also of those who never use it."""
    program = """
import sys
from celery.__main__ import main
sys.argv = ["celery", "-A", "tests.doors.project", "--help"]
try:
    main()
except SystemExit:
    pass
print("LOADED", [m for m in ("flask", "alembic", "sqlalchemy", "psycopg", "rich", "jsonschema") if m in sys.modules])
print("VERBS", [m for m in sys.modules if m.startswith("axme_celery.cli.")])
"""
    said = call(sys.executable, "-c", program, **desk_environment(desk)).stdout

    assert "\n  axme " in said and "Durable intents" in said
    assert "LOADED []" in said
    assert "VERBS []" in said


def test_the_list_of_verbs_loads_no_database_either():
    program = """
import sys
from axme_celery.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print("LOADED", [m for m in ("flask", "alembic", "sqlalchemy", "psycopg", "rich", "redis") if m in sys.modules])
"""
    assert "LOADED []" in call(sys.executable, "-c", program).stdout


# -- finding the project --


def test_the_project_may_be_named_in_the_environment(desk):
    """AXME_APP, or CELERY_APP as for Celery."""
    for name in ("AXME_APP", "CELERY_APP"):
        said = call(*SCRIPT, "list", **{name: "tests.doors.project:app"}, **desk_environment(desk))
        assert (said.returncode, said.stdout) == (0, "no intents\n"), said.stderr


def test_the_project_is_found_from_its_folder(desk, tmp_path):
    """Without being installed, as by the celery command; --workdir says where."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "celery.py").write_text("from tests.doors.project import app\n")
    (tmp_path / "shop" / "__init__.py").write_text("")

    here = call(*SCRIPT, "-A", "shop", "list", folder=tmp_path, **desk_environment(desk))
    there = call(*SCRIPT, "--workdir", str(tmp_path), "-A", "shop", "list", **desk_environment(desk))

    assert here.stdout == there.stdout == "no intents\n", here.stderr + there.stderr


def test_a_project_must_be_named():
    said = call(*SCRIPT, "list", AXME_APP="", CELERY_APP="")

    assert said.returncode == 2 and "-A proj" in said.stderr


def test_a_project_that_is_not_there_is_named():
    said = call(*SCRIPT, "-A", "no.such.project", "list")

    assert said.returncode == 2 and "'no.such.project'" in said.stderr and "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("reports:nothere", "the module 'reports' has no 'nothere'; of Celery apps it has: celery_app"),
        ("reports:axme", "'axme' of the module 'reports' is no Celery app; of Celery apps it has: celery_app"),
        ("json", "the module 'json' has no Celery app"),
        ("json:dumps", "'dumps' of the module 'json' is no Celery app"),
        ("flasky", "'app' of the module 'flasky' is no Celery app"),
    ],
)
def test_a_name_that_is_no_app_of_the_project_is_told_from_code_that_fails(tmp_path, name, said):
    """A typo behind the colon is the caller's to mend, on their command line: it is one line, without a traceback."""
    (tmp_path / "reports.py").write_text(
        "from celery import Celery\nfrom axme_celery import Axme\ncelery_app = Celery('reports')\naxme = Axme(celery_app)\n"
    )
    (tmp_path / "flasky.py").write_text("import flask\napp = flask.Flask('flasky')\n")

    refused = call(*SCRIPT, "-A", name, "list", folder=tmp_path)

    assert refused.returncode == 2
    assert f"cannot load the app '{name}': {said}" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("code", "shown"),
    [("import no_such_library", "No module named 'no_such_library'"), ("import json\njson.nothere", "'nothere'")],
    ids=["import", "attribute"],
)
@pytest.mark.parametrize("name", ["broken", "broken:app", "broken.celery", "broken.celery:app"])
def test_a_package_whose_celery_module_fails_shows_where(tmp_path, name, code, shown):
    """That it holds no app would be a false cause: it does not come to that."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("from .celery import app\n" if name == "broken:app" else "")
    (tmp_path / "broken" / "celery.py").write_text(code + "\n")

    said = call(*SCRIPT, "-A", name, "list", folder=tmp_path)

    assert said.returncode == 2
    assert "celery.py" in said.stderr and shown in said.stderr


def test_a_project_that_fails_to_load_shows_where(tmp_path):
    """The traceback is the project's own author's to see."""
    (tmp_path / "broken.py").write_text("def f():\n    return {}['missing key']\n\nf()\n")

    said = call(*SCRIPT, "-A", "broken", "list", folder=tmp_path)

    assert said.returncode == 2
    assert "broken.py" in said.stderr and "missing key" in said.stderr


def test_an_app_without_the_extension_is_told_what_is_missing(tmp_path):
    (tmp_path / "plain.py").write_text("from celery import Celery\napp = Celery('plain')\n")

    said = call(*SCRIPT, "-A", "plain", "list", folder=tmp_path)

    assert said.returncode == 2 and "Axme(app)" in said.stderr


def test_a_setting_that_cannot_work_is_one_line(tmp_path):
    """With what was probably meant."""
    (tmp_path / "typo.py").write_text(
        "from celery import Celery\nfrom axme_celery import Axme\n"
        "app = Celery('typo')\napp.conf.axme_lease_second = 3\naxme = Axme(app)\n"
    )

    said = call(*SCRIPT, "-A", "typo", "list", folder=tmp_path)

    assert said.returncode == 1
    assert "did you mean axme_lease_seconds" in said.stderr and "Traceback" not in said.stderr


# -- on a terminal --


def test_on_a_terminal_a_table_has_colours_and_whole_ids(desk):
    """However narrow it is: an id is there to be copied."""
    intent = desk.submit("doors.add", 1, 2, tags=["[red]not markup[/red]"])
    intent.cancel("no")

    for columns in ("200", "60"):
        terminal, process = desk.on_a_terminal("list", COLUMNS=columns)
        seen = read_until(terminal)
        assert process.wait() == 0
        assert "\x1b[" in seen and intent.id in seen
    assert "[red]not markup[/red]" in read_until(desk.on_a_terminal("list")[0])


def test_no_color_is_heeded(desk):
    """And so is a terminal that cannot do it."""
    intent = desk.submit("doors.add", 1, 2)

    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        terminal, _ = desk.on_a_terminal("list", **environment)
        seen = read_until(terminal)
        assert "\x1b" not in seen and intent.id in seen


def test_without_rich_everything_is_plain_text(desk, tmp_path):
    """It comes with the extra ``web``; nothing needs it."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('not installed')\n")
    intent = desk.submit("doors.add", 1, 2)

    for words in (["list"], ["show", intent.id], ["doctor"]):
        terminal, process = desk.on_a_terminal(*words, PYTHONPATH=str(tmp_path))
        seen = read_until(terminal)
        process.wait()
        assert "\x1b" not in seen and "Traceback" not in seen
        assert intent.id in seen or words == ["doctor"]


# -- the ledger away --


@pytest.mark.parametrize(
    "words",
    [["list"], ["show", "x"], ["submit", "doors.add", "--args", "[1, 2]"], ["inbox"], ["approve", "x"], ["sweep"],
     ["cancel", "x", "--reason", "r"], ["dead-letters", "list"], ["audit", "verify"], ["prune", "--older-than", "1d"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_ledger_that_cannot_be_reached_is_code_4(desk, tmp_path, words):
    """For every verb that needs it; in words, without a traceback."""
    desk.axme._settings = None
    desk.app.conf.axme_ledger_url = f"sqlite:///{tmp_path}/no/such/folder/ledger.db"

    assert "database" in desk.run(*words, code=4).stderr


def test_a_ledger_without_tables_says_to_migrate(desk, postgres_url):
    """PostgreSQL is migrated by whoever runs it, never behind their back."""
    desk.axme._settings = None
    desk.app.conf.axme_ledger_url = postgres_url

    assert "migrate" in desk.run("list", code=4).stderr
    assert desk.run("migrate").exit_code == 0
    assert desk.run("list").stdout == "no intents\n"


def test_a_broker_that_is_away_does_not_fail_a_submit(desk, private_redis):
    """The intent is kept, and so is its message: a sweep sends it when the broker is back."""
    desk.app.conf.update(broker_url=private_redis.url, broker_connection_timeout=1)
    private_redis.kill()

    result = desk.run("submit", "doors.add", "--args", "[1, 2]")

    intent = desk.axme.intent(result.stdout.strip())
    assert intent.status == "SUBMITTED"
    ledger = desk.axme.runtime.ledger
    (kept,) = ledger.outbox_due(ledger.now() + timedelta(hours=1), 10, 1)
    assert (kept.kind, kept.intent_id) == ("LEG", intent.id)
