"""The demo's home: made once, private, found by one variable."""

from __future__ import annotations

import os
import stat

import pytest

from axme_celery.demo import home as homes
from axme_celery.demo.home import HOME_VARIABLE, DemoConfig, DemoHome, write_whole
from axme_celery.errors import BadInput

CONFIG = DemoConfig(broker_url="redis://:pw@h/0", result_backend="redis://:pw@h/0", ledger_url="sqlite:///x.db")


def test_what_one_process_writes_another_reads(tmp_path, monkeypatch):
    """By the variable alone; the file is its owner's alone."""
    home = DemoHome(tmp_path / "new" / "home")
    home.make()
    home.write_config(CONFIG)
    monkeypatch.setenv(HOME_VARIABLE, str(home.path))

    assert DemoHome.from_environment().read_config() == CONFIG
    assert stat.S_IMODE(home.config_file.stat().st_mode) == 0o600


def test_a_folder_with_something_in_it_is_refused_and_left_as_it_was(tmp_path):
    """It may be somebody's."""
    (tmp_path / "precious").write_text("x")

    with pytest.raises(BadInput, match="not an empty folder"):
        DemoHome(tmp_path).make()

    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_without_the_variable_or_a_demo_it_says_so(tmp_path, monkeypatch):
    """With the name of what is missing."""
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    with pytest.raises(BadInput, match=HOME_VARIABLE):
        DemoHome.from_environment()
    with pytest.raises(BadInput, match=r"demo\.json"):
        DemoHome(tmp_path).read_config()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    """A kill between writing and renaming leaves the old one."""
    path = tmp_path / "page.csv"
    write_whole(path, "old\n")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(homes.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new\n")

    assert path.read_text() == "old\n"
    monkeypatch.undo()
    write_whole(path, "line\r\nend\n")
    assert path.read_bytes() == b"line\r\nend\n"
    assert os.listdir(tmp_path) == [path.name]
