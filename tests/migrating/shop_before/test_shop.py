"""What the shop does."""

from shop import orders, reports
from shop.outside import asked


def test_an_order_is_charged_shipped_and_thanked_for():
    assert orders.place("A1").get(timeout=30) == "thank A1"

    assert [line for line in asked() if line.endswith("A1")] == ["charge A1", "invoice A1", "ship A1", "thank A1"]


def test_a_reminder_comes_once():
    orders.remind_later("A2", 1.5).get(timeout=30)

    assert asked().count("remind A2") == 1


def test_a_month_is_published():
    assert reports.start("2026-10").get(timeout=30) == "publish 2026-10"
