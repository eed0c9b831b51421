"""``python -m axme_celery.demo``: the demo without the command line around it."""

from .command import demo

demo(prog_name="python -m axme_celery.demo")
