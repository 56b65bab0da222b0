"""Small pictures for TensorBoard, drawn with Pillow (which TensorBoard requires anyway): gate load, reliability."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from trainer.telemetry.curves import ReliabilityPoint
from trainer.telemetry.gates import GateUse

CELL, MARGIN, HEADER = 36, 110, 40
PLOT, FRAME = 360, 50  # side of the reliability plot, space left for its scales
TICKS = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99)
# viridis at five places, from nothing to everything
COLORS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=np.float64)


def heatmap(use: GateUse) -> np.ndarray:
    """[height, width, 3] uint8: a row a gate, a column an expert, each cell its mean weight in percent.

    The number of a dead expert is red. A cell is white where a gate cannot see the expert: in PLE, another task's.
    """
    load = np.asarray(use.load)
    gates, experts = load.shape
    image = Image.new("RGB", (max(MARGIN + experts * CELL, 330), HEADER + gates * CELL), "white")
    draw = ImageDraw.Draw(image)
    draw.text((4, 4), "mean weight in %; a row a task's gate, a column an expert", fill="black")
    draw.text((MARGIN - 6, HEADER - 9), "expert", fill="black", anchor="rm")
    for e in range(experts):
        fill, text = ("red", f"{e} dead") if e in use.dead else ("black", str(e))
        draw.text((MARGIN + e * CELL + CELL // 2, HEADER - 9), text, fill=fill, anchor="mm")
    for g, name in enumerate(use.names):
        top = HEADER + g * CELL
        draw.text((MARGIN - 6, top + CELL // 2), name[:16], fill="black", anchor="rm")
        for e in range(experts):
            left = MARGIN + e * CELL
            if load[g, e] == 0:
                continue
            draw.rectangle((left, top, left + CELL - 2, top + CELL - 2), fill=color(float(load[g, e])))
            text = "white" if load[g, e] < 0.6 else "black"
            draw.text((left + CELL // 2, top + CELL // 2), f"{100 * load[g, e]:.0f}", fill=text, anchor="mm")
    return np.asarray(image)


def color(share: float) -> tuple[int, int, int]:
    """Of a number in [0, 1]: dark violet to yellow; red for NaN, which a diverged model predicts."""
    if math.isnan(share):
        return 255, 0, 0
    place = min(max(share, 0.0), 1.0) * (len(COLORS) - 1)
    low = min(int(place), len(COLORS) - 2)
    red, green, blue = COLORS[low] + (COLORS[low + 1] - COLORS[low]) * (place - low)
    return round(red), round(green), round(blue)


def reliability_plot(points: Sequence[ReliabilityPoint]) -> np.ndarray:
    """[360, 360, 3] uint8: mean label over mean prediction, both in log-odds; a circle's area is its share of the rows.

    On the diagonal predictions are right on average, below it they are too high.
    """
    image = Image.new("RGB", (PLOT, PLOT), "white")
    draw = ImageDraw.Draw(image)
    for tick in TICKS:
        draw.line((place(tick), FRAME, place(tick), PLOT - FRAME), fill="#dddddd")
        draw.line((FRAME, PLOT - place(tick), PLOT - FRAME, PLOT - place(tick)), fill="#dddddd")
        draw.text((place(tick), PLOT - FRAME + 10), f"{tick:g}", fill="black", anchor="mm")
        draw.text((FRAME - 6, PLOT - place(tick)), f"{tick:g}", fill="black", anchor="rm")
    draw.line((FRAME, PLOT - FRAME, PLOT - FRAME, FRAME), fill="gray")
    draw.text((PLOT // 2, PLOT - 14), "mean prediction (a circle's area: share of rows)", fill="black", anchor="mm")
    draw.text((4, FRAME - 34), "mean label", fill="black")
    draw.text((FRAME + 6, FRAME + 6), "predicts too little", fill="#999999")
    draw.text((PLOT - FRAME - 6, PLOT - FRAME - 8), "predicts too much", fill="#999999", anchor="rm")
    for point in points:
        if math.isnan(point.prediction):
            continue
        x, y, radius = place(point.prediction), PLOT - place(point.label), 2 + 16 * math.sqrt(point.share)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=color(0.25), width=2)
    return np.asarray(image)


def place(probability: float) -> float:
    """Pixels from the edge of the reliability plot; what lies beyond its scales sits on its frame."""
    low, high = math.log(0.00005), -math.log(0.005)  # log-odds, nearly
    odds = math.log(max(probability, 1e-9)) - math.log(max(1 - probability, 1e-9))
    return FRAME + (PLOT - 2 * FRAME) * (min(max(odds, low), high) - low) / (high - low)
