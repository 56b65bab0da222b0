"""Where a step's time goes: from the profiler, a table for each preset.

The GPU is busy, or it waits for the host: then what the host does between two launches is the limit. A synchronisation
inside a step, which every `.item()` is, keeps the host from running ahead; each is counted and the line is named.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.examples import HISTORY, dlrm
from benchmarks.gpu.worker import Stepping, open_group, preset, random_batches, timed
from configs.schema import Config
from trainer.data.reading.batch import Batch

STEPS = 10
_KINDS = {  # of kernels, by a part of their name; the first that fits
    "copies": ("memcpy", "copy_kernel", "copy_device"),
    "matrix products": ("gemm", "cutlass", "cublas", "xmma", "nvjet", "splitk"),
    "tables": (
        "embedding",
        "split_",
        "linearize",
        "radix",
        "sort",
        "bounds_check",
        "jagged",
        "permute",
        "transpose_emb",
    ),
    "optimizer": ("adam", "multi_tensor"),
    "communication": ("nccl",),
    "fills": ("memset", "fill"),
    "elementwise and reductions": ("",),
}


def run(device: str, tiny: bool) -> dict[str, float]:
    """By preset: milliseconds of a step, of them busy by kind of work, launches and synchronisations."""
    here = open_group(device)
    torch.set_num_threads(1)
    figures = {}
    small = ["data.global_batch_size=256"] if tiny else []
    rows, batch = (1000, 256) if tiny else (2_000_000, 65_536)
    for name, config, bags in (
        ("quickstart", preset("quickstart", *small), {}),
        ("kuairand", preset("kuairand", *small), HISTORY),
        ("dlrm", dlrm("tf32" if device == "cuda" else "fp32", rows, batch), {}),
    ):
        found = _profile(name, config, bags, here)
        figures |= {f"{name}_{key}": value for key, value in found.items() if not key.startswith("host")}
    return figures


def _profile(name: str, config: Config, bags: dict[str, int], device: torch.device) -> dict[str, float]:
    stepping = Stepping(config, device)
    batches, figures = random_batches(config, 2, bags), {}
    if device.type == "cuda":
        batches[0].pin_memory()  # page-locked memory is claimed at the first time
        figures["pinning, on the host"] = 1e3 * timed(lambda: batches[0].pin_memory(), "cpu")
        batches = [batch.pin_memory() for batch in batches]
    seconds = stepping.seconds_a_step(batches, 5 * STEPS, 10)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as trace:
        stepping.seconds_a_step(batches, STEPS, 0)
    figures |= {"ms": 1e3 * seconds} | _by_kind(trace.events()) | _overlap(trace.events())
    print(f"{name}, batch {config.data.global_batch_size:,}, ms or number a step:")
    for key, value in figures.items():
        print(f"    {key:<44}{value:>10.3f}")
    if device.type == "cuda":
        busy = sum(value for key, value in figures.items() if key in _KINDS)
        figures["busy_share"] = busy / figures["ms"]
        print(f"    {'busy':<44}{figures['busy_share']:>10.1%}")
        figures["synchronisations"] = _synchronisations(stepping, batches)
    return figures


def _by_kind(events: list[FunctionEvent]) -> dict[str, float]:
    """Milliseconds or number a step: kernels by kind, then what the host did, the largest first."""
    kernels: dict[str, float] = defaultdict(float)
    host: dict[str, float] = defaultdict(float)
    launches = 0
    for event in events:
        if event.device_type == torch.autograd.DeviceType.CUDA:
            if event.name.startswith(
                ("##", "[", "Optimizer.")
            ):  # named stretches of the host, drawn beside its kernels
                continue
            lowered = event.name.lower()
            kind = next(kind for kind, parts in _KINDS.items() if any(part in lowered for part in parts))
            kernels[kind] += event.self_device_time_total / 1e3 / STEPS
        else:
            launches += event.name in ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
            host[f"host: {event.name[:36]}"] += event.self_cpu_time_total / 1e3 / STEPS
    largest = dict(sorted(host.items(), key=lambda item: -item[1])[:12])
    return dict(sorted(kernels.items(), key=lambda item: -item[1])) | largest | {"launches": launches / STEPS}


def _overlap(events: list[FunctionEvent]) -> dict[str, float]:
    """Of the time that copies to the GPU take, the shares in which kernels ran beside them, and that were pinned.

    Nothing where there are no copies.
    """
    on_gpu = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = [event for event in on_gpu if event.name.startswith("Memcpy HtoD")]
    if not copies:
        return {}
    kernels = [event for event in on_gpu if not event.name.startswith(("Memcpy", "Memset", "##", "[", "Optimizer."))]
    busy = _union([(event.time_range.start, event.time_range.end) for event in kernels])
    total = sum(copy.time_range.elapsed_us() for copy in copies)
    beside = sum(
        max(0.0, min(stop, copy.time_range.end) - max(start, copy.time_range.start))
        for copy in copies
        for start, stop in busy
    )
    pinned = sum(copy.time_range.elapsed_us() for copy in copies if "Pinned" in copy.name)
    return {"copies beside kernels, share": beside / total, "copies from pinned memory, share": pinned / total}


def _union(ranges: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same times, without overlaps."""
    found: list[tuple[float, float]] = []
    for start, stop in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found


def _synchronisations(stepping: Stepping, batches: Sequence[Batch]) -> float:
    """How often the host waits for the GPU in a step, by the lines that do it."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stepping.train(batches, STEPS)
    torch.cuda.set_sync_debug_mode("default")
    waits = [one for one in caught if "synchroniz" in str(one.message)]
    lines = Counter(f"{one.filename.split('site-packages/')[-1]}:{one.lineno}" for one in waits)
    for line, count in lines.most_common(8):
        print(f"    waits at {line}: {count / STEPS:.1f} a step")
    return sum(lines.values()) / STEPS
