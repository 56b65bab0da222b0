"""Tables of text: columns line up, numbers at their ends, words at their beginnings."""

from configs.text_table import text_table


def test_columns_line_up() -> None:
    rows = [("table", "rows", "kernel"), ("user", "1,000,000", "fused"), ("a longer name", "5", "")]
    assert text_table(rows, right={1}, indent="  ") == [
        "  table               rows  kernel",
        "  user           1,000,000  fused",
        "  a longer name          5",
    ]
    assert text_table([], right={1}) == []
