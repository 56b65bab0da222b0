"""One call of a bundle in each form, against torchrec's own modules and ONNX Runtime; and what loading one costs.

    python -m benchmarks.bundle [CONFIG] [key=value ...] [--folder FOLDER] [--json]
    python -m benchmarks.bundle --auc RUN

Weights are those of a run before its first step: times do not depend on their values. All take transformed rows of one
ID per bag, from memory, and give predictions; on one thread, as a server of one process per core runs them, in turns
within one process, each time in another order. A call's time is the median. Bundles that are in FOLDER already are
measured as they are.

    torchrec        EmbeddingBagCollection, then the top, eager
    onnx            the portable form in ONNX Runtime (where that is installed)
    fp32            the bundle as trained
    int8_bf16       int8 tables and a BF16 top (where the processor has BF16)

`load`: seconds until a bundle can score, with and without checksums; how much of the file's size resident memory grew
by; and how much of the weights that two processes have touched is shared between them.

--auc exports a trained run in each form, compares AUC on its whole validation part, and says by how much it changed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from configs.load import dump_config, load_config
from configs.schema import CheckpointConfig, Config
from embeddings.features.bags import Bags
from embeddings.features.feature_transforms import Columns
from embeddings.kjt import to_kjt
from embeddings.tables import build_tables, initialize_tables
from models.build import top_of
from models.criterion import Criterion
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.export.write import export
from trainer.ranker import JoinInputs
from trainer.serving.bundle import Bundle
from trainer.serving.inputs import program_inputs
from trainer.serving.program import has_bf16
from trainer.serving.signature import ONNX

ROWS = (1, 64, 512, 4096)
FORMS = {"fp32": {}, "int8": {"tables": "int8"}, "int8_bf16": {"tables": "int8", "precision": "bf16"}}
_LOAD = """
import json, sys, time
import torch, pyarrow.parquet
from trainer.serving.bundle import Bundle
def memory(key, name="status", of=""):
    lines, inside, total = open(f"/proc/self/{name}").read().splitlines(), not of, 0
    for line in lines:
        if of and "-" in line.split(" ")[0]: inside = of in line
        if inside and line.startswith(key + ":"): total += int(line.split()[1])
    return total << 10
bundle_of = lambda: Bundle(sys.argv[1], verify=sys.argv[2] == "verify")
before, started = memory("VmRSS"), time.perf_counter()
bundle = bundle_of()
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "grown": memory("VmRSS") - before}), flush=True)
if sys.argv[2] != "verify":
    for weight in bundle._weights: weight.view(torch.uint8).flatten()[::4096].sum()
    print("touched", flush=True); sys.stdin.readline()
    print(json.dumps({key: memory(key, "smaps", "weights.safetensors") for key in ("Rss", "Pss")}), flush=True)
    sys.stdin.readline()
"""


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    if arguments.auc:
        found = auc_changes(arguments.auc)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            config = load_config(arguments.config, arguments.overrides)
            found = measure(config, Path(arguments.folder or temporary), prepare_only=arguments.prepare)
    for key, value in found.items():
        print(f"{key:32} {value if isinstance(value, dict) else format(value, '.4g')}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(found))


def measure(config: Config, folder: Path, *, prepare_only: bool = False) -> dict[str, Any]:
    """Milliseconds of a call, `<form>_<rows>`; the peers' times over ours; and costs of loading."""
    config = config.model_copy(update={"training": config.training.model_copy(update={"run_dir": str(folder / "run")})})
    bundles = _bundles(config, folder)
    if prepare_only:
        return {}
    calls = {"torchrec": _torchrec(config)} | {form: bundle.score for form, bundle in bundles.items()}
    if (bundles["fp32"].folder / ONNX).exists():
        calls["onnx"] = _onnx(bundles["fp32"])
    found: dict[str, Any] = {}
    for rows in ROWS:
        times = in_turns(calls, [_columns(config, rows, seed) for seed in range(4)])
        found |= {f"{name}_{rows}": value for name, value in times.items()}
        for form in bundles:
            for peer in ("torchrec", "onnx"):
                if peer in times:
                    found[f"{form}_vs_{peer}_{rows}"] = times[peer] / times[form]
    return found | {f"load_{form}": loading(bundle.folder) for form, bundle in bundles.items()}


