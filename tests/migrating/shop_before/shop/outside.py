"""The world outside the shop: a bank, a printer, a carrier, a mailbox. What they were asked is a line of a file."""

import os


def ask(what: str) -> str:
    """Have it done; it cannot be taken back."""
    with open(os.environ["SHOP_FILE"], "a") as file:
        file.write(what + "\n")
    return what


def asked() -> list[str]:
    """What was asked so far."""
    with open(os.environ["SHOP_FILE"]) as file:
        return file.read().splitlines()
