import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.telemetry.gates import GateTelemetry, gate_names


def use_of(weights, label_weights=None, tasks=("click", "like")):
    telemetry = GateTelemetry(tasks)
    telemetry.update(
        {"gate": weights}, torch.ones(len(weights), len(tasks)) if label_weights is None else label_weights
    )
    return telemetry.compute()["gate"]


def test_load_and_entropy_of_known_gates():
    even, certain = [0.25] * 4, [0.0, 1.0, 0.0, 0.0]
    use = use_of(torch.tensor([[even, certain], [even, certain]]))
    assert use.names == ("click", "like")
    assert use.load == (tuple(even), tuple(certain))
    assert use.entropy == (pytest.approx(1.0), 0.0)
    assert use.dead == ()


def test_entropy_is_of_rows_not_of_their_mean():
    use = use_of(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), tasks=("click",))
    assert use.load == ((0.5, 0.5),)
    assert use.entropy == (0.0,)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 3), st.integers(2, 6), st.integers(0, 1000))
def test_batches_add_up_and_padding_does_not_count(rows, gates, experts, seed):
    random = torch.Generator().manual_seed(seed)
    weights = torch.softmax(torch.randn(rows, gates, experts, generator=random), 2)
    padded = torch.cat((weights, torch.softmax(torch.randn(4, gates, experts, generator=random), 2)))
    counted = torch.cat((torch.tensor([[0.0, 0.5]]).expand(rows, 2), torch.zeros(4, 2)))
    telemetry = GateTelemetry(("click", "like"))
    for cut in (slice(0, rows // 2), slice(rows // 2, None)):
        telemetry.update({"gate": padded[cut]}, counted[cut])
    use = telemetry.compute()["gate"]
    expected = weights.double().numpy()
    np.testing.assert_allclose(use.load, expected.mean(0), rtol=1e-12)
    entropy = -(expected * np.log(expected)).sum(2).mean(0) / math.log(experts)
    np.testing.assert_allclose(use.entropy, entropy, rtol=1e-5, atol=1e-6)


def test_dead_is_what_no_gate_uses():
    use = use_of(torch.tensor([[[0.999, 0.001, 0.0, 0.0], [0.0, 0.0, 0.999, 0.001]]]))
    assert use.dead == (1, 3)


def test_a_window_begins_empty():
    telemetry = GateTelemetry(("click",))
    assert telemetry.compute() == {}
    telemetry.update({"gate": torch.full((2, 1, 2), 0.5)}, torch.zeros(2, 1))
    assert telemetry.compute() == {}, "padding alone is no window"
    telemetry.update({"gate": torch.tensor([[[1.0, 0.0]]])}, torch.ones(1, 1))
    telemetry.restart()
    telemetry.update({"gate": torch.tensor([[[0.0, 1.0]]])}, torch.ones(1, 1))
    assert telemetry.compute()["gate"].load == ((0.0, 1.0),)


def test_gates_are_named_after_what_they_serve():
    assert gate_names(("a", "b"), 2) == ("a", "b")
    assert gate_names(("a", "b"), 1) == ("all",)
    assert gate_names(("a",), 1) == ("a",)
    assert gate_names(("a", "b"), 3) == ("a", "b", "shared")
