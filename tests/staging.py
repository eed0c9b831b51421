"""The fixtures for tests of verbs and rules: an app, its ``Axme``, and a stage to run its intents on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery

from axme_celery import Axme
from axme_celery.ledger.migrate import upgrade
from axme_celery.testing import Stage

__all__ = ["app", "axme", "stage", "stage_on_each_database"]


@pytest.fixture
def app() -> Celery:
    """An app whose broker and result backend nobody can reach."""
    app = Celery("staged", broker="amqp://127.0.0.1:1", backend="redis://127.0.0.1:1", set_as_current=False)
    Axme(app)
    return app


@pytest.fixture
def axme(app: Celery) -> Axme:
    """The app's ``Axme``: ``@axme.task`` defines a durable task."""
    return app.axme


@pytest.fixture
def stage(app: Celery) -> Iterator[Stage]:
    """The app's stage."""
    with Stage(app) as stage:
        yield stage


@pytest.fixture(params=["sqlite", "postgresql"])
def stage_on_each_database(request: pytest.FixtureRequest, app: Celery) -> Iterator[Stage]:
    """The app's stage, on SQLite and on PostgreSQL."""
    url = "sqlite://"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
        upgrade(url)
    with Stage(app, ledger_url=url) as stage:
        yield stage


@pytest.fixture
def becomes(app):
    """A task that is replaced by what ``app.canvases`` makes of its argument."""

    @app.task(bind=True, shared=False, name="becomes")
    def becomes(self, x, kind):
        raise self.replace(app.canvases[kind](x))

    app.canvases = {}
    return becomes
