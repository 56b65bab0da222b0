import math

import numpy as np

from trainer.telemetry.curves import ReliabilityPoint
from trainer.telemetry.gates import GateUse
from trainer.telemetry.pictures import CELL, FRAME, HEADER, MARGIN, PLOT, color, heatmap, place, reliability_plot

USE = GateUse(("click", "like"), ((0.75, 0.25), (0.0, 1.0)), (0.8, 0.0), ())


def test_the_heatmap_colors_each_cell_by_its_load():
    picture = heatmap(USE)
    assert picture.shape == (HEADER + 2 * CELL, 330, 3)
    assert picture.dtype == np.uint8
    for gate, loads in enumerate(USE.load):
        for expert, load in enumerate(loads):
            corner = picture[HEADER + gate * CELL + 2, MARGIN + expert * CELL + 2]
            assert tuple(corner) == (color(load) if load else (255, 255, 255))


def test_a_dead_expert_is_red():
    dead = GateUse(("click", "like"), ((0.999, 0.001), (0.999, 0.001)), (0.0, 0.0), (1,))
    heads = [heatmap(use)[:HEADER].astype(int) for use in (USE, dead)]
    red = [(head[..., 0] - head[..., 1] > 100).sum() for head in heads]
    assert red[0] == 0 < red[1]


def test_color_runs_from_nothing_to_everything():
    assert color(-1.0) == color(0.0) == (68, 1, 84)
    assert color(1.0) == color(2.0) == (253, 231, 37)
    assert color(0.5) == (33, 145, 140)
    assert color(math.nan) == (255, 0, 0)


def test_places_rise_with_probability_inside_the_frame():
    places = [place(p) for p in (0.0, 0.0001, 0.01, 0.5, 0.99, 1.0)]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (FRAME, PLOT - FRAME)


def test_the_reliability_plot_has_a_dot_where_the_point_is():
    empty, picture = reliability_plot([]), reliability_plot([ReliabilityPoint(0.5, 0.1, 0.0)])
    changed = np.argwhere((empty != picture).any(axis=2))
    x, y = place(0.5), PLOT - place(0.1)
    assert len(changed) > 0
    assert np.abs(changed - [y, x]).max() <= 4
