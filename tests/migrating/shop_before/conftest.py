"""A worker for the tests."""

import subprocess
import sys

import pytest


@pytest.fixture(scope="session", autouse=True)
def worker(tmp_path_factory):
    """A worker with a beat inside, as long as the tests run."""
    folder = tmp_path_factory.mktemp("worker")
    command = ["celery", "-A", "shop", "worker", "-c", "2", "-B", "-s", str(folder / "schedule")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=log)
        yield process
        process.terminate()
        process.wait(30)
