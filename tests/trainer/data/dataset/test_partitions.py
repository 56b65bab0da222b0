"""The order of partitions."""

from hypothesis import given
from hypothesis import strategies as st

from trainer.data.dataset.partitions import NULL, partition_key

NAMES = st.one_of(
    st.integers(-20, 200).map(lambda n: f"hour={n}"),
    st.integers(0, 200).map(str),
    st.sampled_from(
        [
            "hour=08",
            "day=2024-01-01",
            "day=a",
            "a",
            f"hour={NULL}",
            "hour=",
            "a=b=3",
            "=",
            "day=2024-1-9",
            "day9",
            "day09",
            "p=1.50",
            "p=1.5",
        ]
    ),
)
FOLDERS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def test_integers_are_numbers_and_missing_values_come_last() -> None:
    inside = ["hour=8", "hour=9", "hour=10", "hour=23", "hour=now", f"hour={NULL}"]
    folders = [f"dt={day}/{hour}" for day in ("2024-01-31", "2024-02-01", NULL) for hour in inside]
    shuffled = folders[::-1]
    assert sorted(shuffled, key=partition_key) == folders
    assert sorted(["10", "9", "b", "a", ""], key=partition_key) == ["", "9", "10", "a", "b"]


def test_numbers_in_text_are_numbers() -> None:
    for names in (
        ["dt=2023-12-31", "dt=2024-1-9", "dt=2024-1-10", "dt=2024-10-1"],
        ["at=2024-01-01 9%3A00", "at=2024-01-01 10%3A00"],
        ["day9", "day10", "day10b", "days"],
        ["price=-2.5", "price=1.25", "price=1.5", "price=9", "price=10.5", "price=high"],
    ):
        shuffled = names[::-1]
        assert sorted(shuffled, key=partition_key) == names


@given(st.lists(st.from_regex(r"[a-z-]{1,6}|d=202[0-9]-[01][0-9]|h=[0-9]{2}", fullmatch=True), unique=True))
def test_names_of_equal_width_or_without_integers_are_in_the_order_of_text(names: list[str]) -> None:
    assert sorted(names, key=partition_key) == sorted(names)


@given(FOLDERS, FOLDERS)
def test_no_two_folders_are_equal(one: str, other: str) -> None:
    assert (partition_key(one) == partition_key(other)) == (one == other)
