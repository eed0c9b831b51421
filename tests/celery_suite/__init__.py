"""Celery's own published tests, without the extension and with it: whatever passes must pass in both.

``python -m tests.celery_suite`` runs the unit tests of apps, tasks and workers;
``python -m tests.celery_suite integration`` those of tasks and canvas on a Redis
of their own, about half an hour.
"""
