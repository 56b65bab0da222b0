"""A short run, exported for this device, loaded as a server does, and scored: against the trainer's own modules."""

import tempfile
import time

from benchmarks.gpu.worker import open_group, preset
from cluster.worker import Worker
from trainer.export.timing import call_milliseconds
from trainer.export.write import export
from trainer.prepare import prepare_run
from trainer.serving.bundle import Bundle
from trainer.train import train


def run(device: str, tiny: bool) -> dict[str, float]:
    """The largest difference of predictions, and milliseconds of a call by number of rows, weights on the device."""
    open_group(device)
    with tempfile.TemporaryDirectory(prefix="multigate_") as folder:
        config = preset(
            "quickstart",
            f"data.root={folder}/data",
            "data.generate.train_rows=40000",
            "data.generate.validation_rows=2000",
            f"training.run_dir={folder}/run",
            "training.epochs=1",
            f"export.device={device}",
        )
        prepared = prepare_run(config, resume=False, overwrite=False, say=lambda line: None)
        train(prepared, Worker(0, 1, 0, 1, "localhost", device, lambda line: None))
        started = time.perf_counter()
        bundle = Bundle(export(prepared.training.run_dir))
        parity = bundle.signature.parity
        assert parity is not None
        figures = {
            "largest_difference": parity.largest_difference,
            "export_seconds": time.perf_counter() - started,
        }
        times = call_milliseconds(bundle, prepared, (1, 64) if tiny else (1, 64, 512, 4096))
        figures |= {f"ms_{rows}": milliseconds for rows, milliseconds in times.items()}
    print(f"{bundle.signature.device}: {figures}")
    return figures
