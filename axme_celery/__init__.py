"""Durable intents over the Celery you already run."""
