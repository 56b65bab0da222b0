"""Speed of a training step of the batched MMoE against the same model written as a loop over experts and tasks.

    python -m benchmarks.top [--sizes reference middle large] [--device cpu|cuda] [--compile] [--seconds 4] [--json]

A step is forward, backward (to the input too: tables need that gradient) and optimizer. The yardstick is a loop over
`nn.Sequential` experts, gates and towers in FP32 with torch.optim.Adam as it comes; the batched top uses the fused
Adam that the trainer uses. The share of peak is the step's matrix products (2 FLOPs a multiply-add, forward and both
backward products) per second, over the fastest large product that this machine runs in the same precision on as many
threads, by any kernel that torch has. On a GPU there is TF32 too, and `_graphed` is a step whose kernels were recorded
once in a CUDA graph: launched together, they do not wait for the host. All variants and these products take short turns
in the same process, each one's fastest turn counts, and on one thread the time is the thread's own, so that a busy
machine disturbs the ratios little.
What takes a second and five times as long as the loop in its first step is skipped, there and at the sizes after it:
on a processor without BF16, torch emulates it, and one step of the middle size takes most of a minute.

`--json` ends with one object: `<size>_<precision>` is the speed-up over the loop on one thread, and
`<size>_<precision>_peak_share` the share; the same on all threads ends in `_all_threads`, compiled in `_compiled`.
"""

import argparse
import contextlib
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from configs.formulations import measuring
from configs.layout import lay_out
from configs.schema import ModelConfig, TaskConfig
from embeddings.adam import CpuAdam
from models.batched.products import product
from models.build import build_top

Step = Callable[[], None]


@dataclass(frozen=True)
class Size:
    """A model and the rows of its batch."""

    batch: int
    input_dim: int
    tasks: int
    model: ModelConfig


WIDE = (512, 256, 128)
SIZES = {
    "reference": Size(128, 100, 2, ModelConfig(num_experts=4, expert_layers=(64, 32, 16), gate_layers=(16, 8))),
    "middle": Size(4096, 512, 4, ModelConfig(num_experts=8, expert_layers=WIDE, tower_layers=(64,))),
    "large": Size(4096, 1024, 8, ModelConfig(num_experts=16, expert_layers=WIDE, tower_layers=(64,))),
}
PRODUCTS = {"cpu": ((2048, 1024, 2048), (4096, 512, 4096)), "cuda": ((4096, 4096, 4096), (8192, 8192, 8192))}
"""Rows, inner and columns of large matrix products."""
TURN_SECONDS = 0.02
HOPELESS_SECONDS, HOPELESS_RATIO = 1.0, 5  # of a first step: both at once, and it is skipped
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
GPU_PRECISIONS = PRECISIONS | {"tf32": torch.float32}


class LoopMMoE(nn.Module):
    """The same function as models/tops/mmoe.py, expert by expert and task by task."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        model, tasks = size.model, range(size.tasks)
        width = model.expert_layers[-1]
        self.experts = nn.ModuleList(
            mlp(size.input_dim, model.expert_layers, activate_output=True) for _ in range(model.num_experts)
        )
        self.gates = nn.ModuleList(mlp(size.input_dim, (*model.gate_layers, model.num_experts)) for _ in tasks)
        self.towers = nn.ModuleList(mlp(width, (*model.tower_layers, 1)) for _ in tasks)

    def forward(self, x: Tensor) -> Tensor:
        experts = torch.stack([expert(x) for expert in self.experts], dim=1)
        logits = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            weights = torch.softmax(gate(x), dim=1)
            logits.append(tower((weights.unsqueeze(2) * experts).sum(dim=1)))
        return torch.cat(logits, dim=1)


def mlp(input_dim: int, widths: tuple[int, ...], *, activate_output: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(input_dim, width), nn.ReLU()]
        input_dim = width
    return nn.Sequential(*(layers if activate_output else layers[:-1]))


class BatchedMMoE(nn.Module):
    """The top of this project, logits only."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        tasks = {f"task_{index}": TaskConfig() for index in range(size.tasks)}
        self.top = build_top(size.model, tasks, lay_out({}, {"x": size.input_dim}))

    def forward(self, x: Tensor) -> Tensor:
        return self.top(x)[0]


