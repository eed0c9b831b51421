"""A reusable library of tasks, as ``shared_task`` is for: they belong to whatever app there is."""

from celery import shared_task


@shared_task(name="e2e.shared")
def shared(x: int) -> int:
    return x + 2