def in_turns(calls: dict[str, Callable[[Columns], Any]], inputs: list[Columns]) -> dict[str, float]:
    """Median milliseconds of each, after a few calls that do not count. Each comes after each: what was called before
    leaves its own weights and code in the processor's caches."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    random = np.random.default_rng(0)
    for turn in range(max(12, min(400, 40_000 // len(inputs[0].dense)))):
        for name in random.permutation(list(calls)).tolist():
            started = time.perf_counter()
            calls[name](inputs[turn % len(inputs)])
            if turn >= 4:
                seconds[name].append(time.perf_counter() - started)
    return {name: 1000 * median(taken) for name, taken in seconds.items()}


def _bundles(config: Config, folder: Path) -> dict[str, Bundle]:
    forms = {form: s for form, s in FORMS.items() if "precision" not in s or has_bf16("cpu")}
    if not (folder / "run").exists():
        save_untrained(config, folder / "run")
    for form, settings in forms.items():
        if not (folder / form).exists():
            portable = {"format": "onnx"} if form == "fp32" and has_onnx() else {}
            loose = {"max_auc_change": 1.0, **portable}
            export(str(folder / "run"), str(folder / form), settings=settings | loose)
    return {form: Bundle(folder / form) for form in forms}


def has_onnx() -> bool:
    """Whether a bundle's portable form can be made and run here."""
    try:
        import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return True


def save_untrained(config: Config, run: Path) -> None:
    """A run as it is before its first step."""
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(dump_config(config))
    torch.manual_seed(0)
    tables = build_tables(config, torch.device("cpu"))
    assert tables is not None
    initialize_tables(tables, config)
    state = {f"model/tables.{name}": value for name, value in tables.state_dict().items()}
    state |= {f"model/top.{name}": value for name, value in top_of(config).state_dict().items()}
    checkpointer = Checkpointer(run / "checkpoints", CheckpointConfig(), {})
    checkpointer.save(state, step=1, epoch=0, epoch_step=1, blocking=True)
    checkpointer.wait()


def _columns(config: Config, rows: int, seed: int) -> Columns:
    random = np.random.default_rng(seed)
    one_each = np.broadcast_to(np.int32(1), rows)
    sparse = {
        name: Bags(random.integers(0, table.num_embeddings, rows), one_each)
        for name, table in config.tables_by_feature.items()
    }
    return Columns(sparse, random.standard_normal((rows, config.input_layout.dense_width), np.float32))


def _torchrec(config: Config) -> Callable[[Columns], Any]:
    tables = build_tables(config, torch.device("cpu"))
    assert tables is not None
    initialize_tables(tables, config)
    join, top, predict = JoinInputs(config), top_of(config).eval(), Criterion(config.tasks).predict

    @torch.inference_mode()
    def call(columns: Columns) -> np.ndarray:
        bags = to_kjt(list(columns.sparse), columns.sparse)
        logits, _ = top(join(tables(bags), bags, torch.from_numpy(columns.dense)))
        return predict(logits).numpy()

    return call


def _onnx(bundle: Bundle) -> Callable[[Columns], Any]:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    from trainer.export.onnx import input_names

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = str(bundle.folder / ONNX)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    groups, width = bundle.signature.groups, bundle.signature.dense_width
    names = input_names(groups, width)

    def call(columns: Columns) -> np.ndarray:
        inputs = program_inputs(columns, groups, width)
        return session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})[0]

    return call


def loading(folder: Path) -> dict[str, float]:
    """Seconds and memory of a bundle's load, each in a process of its own; see above."""
    size = (folder / "weights.safetensors").stat().st_size
    verified = json.loads(_process(folder, "verify").communicate()[0].splitlines()[0])
    two = [_process(folder, "skip") for _ in range(2)]
    loaded = [json.loads(process.stdout.readline()) for process in two]  # pyright: ignore
    for process in two:
        process.stdout.readline()  # pyright: ignore
    for process in two:
        print(file=process.stdin, flush=True)
    maps = [json.loads(process.stdout.readline()) for process in two]  # pyright: ignore
    for process in two:
        process.communicate("\n")
    return {
        "seconds": verified["seconds"],
        "seconds_without_checksums": min(one["seconds"] for one in loaded),
        "grown_share": min(one["grown"] for one in loaded) / size,
        "gib": size / 2**30,
        "pss_over_rss": maps[0]["Pss"] / maps[0]["Rss"],
    }


def _process(folder: Path, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _LOAD, str(folder), how]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def auc_changes(run: str) -> dict[str, float]:
    """`<form>_<task>`: AUC of the bundle minus the trainer's on the rows that the export compares."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for form, settings in FORMS.items():
            wanted = settings | {"parity_rows": 1_000_000, "max_auc_change": 1.0}
            parity = Bundle(export(run, f"{folder}/{form}", settings=wanted)).signature.parity
            assert parity is not None
            for task, compared in parity.tasks.items():
                if compared.trainer_auc is not None and compared.bundle_auc is not None:
                    found[f"{form}_{task}"] = compared.bundle_auc - compared.trainer_auc
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="configs/dlrm_serving.yaml")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--folder", help="keeps the run and its bundles")
    parser.add_argument("--prepare", action="store_true", help="makes the bundles in FOLDER, and measures nothing")
    parser.add_argument("--auc", metavar="RUN")
    parser.add_argument("--json", action="store_true")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    main()
