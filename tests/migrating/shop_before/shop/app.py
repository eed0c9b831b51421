"""The shop's Celery app."""

import os

from celery import Celery

app = Celery("shop", include=["shop.orders", "shop.reports"])
app.conf.broker_url = app.conf.result_backend = os.environ["SHOP_REDIS"]
