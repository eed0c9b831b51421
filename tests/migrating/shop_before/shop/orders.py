"""Orders: charged, shipped, thanked for; and a reminder to those who do not pay."""

from celery import chain

from shop.app import app
from shop.outside import ask


def charge_card(order: str) -> str:
    return ask(f"charge {order}")


def print_invoice(order: str) -> str:
    return ask(f"invoice {order}")


@app.task
def charge(order: str) -> str:
    charge_card(order)
    print_invoice(order)
    return order


@app.task
def ship(order: str) -> str:
    ask(f"ship {order}")
    return order


@app.task
def thank(order: str) -> str:
    return ask(f"thank {order}")


@app.task
def remind(order: str) -> str:
    return ask(f"remind {order}")


def place(order: str):
    return chain(charge.s(order), ship.s(), thank.s()).delay()


def remind_later(order: str, seconds: float):
    return remind.apply_async((order,), countdown=seconds)
