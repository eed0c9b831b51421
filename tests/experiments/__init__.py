"""What becomes of work when processes are killed and messages take their time: plain Celery, and with us.

``python -m tests.experiments`` does each experiment on a Redis of its own, the
same tasks every time: once as plain Celery, once with their names in
``axme_tasks``, once submitted. It writes the table of docs/guarantees.md and
ends with 1 if anything came out other than it says there.
"""
