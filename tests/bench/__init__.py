"""Benchmarks: what a durable intent costs beside plain Celery, the bare database, DBOS and Absurd.

Run with ``python -m tests.bench [workload ...] [--quick] [--write]``. Every figure is for ratios within one run
on one machine: the subjects take turns, round by round, on the same servers. Nothing here is asserted by a test.
"""
