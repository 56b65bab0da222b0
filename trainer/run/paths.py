"""Makes the paths of a config absolute: workers on other machines, or in another folder, must mean the same files."""

from pathlib import Path

from configs.outputs import check_lasts
from configs.schema import Config
from embeddings.features.files import files_of, with_files


def with_absolute_paths(config: Config) -> Config:
    """
    Raises:
        UserError: data or run would be deleted with a submitted job.
    """
    check_lasts(config.training.run_dir, "training.run_dir")
    if "://" not in config.data.root:
        check_lasts(config.data.root, "data.root")
    data = config.data.model_copy(update={"root": _absolute(config.data.root)})
    training = config.training.model_copy(update={"run_dir": _absolute(config.training.run_dir)})
    if (warm := training.warm_start) is not None:
        warm = warm.model_copy(update={"run": _absolute(warm.run)})
        training = training.model_copy(update={"warm_start": warm})
    files = {name: _absolute(path) for name, path in files_of(config.features).items()}
    features = with_files(config.features, files)  # of which the run keeps copies
    return config.model_copy(update={"data": data, "training": training, "features": features})


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().absolute())
