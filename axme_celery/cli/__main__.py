"""``python -m axme_celery.cli``: the script, for where it is not on the path."""

from . import main

main(prog_name="axme-celery")
