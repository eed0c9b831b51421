"""``/metrics``: the ledger's figures, for Prometheus. The same whichever process is asked: nothing is counted in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response

from ..errors import AxmeError
from .house import House, house, need
from .v1 import problems

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

blueprint = Blueprint("metrics", __name__)
problems.install(blueprint)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Prometheus text. 503 where the ledger cannot be reached, or ``axme-celery[metrics]`` is not installed."""
    need()
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError:
        return Response("install axme-celery[metrics]\n", 503, mimetype="text/plain")
    registry = CollectorRegistry()
    try:
        registry.register(_Figures(house()))
        text = generate_latest(registry)
    except AxmeError:
        return Response("the ledger cannot be reached\n", 503, mimetype="text/plain")
    return Response(text, 200, content_type="text/plain; version=0.0.4; charset=utf-8")


class _Figures:
    """What is collected, read at once."""

    def __init__(self, here: House) -> None:
        self._here = here

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        from prometheus_client.metrics_core import GaugeMetricFamily

        def one(name: str, what: str, value: float) -> Metric:
            return GaugeMetricFamily(f"axme_{name}", what, value=value)

        def many(name: str, what: str, label: str, values: dict[str, Any]) -> Metric:
            family = GaugeMetricFamily(f"axme_{name}", what, labels=[label])
            for each, value in sorted(values.items()):
                family.add_metric([each], value)
            return family

        rt = self._here.rt
        figures = rt.ledger.figures()
        yield many(
            "intents", "Intents by status: all open ones, and what ended in the last day.", "status", figures.intents
        )
        yield many("waits_open", "Open waits by kind.", "kind", figures.waits)
        yield many("outbox", "Deliveries in the outbox by kind.", "kind", figures.outbox)
        yield many("webhook_deliveries", "Webhook deliveries by status.", "status", rt.ledger.hooks.counts())
        yield one("outbox_lag_seconds", "How late the first due delivery is.", figures.outbox_lag_seconds)
        yield one("timers_overdue_seconds", "How late the most overdue timer is.", figures.overdue_seconds)
        yield one(
            "oldest_open_wait_seconds", "How long the oldest open wait has been open.", figures.oldest_wait_seconds
        )
        yield one("legs_parked", "Legs that wait for an operator.", figures.parked_legs)
        yield one("legs_running", "Legs that run now.", figures.running_legs)
        yield one("dead_letters_open", "Dead letters nobody has dealt with.", figures.open_dead_letters)
        ticks = self._ticks()
        if ticks is not None:
            yield one("last_sweep_age_seconds", "How long ago the last sweep was.", ticks)

    def _ticks(self) -> float | None:
        rt = self._here.rt
        try:
            last = max(rt.tracker.ticks().values(), default=None)
        except AxmeError:
            return None
        return None if last is None else max(0.0, (rt.ledger.now() - last).total_seconds())
