"""The demo's command: refuses what cannot work before it starts anything."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from axme_celery.cli import main


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run the command in this process, temporary folders below tmp_path."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return lambda *options: CliRunner().invoke(main, ["demo", *options])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--source", "sqlite:///x.db"], "go together"),
        (["--query", "SELECT 1"], "go together"),
        (["--source", "sqlite:///x.db", "--query", "DROP TABLE x"], "SELECT or WITH"),
        (["--broker", "rabbit"], "neither auto"),
    ],
)
def test_options_that_cannot_work_are_refused_in_one_line(command, options, words, tmp_path):
    """Exit code 1, and no process left."""
    result = command(*options)

    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_home_that_is_in_use_is_refused(command, tmp_path):
    """It is not written to."""
    (tmp_path / "file").write_text("mine")

    result = command("--home", str(tmp_path))

    assert result.exit_code == 1 and "not an empty folder" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_importing_the_command_starts_nothing_of_the_demo():
    """The command line imports every verb: no app is configured, no processes are known."""
    program = "import sys, axme_celery.demo.command; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert not {f"axme_celery.demo.{name}" for name in ("app", "runner", "story", "broker")} & set(loaded.split())
