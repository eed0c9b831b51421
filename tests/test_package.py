"""The package as a whole: what importing it costs, what its metadata says, who may import whom."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from .wheel import missing_from

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

#: The rooms of the floor plan that two of the contracts are about; those that exist must be named in them.
KNOW_NO_LIBRARY = {
    *("errors", "ids", "durations", "config", "model", "failure"),
    *("audit", "lifecycle", "plan", "ports"),
    *("beats", "deliver", "leg", "step", "submit", "answer", "wait", "sweep", "keys", "who"),
}
STORES = {"ledger", "tracker", "webhook", "notifiers", "codec", "forms", "cron"}
NOT_FOR_STORES = {
    *("lifecycle", "plan"),
    *("beats", "deliver", "leg", "step", "submit", "answer", "wait", "sweep", "keys"),
    *("extension", "signals"),
}


def test_importing_the_package_loads_no_web_no_migrations_and_no_http_client():
    """A worker pays for what it uses."""
    heavy = ["flask", "alembic", "prometheus_client", "jsonschema", "urllib3", "standardwebhooks"]
    code = (
        f"import sys, json; from axme_celery import Axme; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert json.loads(found.stdout) == []


def test_the_installed_metadata_is_that_of_pyproject():
    """Name, version, Python and entry points as users and plugins find them."""
    project = PYPROJECT["project"]
    installed = importlib.metadata.distribution("axme-celery")

    assert installed.metadata["Name"] == project["name"]
    assert installed.version == project["version"]
    assert installed.metadata["Requires-Python"] == project["requires-python"]
    points = {(point.group, point.name, point.value) for point in installed.entry_points}
    wanted = {("console_scripts", *script) for script in project["scripts"].items()}
    for group, entries in project["entry-points"].items():
        wanted |= {(group, *entry) for entry in entries.items()}
    assert points == wanted


def test_no_dependency_is_pinned():
    """A team's own versions fit beside ours."""
    requirements = list(PYPROJECT["project"]["dependencies"])
    for extra in PYPROJECT["project"]["optional-dependencies"].values():
        requirements += extra

    assert len(requirements) > 10
    assert [line for line in requirements if "==" in line.partition(";")[0]] == []


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "axme_celery" / "py.typed").exists()


def test_a_wheel_that_lacks_a_file_is_found(tmp_path):
    """The control of ``make wheel``: Lua, migrations and data are what gets lost."""
    whole, lacking = tmp_path / "whole.whl", tmp_path / "lacking.whl"
    files = [path for path in (ROOT / "axme_celery").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for wheel, lost in ((whole, "none"), (lacking, "take.lua")):
        with zipfile.ZipFile(wheel, "w") as archive:
            for path in files:
                if path.name != lost:
                    archive.write(path, path.relative_to(ROOT))

    assert missing_from(whole) == set()
    assert missing_from(lacking) == {"axme_celery/tracker/take.lua"}


# -- who may import whom --


def contracts_hold(folder: Path) -> tuple[bool, str]:
    """What lint-imports says in a folder that has the package and pyproject.toml."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return said.returncode == 0, said.stdout + said.stderr


def test_the_import_contracts_hold():
    """Doors -> verbs -> ports -> rules -> nouns, and nobody upwards."""
    hold, said = contracts_hold(ROOT)

    assert hold, said


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("model.py", "import sqlalchemy", "nouns, rules and verbs know no library BROKEN"),
        ("errors.py", "from . import model", "doors -> verbs -> ports -> rules -> nouns BROKEN"),
        ("attic.py", "", "attic"),
    ],
    ids=["a noun imports a library", "an arrow points up", "a module has no floor"],
)
def test_a_breach_of_the_contracts_is_found(tmp_path, file, line, broken):
    """The control: contracts that cannot break hold nothing."""
    shutil.copytree(ROOT / "axme_celery", tmp_path / "axme_celery", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "axme_celery" / file).open("a") as module:
        module.write(f"\n{line}\n")

    hold, said = contracts_hold(tmp_path)

    assert not hold
    assert broken in said


def test_every_module_that_exists_is_held_by_its_contract():
    """The contracts name their modules one by one: a new one must be added to them."""
    package = ROOT / "axme_celery"
    exist = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    contracts = {contract["id"]: contract for contract in PYPROJECT["tool"]["importlinter"]["contracts"]}

    for contract, key, floor in (
        ("no-libraries", "source_modules", KNOW_NO_LIBRARY),
        ("stores", "source_modules", STORES),
        ("stores", "forbidden_modules", NOT_FOR_STORES),
    ):
        named = {name.removeprefix("axme_celery.") for name in contracts[contract][key]}
        missing = (exist & floor) - named
        assert not missing, f"pyproject.toml: add {sorted(missing)} to {key} of the contract {contract!r}"
