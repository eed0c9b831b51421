"""Crashes of every kind, and a checker that reads what happened from a history.

One reference intent (``reference.py``) writes a line to a file at every step and
wait; clients write what they asked and were told. After the crashes the checker
(``checker.py``) compares those lines with the ledger, rule by rule.

- ``enumeration.py`` ends the process at every commit and every publish in turn,
  before, after and with a lost reply, and again while it recovers.
- ``races.py`` lets two writers meet at one wait or one leg, a thousand times.
- ``live.py`` runs real workers under load while processes, brokers and
  databases are killed, paused, flushed and restarted.

``python -m tests.chaos`` runs them, at length; the test suite runs a share of each (``tests/e2e``).
"""
