"""deploy/: what its files say is carried out, as far as that needs no container engine."""

from __future__ import annotations

import configparser
import shlex
import shutil

import pytest
import yaml

from tests.servers import free_port

from .pages import ROOT, blocks
from .project import Project

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def unit(name: str) -> configparser.ConfigParser:
    """A systemd unit, read."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DEPLOY / name).read_text())
    return parser


def test_the_commands_of_the_compose_file_run_an_intent(tmp_path, redis_url, postgres_url):
    """Migrate, worker and beat, as they stand there, with the project beside them and their environment."""
    environment = {
        **SERVICES["worker"]["environment"],
        "CELERY_BROKER_URL": redis_url,
        "AXME_LEDGER_URL": postgres_url,
        "AXME_SECRET_KEY": "for this test alone, of 32 characters",
    }
    assert set(environment) == set(SERVICES["worker"]["environment"])
    shutil.copytree(DEPLOY / "proj", tmp_path / "proj", ignore=shutil.ignore_patterns("__pycache__"))
    beat = SERVICES["beat"]["command"].replace("/tmp/schedule", str(tmp_path / "schedule"))
    project = Project(tmp_path, {}, environment)
    web = SERVICES["web"]["command"].replace("8710", str(free_port())).replace("0.0.0.0", "127.0.0.1")
    page = f"""```console
$ {SERVICES["migrate"]["command"]}
$ {SERVICES["worker"]["command"]}
$ {beat}
$ axme-celery -A proj keys create --name ana --role admin
$ {web}
$ axme-celery -A proj submit proj.greet --args '["Ana"]'
0192f0c1-7a51-7c7e-9d4e-0a3f5c1d2b3e
```
<!-- python
import time
from proj import axme
while not any(intent.waiting_reason for intent in axme.intents()):
    time.sleep(0.05)
-->
```console
$ axme-celery -A proj approve 0192f0c1-7a51-7c7e-9d4e-0a3f5c1d2b3e --by ana
$ axme-celery -A proj watch 0192f0c1-7a51-7c7e-9d4e-0a3f5c1d2b3e --timeout 30s
$ sleep 1.5; axme-celery -A proj doctor
problems: 0, warnings: 0
```
"""
    try:
        project.carry_out(blocks("compose.yaml", page))
    finally:
        project.close()


def test_the_compose_file_starts_things_in_order_and_keeps_what_must_stay():
    """Migrated before anything works on it; no eviction; volumes that are declared."""
    assert set(SERVICES) == {"redis", "postgres", "migrate", "worker", "beat", "web"}
    for name in ("worker", "beat", "web"):
        assert SERVICES[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert "--maxmemory-policy noeviction" in SERVICES["redis"]["command"]
    kept = {volume.partition(":")[0] for name in ("redis", "postgres") for volume in SERVICES[name]["volumes"]}
    assert kept == set(COMPOSE["volumes"])


def test_what_the_compose_file_and_the_dockerfile_name_is_there():
    """Paths, relative to where each is read."""
    build = SERVICES["worker"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [path for line in lines if line.startswith("COPY ") for path in line.split()[1:-1]]
    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    (mounted,) = SERVICES["worker"]["volumes"]
    assert (DEPLOY / mounted.partition(":")[0]).is_dir()


@pytest.mark.parametrize(
    ("name", "service"),
    [("intents-worker.service", "worker"), ("intents-beat.service", "beat"), ("intents-web.service", "web")],
)
def test_a_unit_runs_what_the_compose_file_runs(name, service):
    """The same worker and the same beat, whichever way they are started."""
    program, *arguments = shlex.split(unit(name)["Service"]["ExecStart"])
    composed = shlex.split(SERVICES[service]["command"])

    assert program == f"/srv/venv/bin/{composed[0]}"
    # Where a container listens for others, a host has a proxy in front.
    where = {"0.0.0.0": "127.0.0.1"}
    assert [each for each in arguments if not each.startswith("/")] == [
        where.get(each, each) for each in composed[1:] if not each.startswith("/")
    ]


def test_a_stopping_worker_is_given_as_long_either_way():
    """And its children learn of it from their parent."""
    worker = unit("intents-worker.service")["Service"]
    assert f"{worker['TimeoutStopSec']}s" == SERVICES["worker"]["stop_grace_period"]
    assert worker["KillMode"] == "mixed"
