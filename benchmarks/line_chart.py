"""Line charts as SVG text, with nothing but the standard library: a few panels side by side, lines with ranges."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_COLORS: tuple[str, ...] = ("#c0392b", "#2471a3", "#1e8449", "#7d3c98", "#b9770e")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 330, 300, 58, 12, 34, 46

Scale = Callable[[float], float]  # from a value to pixels


@dataclass(frozen=True)
class Line:
    """A named line through (x, y), with a range (low, high) at each place, or none."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    ranges: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `ticks`: of x, with their labels."""

    title: str
    x_label: str
    y_label: str
    ticks: Sequence[tuple[float, str]]
    lines: Sequence[Line]


def line_chart(title: str, panels: Sequence[Panel]) -> str:
    """The SVG. Lines of one name have one color in all panels; the legend is below."""
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    colors = dict(zip(names, _COLORS, strict=False))
    width, height = _WIDTH * len(panels), _HEIGHT + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(width / 2, 20, title, anchor="middle", size=14),
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({number * _WIDTH},26)">{_panel(panel, colors)}</g>')
    for number, name in enumerate(names):
        x = _LEFT + 130 * number
        parts.append(f'<rect x="{x}" y="{height - 20}" width="18" height="4" fill="{colors[name]}"/>')
        parts.append(_text(x + 24, height - 13, name))
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, colors: dict[str, str]) -> str:
    xs = [x for line in panel.lines for x in line.x]
    ys = [y for line in panel.lines for y in (*line.y, *(edge for pair in line.ranges for edge in pair))]
    grid = _round_ticks(min(ys), max(ys))
    x_of = _scale(min(xs), max(xs), _LEFT + 12, _WIDTH - _RIGHT - 12)
    y_of = _scale(grid[0], grid[-1], _HEIGHT - _BOTTOM, _TOP)
    parts = [_text((_LEFT + _WIDTH) / 2, 18, panel.title, anchor="middle", size=13)]
    for y in grid:
        parts.append(f'<path d="M{_LEFT},{y_of(y):.1f}H{_WIDTH - _RIGHT}" stroke="#dddddd"/>')
        parts.append(_text(_LEFT - 6, y_of(y) + 4, f"{y:g}", anchor="end"))
    for x, label in panel.ticks:
        parts.append(_text(x_of(x), _HEIGHT - _BOTTOM + 18, label, anchor="middle"))
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 10, panel.x_label, anchor="middle"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(_text(14, middle, panel.y_label, anchor="middle", extra=turned))
    for line in panel.lines:
        parts += _line(line, colors[line.name], x_of, y_of)
    return "\n".join(parts)


def _line(line: Line, color: str, x_of: Scale, y_of: Scale) -> list[str]:
    points = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
    parts = [f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>']
    parts += [
        f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{color}"/>'
        for x, y in zip(line.x, line.y, strict=True)
    ]
    for x, (low, high) in zip(line.x, line.ranges, strict=False):
        parts.append(f'<path d="M{x_of(x):.1f},{y_of(low):.1f}V{y_of(high):.1f}" stroke="{color}" opacity="0.6"/>')
    return parts


def _scale(low: float, high: float, start: float, stop: float) -> Scale:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (stop - start)


def _round_ticks(low: float, high: float) -> list[float]:
    """Two to nine round numbers that enclose [low, high]."""
    least = max(1e-9, 1e-6 * max(abs(low), abs(high)))  # of one value alone
    for step in (digit * 10.0**power for power in range(-12, 13) for digit in (1, 2, 5)):
        first, last = math.floor(low / step), math.ceil(high / step)
        if step >= least and last - first <= 8:
            return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]
    return [low, high]


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {extra}>{escape(text)}</text>'
