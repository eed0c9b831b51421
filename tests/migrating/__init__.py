"""A small Celery project, migrated to durable intents step by step: what docs/guides/migrating.md shows.

``shop_before/`` is the project as it was, ``steps.py`` what each step changes;
``python -m tests.migrating`` writes those changes into the guide.
"""
