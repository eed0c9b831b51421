"""The test suite's share of the requests made up from the OpenAPI document; ``make fuzz`` makes 10,000."""

from __future__ import annotations

import pytest

from tests.web import fuzz


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("fuzz")
def test_requests_made_up_from_the_document_fail_no_check():
    """Whatever fits the document is taken or refused as it says; whatever does not is refused; nothing breaks."""
    done = fuzz.run(0, seed=1, rest=["--phases", "fuzzing", "--max-examples", "3"])

    assert done.returncode == 0, done.stdout[-6000:]
    assert fuzz.count(done.stdout) > 100
