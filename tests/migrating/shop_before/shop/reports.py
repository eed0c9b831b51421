"""The monthly report: pages fetched side by side, added up, published."""

from celery import chain, chord

from shop.app import app
from shop.outside import ask


@app.task
def fetch(month: str, page: int) -> int:
    return page * 10


@app.task
def add_up(rows: list[int]) -> int:
    return sum(rows)


@app.task
def publish(month: str) -> str:
    return ask(f"publish {month}")


def start(month: str):
    pages = chord([fetch.s(month, page) for page in (1, 2, 3)], add_up.s())
    return chain(pages, publish.si(month)).delay()
