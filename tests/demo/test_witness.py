"""The witness's log: whole lines, whoever writes, whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys

from axme_celery.demo import witness


def test_lines_of_several_processes_do_not_mix(tmp_path):
    """Four processes, 200 lines each, at once."""
    log = tmp_path / "witness.jsonl"
    program = (
        "import sys; from pathlib import Path; from axme_celery.demo import witness\n"
        "for page in range(1, 201): witness.note(Path(sys.argv[1]), 'wrote', page, 3)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(log)]) for _ in range(4)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]

    lines = witness.read(log)

    assert len(lines) == 800
    for writer in writers:
        assert [line.page for line in lines if line.pid == writer.pid] == list(range(1, 201))


def test_a_line_says_who_did_what_in_which_run(tmp_path):
    """And a log not there yet is an empty one."""
    log = tmp_path / "witness.jsonl"
    assert witness.read(log) == []

    witness.note(log, "started", 47, 2)

    [line] = witness.read(log)
    assert (line.what, line.page, line.run, line.pid) == ("started", 47, 2, os.getpid())
