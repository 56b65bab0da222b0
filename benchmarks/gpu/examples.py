"""Examples a second of three presets on one GPU, beside what is published for MLPerf's DLRM.

Random rows in page-locked memory are copied to the GPU and trained on by the trainer's pipeline; only the reader is
left out. DLRM has MLPerf's tables, as many rows of the largest as the card holds, batch 65,536, and its bags of 214 IDs
a row: what HugeCTR's 1.72M examples a second for each H100 and 1.89M for each H200 (8 GPUs, MLPerf Training 4.0 logs)
were reached on. One GPU has no exchange between GPUs, so the ratio flatters this project by that.
"""

from collections.abc import Sequence

import torch

from benchmarks.gpu.worker import Stepping, open_group, preset, random_batches
from configs.schema import Config
from trainer.build import compile_top

PUBLISHED = {"H100": 1.72e6, "H200": 1.89e6}
HISTORY = {"watched": 20, "liked": 20, "long_watched": 20, "tags": 3}  # kuairand: IDs of a row, at most
MULTI_HOT = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)  # of MLPerf's c1 to c26
_MIDDLING = {"c11": 3_067_956, "c12": 405_282, "c23": 590_152}  # rows; the preset generates fewer kinds of sizes


def run(device: str, tiny: bool) -> dict[str, float]:
    """Examples a second by preset and precision; for DLRM also over the published figure of this card."""
    here = open_group(device)
    torch.set_num_threads(1)
    figures = {}
    precisions = ("fp32", "bf16") if device == "cuda" else ("fp32",)
    for name, bags in (("quickstart", {}), ("kuairand", HISTORY)):
        for setting in (*(f"precision={precision}" for precision in precisions), "deterministic=true"):
            config = preset(name, f"training.{setting}", *_batch(256 if tiny else 0))
            stepping, label = Stepping(config, here), setting.split("=")[setting.startswith("precision")]
            figures[f"{name}_{label}"] = _examples(name, label, stepping, bags, tiny=tiny)
            if label == precisions[-1]:
                figures |= _compiled(name, label, stepping, bags, tiny=tiny)
        torch.use_deterministic_algorithms(False)
    config = dlrm(precisions[-1], 1000 if tiny else largest_table(here), 256 if tiny else 65_536)
    return figures | _dlrm(config, here, tiny)


def _batch(rows: int) -> Sequence[str]:
    return [f"data.global_batch_size={rows}"] if rows else []


def dlrm(precision: str, largest: int, batch: int) -> Config:
    """MLPerf's DLRM with `largest` rows in each of its five largest tables."""
    middling = [f"tables.{name}.num_embeddings={min(rows, largest)}" for name, rows in _MIDDLING.items()]
    options = (f"data.generate.options.max_cardinality={largest}", f"data.global_batch_size={batch}")
    return preset("dlrm_mlperf", *options, f"training.precision={precision}", *middling)


def largest_table(device: torch.device) -> int:
    """Rows of each of five tables of 128 columns and their optimizer's state that fill .7 of the card; 40M at most."""
    if device.type == "cpu":
        return 1000
    return min(40_000_000, int(0.7 * torch.cuda.mem_get_info(device)[1] / 5 / (128 * 4 + 4)))


def _dlrm(config: Config, device: torch.device, tiny: bool) -> dict[str, float]:
    precision, multi_hot = config.training.precision, dict(zip(config.sparse_features, MULTI_HOT, strict=True))
    stepping = Stepping(config, device)
    print(f"dlrm has {config.tables['c1'].num_embeddings:,} rows in each of its largest tables")
    figures = {}
    for kind, bags in (("one_id", {}), ("multi_hot", multi_hot)):
        figures[f"dlrm_{kind}_{precision}"] = _examples(
            f"dlrm_{kind}", precision, stepping, bags, tiny=tiny, exact=True
        )
    if device.type == "cuda":
        figures |= _compiled("dlrm_multi_hot", precision, stepping, multi_hot, tiny=tiny, exact=True)
        card = torch.cuda.get_device_name()
        published = next((rate for name, rate in PUBLISHED.items() if name in card), None)
        best = max(value for name, value in figures.items() if name.startswith("dlrm_multi_hot"))
        figures |= {"dlrm_vs_published": best / published} if published else {}
    return figures


def _compiled(
    name: str, precision: str, stepping: Stepping, bags: dict[str, int], *, tiny: bool, exact: bool = False
) -> dict[str, float]:
    """The same with the top compiled, as training.compile does it."""
    compile_top(stepping.built.top, stepping.device)
    label = f"{precision}_compiled"
    return {f"{name}_{label}": _examples(name, label, stepping, bags, tiny=tiny, exact=exact)}


def _examples(
    name: str, label: str, stepping: Stepping, bags: dict[str, int], *, tiny: bool, exact: bool = False
) -> float:
    batches = random_batches(stepping.config, 2 if tiny else 4, bags, exact=exact, pin=stepping.device.type == "cuda")
    steps, warm_up = (3, 2) if tiny else (60, 15)
    seconds = stepping.seconds_a_step(batches, steps, warm_up)
    batch = stepping.config.data.global_batch_size
    rate = f"{1e3 * seconds:>9.3f} ms/step{batch / seconds:>14,.0f} examples/s"
    print(f"{name:<16}{label:<16}batch {batch:>6,}{rate}", flush=True)
    return batch / seconds
