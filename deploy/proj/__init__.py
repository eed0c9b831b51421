"""A project to try the deployment with; put yours in its place."""

import os

from celery import Celery

from axme_celery import Axme, step, wait_for_human

app = Celery("proj", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_BROKER_URL"])
app.conf.broker_connection_retry_on_startup = True
app.conf.axme_ledger_url = os.environ["AXME_LEDGER_URL"]
app.conf.axme_secret_key = os.environ["AXME_SECRET_KEY"]
axme = Axme(app)


@step
def greeting(name: str) -> str:
    """Done once."""
    return f"Hello {name}"


@axme.task(deadline="7d")
def greet(name: str) -> str:
    """Ask somebody whether to greet, and do it."""
    text = greeting(name)
    decision = wait_for_human(f"Say {text!r}?", to="operators", timeout="1d")
    return text if decision.approved else "nothing said"