def matmul_flops(size: Size) -> int:
    """Floating-point operations of one step's matrix products: forward, and twice that backward."""
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in LoopMMoE(size).parameters() if parameter.dim() == 2)
    mixing = size.tasks * size.model.num_experts * size.model.expert_layers[-1]
    return 3 * 2 * size.batch * (weights + mixing)


def step_of(model: nn.Module, size: Size, precision: str, device: str, *, fused: bool) -> Step:
    """One training step on data that stays the same."""
    model = model.to(device)
    x = torch.randn(size.batch, size.input_dim, device=device, requires_grad=True)
    labels = torch.randint(0, 2, (size.batch, size.tasks), device=device).float()
    optimizer = trainers_adam(model, device) if fused else torch.optim.Adam(model.parameters(), lr=1e-3)
    is_bf16 = precision == "bf16"

    @in_precision(precision)
    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        x.grad = None
        with torch.autocast(device, torch.bfloat16) if is_bf16 else contextlib.nullcontext():
            logits = model(x)
        nn.functional.binary_cross_entropy_with_logits(logits.float(), labels).backward()
        optimizer.step()

    return step


def in_precision(precision: str) -> Callable[[Step], Step]:
    """Lets the GPU round the inputs of matrix products in a step, if it is TF32; a CPU does not look."""

    def wrap(step: Step) -> Step:
        def run() -> None:
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            step()

        return run

    return wrap


