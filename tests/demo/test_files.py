"""The filesystem transport under several processes at once: nothing lost, nothing half-read."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from queue import Empty

import pytest
from kombu import Connection

from axme_celery.demo import files

PRELUDE = """
import sys, time
from queue import Empty
from kombu import Connection
from axme_celery.demo import files
files.register()
folder, name = sys.argv[1:]
connection = Connection("axme-files://", transport_options={
    "data_folder_in": folder + "/queue", "data_folder_out": folder + "/queue", "control_folder": folder + "/control"})
channel = connection.default_channel
"""
WRITE = (
    PRELUDE
    + """
for n in range(500):
    channel._put("jobs", {"body": f"{name}-{n}", "filling": "x" * 20000})
"""
)
READ = (
    PRELUDE
    + """
quiet_at = time.monotonic() + 5
while time.monotonic() < quiet_at:
    try:
        message = channel._get("jobs")
    except Empty:
        continue
    assert len(message["filling"]) == 20000
    print(message["body"])
    quiet_at = time.monotonic() + 2
"""
)
BIND = (
    PRELUDE
    + """
for n in range(50):
    channel._queue_bind("pidbox", "", "", f"{name}-{n}")
    channel.get_table("pidbox")
"""
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "queue").mkdir()
    (tmp_path / "control").mkdir()
    return tmp_path


def together(folder, *programs: str) -> list[str]:
    """Run these at once; what they printed. Each must end well."""
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(folder), f"p{n}"], stdout=subprocess.PIPE, text=True)
        for n, program in enumerate(programs)
    ]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(running)
    return [line for words in said for line in words.splitlines()]


def channel_on(folder):
    files.register()
    options = {
        "data_folder_in": str(folder / "queue"),
        "data_folder_out": str(folder / "queue"),
        "control_folder": str(folder / "control"),
    }
    return Connection("axme-files://", transport_options=options).default_channel


def test_each_message_is_taken_whole_by_one_reader(folder):
    """Two writers, two readers, 1000 messages of 20 kB."""
    taken = together(folder, WRITE, WRITE, READ, READ)

    assert Counter(taken) == Counter(f"p{writer}-{n}" for writer in range(2) for n in range(500))
    assert list((folder / "queue").iterdir()) == []


def test_no_binding_is_lost_when_all_bind_at_once(folder):
    """As workers do when they start together."""
    together(folder, BIND, BIND, BIND, BIND)

    table = channel_on(folder).get_table("pidbox")

    assert sorted(row.queue for row in table) == sorted(f"p{process}-{n}" for process in range(4) for n in range(50))


def test_messages_come_in_the_order_they_were_put(folder):
    """Queue by queue; another queue's are left where they are."""
    channel = channel_on(folder)
    for n in range(5):
        channel._put("jobs", {"n": n})
        channel._put("other", {"n": -n})
        time.sleep(0.002)  # order is kept to the millisecond

    assert [channel._get("jobs")["n"] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(Empty):
        channel._get("jobs")
    assert channel._size("other") == 5


def test_a_deleted_queue_is_unbound_and_emptied(folder):
    """The other bindings stay."""
    channel = channel_on(folder)
    channel._queue_bind("pidbox", "", "", "mine")
    channel._queue_bind("pidbox", "", "", "theirs")
    channel._put("mine", {"n": 1})

    channel._delete("mine", "pidbox", "", "")

    assert [row.queue for row in channel.get_table("pidbox")] == ["theirs"]
    assert channel._size("mine") == 0
    assert channel.get_table("never-bound") == []
