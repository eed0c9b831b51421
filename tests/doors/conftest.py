"""Doors are tried on the stages of the end-to-end tests."""

from tests.e2e.conftest import open_stage, pytest_runtest_makereport, stage  # noqa: F401
