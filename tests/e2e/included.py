"""Tasks of a module that a worker imports when it starts (``include``, as ``autodiscover_tasks`` does it)."""

from celery import current_app, shared_task

from axme_celery import step


@current_app.task(name="e2e.included", shared=False)
def included(x: int) -> int:
    """Known to workers only."""
    return tripled(x)


@step
def tripled(x: int) -> int:
    return 3 * x


@shared_task(name="e2e.included_shared")
def included_shared(x: int) -> int:
    return x + 7
