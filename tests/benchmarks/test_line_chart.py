"""The charts of benchmarks: valid SVG, everything inside, round numbers around the values."""

import xml.etree.ElementTree as ET
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.line_chart import Line, Panel, _round_ticks, line_chart

VALUES = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@given(VALUES, VALUES)
def test_ticks_enclose_in_equal_steps(one: float, other: float) -> None:
    low, high = sorted((one, other))
    ticks = _round_ticks(low, high)
    rounding = 1e-12 * max(1, abs(low), abs(high))
    assert ticks[0] - rounding <= low <= high <= ticks[-1] + rounding
    assert 2 <= len(ticks) <= 9
    steps = [b - a for a, b in pairwise(ticks)]
    assert 0 < max(steps) <= 1.001 * min(steps)


def test_lines_lie_inside_their_panels() -> None:
    lines = [Line("a < b", [0.5, 1], [3.0, 2.0], [(2.5, 3.5), (1.0, 2.5)]), Line("flat", [0.5, 1], [2.0, 2.0])]
    panel = Panel("title & more", "x", "y", [(0.5, ".5"), (1, "1")], lines)
    root = ET.fromstring(line_chart("both", [panel, panel]))
    space = "{http://www.w3.org/2000/svg}"
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    drawn = root.findall(f".//{space}polyline")
    assert len(drawn) == 4
    for line in drawn:
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert all(0 < x < width / 2 and 0 < y < height for x, y in points)
    (left, high), (right, low) = (map(float, point.split(",")) for point in drawn[0].attrib["points"].split())
    assert left < right
    assert high < low  # 3 is drawn above 2
    assert {text.text for text in root.findall(f".//{space}text")} >= {"a < b", "flat", "title & more", "both"}
