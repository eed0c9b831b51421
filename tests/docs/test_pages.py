"""Every page is carried out as it is written, by a real worker on a real Redis."""

from __future__ import annotations

import pytest

from tests.servers.process import free_port

from .pages import RUN, blocks, pages, text_of
from .project import Project

RUNNABLE = [page for page in pages() if any(block.kind in RUN for block in blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE)
def test_a_page_does_what_it_says(page, tmp_path, redis_url, request):
    """Somebody who types in what the page says gets what the page shows."""
    addresses = {"redis://localhost:6379/0": redis_url}
    if "8710" in text_of(page):
        addresses["8710"] = str(free_port())
    if "postgresql+psycopg://localhost/intents" in text_of(page):
        addresses["postgresql+psycopg://localhost/intents"] = request.getfixturevalue("postgres_url")
    project = Project(tmp_path, addresses)
    try:
        project.carry_out(blocks(page))
    finally:
        project.close()
