"""A small shop with a Celery app."""

from shop.app import app

__all__ = ["app"]
