"""The benchmark of the top does not wait for what is hopeless, as BF16 is where a processor lacks it."""

import argparse
import time

import pytest

from benchmarks import top
from benchmarks.top import Step, hopeless, measure


def taking(seconds: float) -> Step:
    return lambda: time.sleep(seconds)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "HOPELESS_SECONDS", 0.25)


def test_only_what_is_slow_and_slower_than_the_loop_is_hopeless() -> None:
    assert hopeless({"loop": taking(0.001), "fp32": taking(0.02), "bf16": taking(0.4)}, "cpu").keys() == {"bf16"}
    assert not hopeless({"loop": taking(0.1), "fp32": taking(0.1), "bf16": taking(0.3)}, "cpu")


def test_a_compiled_variant_is_not_judged_by_its_compilation() -> None:
    waits = iter([0.4, 0.0])
    assert not hopeless({"loop": taking(0.001), "fp32_compiled": lambda: time.sleep(next(waits))}, "cpu")


def test_a_hopeless_variant_is_named_and_skipped_from_there_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []
    steps = {"loop": taking(0.001), "fp32": taking(0.001), "bf16": lambda: (calls.append(1), time.sleep(0.4))[1]}
    products = {"fp32 mm": taking(0.001), "bf16 mm": taking(0.4)}
    monkeypatch.setattr(top, "variants", lambda *_, **__: steps)
    monkeypatch.setattr(top, "peak_products", lambda _: (products, dict.fromkeys(products, 1)))
    monkeypatch.setattr(top.torch, "set_num_threads", lambda _: None)
    sizes = ["reference", "middle"]
    result = measure(argparse.Namespace(device="cpu", sizes=sizes, compile=False, seconds=0.01), 2, "")
    assert len(calls) == 1, "tried once, at the first size"
    assert {f"{size}_fp32" for size in sizes} <= result.keys()
    assert not [key for key in result if "bf16" in key]
    assert "bf16 is skipped: its first step took 0." in capsys.readouterr().err
