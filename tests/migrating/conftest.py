"""The project's own tests are run by ``test_migration.py``, in a process of their own."""

collect_ignore = ["shop_before"]
