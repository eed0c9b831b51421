"""What is published: CSV that reads back as it was, and a summary."""

from __future__ import annotations

from axme_celery.demo.report import Table, as_csv, read_csv, summary


def test_csv_reads_back_as_it_was_written(tmp_path):
    """Commas, quotes, line ends within a cell; nothing is an empty cell."""
    path = tmp_path / "table.csv"
    path.write_bytes(
        as_csv([["day", "note"], ["2012-01-01", 'said "no", twice'], [3, "two\nlines"], [None, 1.5]]).encode()
    )

    table = read_csv(path)

    assert table.columns == ["day", "note"]
    assert table.rows == [["2012-01-01", 'said "no", twice'], ["3", "two\nlines"], ["", "1.5"]]


def test_the_summary_says_what_is_in_each_column():
    """Range and mean of numbers, commonest words, range of dates; who signed."""
    table = Table(
        columns=["date", "rain", "weather", "nothing"],
        rows=[[f"2012-01-{day:02}", str(day), "rain" if day < 8 else "sun", ""] for day in range(1, 11)],
    )

    text = summary("Ten days", table, signed_by="ana")

    assert text.startswith("# Ten days\n\n10 rows, 4 columns.\n")
    assert "| date | 2012-01-01 to 2012-01-10 | 10 different |" in text
    assert "| rain | 1 to 10 | mean 5.50 |" in text
    assert "| weather | rain 7, sun 3 | 2 different |" in text
    assert "| nothing | empty |  |" in text
    assert "Signed off by ana." in text
    assert "Signed" not in summary("Ten days", table, signed_by=None)