def graphed(step: Step) -> Step:
    """The step as a CUDA graph, which replays its kernels on the same memory."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(step: Step = step) -> None:  # keeps what the step owns: the graph has but its addresses
        graph.replay()

    return replay


def trainers_adam(model: nn.Module, device: str) -> torch.optim.Optimizer:
    """What embeddings/optimizer.py takes on this device."""
    if device == "cpu":
        return CpuAdam(model.parameters(), lr=1e-3)
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=True)


def variants(size: Size, device: str, *, compiled: bool) -> dict[str, Step]:
    """The loop, and the batched top in each precision."""
    steps = {"loop": step_of(LoopMMoE(size), size, "fp32", device, fused=False)}
    for precision in precisions(device):
        steps[precision] = step_of(BatchedMMoE(size), size, precision, device, fused=True)
        if device == "cuda":
            steps[f"{precision}_graphed"] = graphed(step_of(BatchedMMoE(size), size, precision, device, fused=True))
        if compiled:
            model = BatchedMMoE(size)
            model.compile(dynamic=False, mode="reduce-overhead" if device == "cuda" else None)
            steps[f"{precision}_compiled"] = step_of(model, size, precision, device, fused=True)
    return steps


def precisions(device: str) -> dict[str, torch.dtype]:
    return GPU_PRECISIONS if device == "cuda" else PRECISIONS


def fastest(steps: Mapping[str, Step], seconds: float, device: str) -> dict[str, float]:
    """Seconds of one call of each step in its fastest turn.

    Turns are short, so that some of them escape what else the machine does, and go round for `seconds`, three times at
    least.
    """
    counts = {}
    for name, step in steps.items():
        with measuring():  # as a run does at its start
            timed(step, 2, device)  # compiles, fills caches
        counts[name] = max(1, round(TURN_SECONDS / timed(step, 1, device)))
    times = {name: [] for name in steps}
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(next(iter(times.values()))) < 3:
        for name, step in steps.items():
            times[name].append(timed(step, counts[name], device))
    return {name: min(values) for name, values in times.items()}


def timed(step: Step, count: int, device: str) -> float:
    """Seconds a call, over `count` calls: the thread's own where it is the only one, else by the wall's clock."""
    clock = time.thread_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    wait(device)
    start = clock()
    for _ in range(count):
        step()
    wait(device)
    return (clock() - start) / count


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_products(device: str) -> tuple[dict[str, Step], dict[str, int]]:
    """(products, FLOPs) by name, which begins with the precision: large ones, by the kernels that torch has."""
    products: dict[str, Step] = {}
    flops = {}
    for precision, dtype in precisions(device).items():
        for rows, inner, columns in PRODUCTS[device]:
            a, b = (torch.randn(*shape, device=device, dtype=dtype) for shape in ((rows, inner), (columns, inner)))
            kernels: dict[str, Step] = {
                "mm": lambda a=a, b=b: (torch.mm(a, b.t()), None)[1],
                "product": lambda a=a, b=b: (product(a, b), None)[1],
            }
            for kernel, call in kernels.items():
                name = f"{precision} {kernel} {rows} {inner} {columns}"
                products[name], flops[name] = in_precision(precision)(call), 2 * rows * inner * columns
    return products, flops


def hopeless(steps: Mapping[str, Step], device: str) -> dict[str, float]:
    """Seconds of the first step of those that are too slow to be measured, against the first of `steps`."""
    found, yardstick = {}, 0.0
    for name, step in steps.items():
        if name.endswith("_compiled"):
            step()  # compiles
        wait(device)
        start = time.perf_counter()
        step()
        wait(device)
        seconds = time.perf_counter() - start
        yardstick = yardstick or seconds
        if seconds > max(HOPELESS_SECONDS, HOPELESS_RATIO * yardstick):
            found[name] = seconds
            slower = f"{seconds / yardstick:.0f} times the yardstick's"
            say(f"{name} is skipped: its first step took {seconds:.1f} s, {slower}")
    return found


def measure(arguments: argparse.Namespace, threads: int, suffix: str) -> dict[str, float]:
    """Speed-ups and shares of peak of all sizes on so many threads; the table goes to standard error."""
    torch.set_num_threads(threads)
    device, result = arguments.device, {}
    where = torch.cuda.get_device_name() if device == "cuda" else f"{threads} {'thread' if threads == 1 else 'threads'}"
    say(f"\n{where}")
    products, work = peak_products(device)
    slow = set(hopeless(products, device))
    peaks = dict.fromkeys(precisions(device), 0.0)
    say(f"{'size':<11}{'variant':<16}{'ms/step':>10}{'rows/s':>13}{'GFLOP/s':>10}{'of peak':>9}{'speed-up':>10}")
    for name in arguments.sizes:
        size = SIZES[name]
        steps = {
            key: step for key, step in variants(size, device, compiled=arguments.compile).items() if key not in slow
        }
        slow |= hopeless(steps, device).keys()
        measured = {key: step for key, step in (steps | products).items() if key not in slow}
        times = fastest(measured, arguments.seconds * len(steps), device)
        for precision in peaks:
            rates = [work[key] / times[key] for key in products if key in times and key.startswith(precision)]
            peaks[precision] = max(peaks[precision], *rates, 0.0)
        for variant in (key for key in steps if key in times):
            peak = peaks[variant.split("_")[0] if variant != "loop" else "fp32"]
            result |= report(name, variant, suffix, times, peak)
    say(f"peak {', '.join(f'{name} {peak / 1e9:,.0f} GFLOP/s' for name, peak in peaks.items() if peak)}")
    return result


def report(name: str, variant: str, suffix: str, times: Mapping[str, float], peak: float) -> dict[str, float]:
    """Prints the line of a variant, and returns its figures; without a peak, where that was hopeless, no share."""
    size, seconds = SIZES[name], times[variant]
    rate, speedup = matmul_flops(size) / seconds, times["loop"] / seconds
    share = f"{rate / peak:.0%}" if peak else "-"
    speeds = f"{seconds * 1e3:>10.3f}{size.batch / seconds:>13,.0f}{rate / 1e9:>10,.0f}"
    say(f"{name:<11}{variant:<16}{speeds}{share:>9}{speedup:>9.2f}x")
    figures = {f"{name}_{variant}{suffix}": round(speedup, 3)}
    return figures | ({f"{name}_{variant}_peak_share{suffix}": round(rate / peak, 3)} if peak else {})


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def keep_freed_memory() -> None:
    """Let the allocator keep what it freed, as the launcher does for workers; page faults would be measured else."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too; minutes on a CPU")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each variant, three turns at least")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    result = measure(arguments, 1, "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if arguments.device == "cpu" and cores > 1:
        result |= measure(arguments, cores, "_all_threads")
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
