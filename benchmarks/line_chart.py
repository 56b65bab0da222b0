"""Lines with error bars as an SVG: enough for the plots of this folder, without a plotting library."""

from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, MARGIN = 640, 400, 64
COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#8d6a9f", "#e09f3e")
Points = Sequence[tuple[float, float, float]]  # x, mean, standard deviation


def line_chart(lines: Mapping[str, Points], x_label: str, y_label: str) -> str:
    """A chart with a line for each name, through its means; zero is on the y axis."""
    xs = sorted({x for points in lines.values() for x, _, _ in points})
    top = max(mean + spread for points in lines.values() for _, mean, spread in points) * 1.05

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / ((xs[-1] - xs[0]) or 1)
        return MARGIN + across * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - max(0.0, y) / top * (HEIGHT - 2 * MARGIN)

    parts = [_axes(xs, top, at, x_label, y_label)]
    for number, (name, points) in enumerate(lines.items()):
        parts.append(_line(points, at, COLOURS[number % len(COLOURS)]))
        parts.append(_text(WIDTH - MARGIN, MARGIN + 18 * number, name, "end", COLOURS[number % len(COLOURS)]))
    style = 'font-family="sans-serif" font-size="13"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>\n"])


def _axes(xs: Sequence[float], top: float, at, x_label: str, y_label: str) -> str:
    (left, bottom), (right, upper) = at(xs[0], 0), at(xs[-1], top)
    path = f"M{left:.0f} {upper:.0f} V{bottom:.0f} H{right:.0f}"
    parts = [f'<path d="{path}" fill="none" stroke="#444"/>']
    parts += [_text(at(x, 0)[0], bottom + 20, f"{x:g}", "middle") for x in xs]
    parts += [_text(left - 8, at(xs[0], top * k / 4)[1] + 4, f"{top * k / 4:.2f}", "end") for k in range(5)]
    parts += [_text(WIDTH / 2, HEIGHT - 16, x_label, "middle"), _text(left, MARGIN - 20, y_label, "start")]
    return "\n".join(parts)


def _line(points: Points, at, colour: str) -> str:
    places = [at(x, mean) for x, mean, _ in points]
    bars = [(at(x, mean - spread), at(x, mean + spread)) for x, mean, spread in points]
    path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = [f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    parts += [f'<path d="M{x:.1f} {low:.1f} V{high:.1f}" stroke="{colour}"/>' for (x, low), (_, high) in bars]
    return "\n".join(parts)


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
