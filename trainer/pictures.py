"""Small pictures for TensorBoard, drawn with Pillow (which TensorBoard requires anyway): the gates' heatmap."""

import numpy as np
from PIL import Image, ImageDraw

from trainer.gates import GateUse

CELL, MARGIN, HEADER = 36, 110, 18
# viridis at five places, from nothing to everything
COLORS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=np.float64)


def heatmap(use: GateUse) -> np.ndarray:
    """[height, width, 3] uint8: a row a gate, a column an expert, each cell its mean weight in percent."""
    load = np.asarray(use.load)
    gates, experts = load.shape
    image = Image.new("RGB", (MARGIN + experts * CELL, HEADER + gates * CELL), "white")
    draw = ImageDraw.Draw(image)
    for e in range(experts):
        draw.text((MARGIN + e * CELL + CELL // 2, HEADER // 2), str(e), fill="black", anchor="mm")
    for g, name in enumerate(use.names):
        top = HEADER + g * CELL
        draw.text((MARGIN - 6, top + CELL // 2), name[:16], fill="black", anchor="rm")
        for e in range(experts):
            left = MARGIN + e * CELL
            draw.rectangle((left, top, left + CELL - 2, top + CELL - 2), fill=color(float(load[g, e])))
            text = "white" if load[g, e] < 0.6 else "black"
            draw.text((left + CELL // 2, top + CELL // 2), f"{100 * load[g, e]:.0f}", fill=text, anchor="mm")
    return np.asarray(image)


def color(share: float) -> tuple[int, int, int]:
    """Of a number in [0, 1]: dark violet to yellow."""
    place = min(max(share, 0.0), 1.0) * (len(COLORS) - 1)
    low = min(int(place), len(COLORS) - 2)
    red, green, blue = COLORS[low] + (COLORS[low + 1] - COLORS[low]) * (place - low)
    return round(red), round(green), round(blue)
