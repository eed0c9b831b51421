"""How Alembic runs the ledger's migrations; called by ``axme_celery.ledger.migrate`` only.

Migrations only ever add between minor versions: workers of the version before
go on while and after they run. What is to be removed is first no longer used
for a whole minor version.
"""

from __future__ import annotations

from alembic import context

from axme_celery.ledger.schema import VERSION_TABLE


def run() -> None:
    """In the transaction that was begun for us, or as SQL text."""
    given, version_table = context.config.attributes, VERSION_TABLE.name
    if context.is_offline_mode():
        context.configure(dialect_name=given["dialect"], literal_binds=True, version_table=version_table)
    else:
        context.configure(connection=given["connection"], version_table=version_table)
    with context.begin_transaction():
        context.run_migrations()


run()
