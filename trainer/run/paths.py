"""Makes the paths of a config absolute: workers on other machines, or in another folder, must mean the same files."""

from pathlib import Path

from configs.errors import UserError
from configs.schema import Config
from embeddings.features.files import files_of, with_files


def with_absolute_paths(config: Config) -> Config:
    """
    Raises:
        UserError: a relative path in a submitted job.
    """
    data = config.data.model_copy(update={"root": _absolute(config.data.root)})
    training = config.training.model_copy(update={"run_dir": _absolute(config.training.run_dir)})
    files = {name: _absolute(path, outlasts_job=False) for name, path in files_of(config.features).items()}
    features = with_files(config.features, files)  # of which the run keeps copies
    return config.model_copy(update={"data": data, "training": training, "features": features})


def _absolute(path: str, outlasts_job: bool = True) -> str:
    if "://" in path:
        return path
    expanded = Path(path).expanduser()
    if outlasts_job and not expanded.is_absolute() and "working_dir_files" in Path.cwd().parts:
        raise UserError(
            f"{path} is a relative path, and a submitted job runs in a copy of its folder that Ray deletes\n"
            "give data.root and training.run_dir as absolute paths, or from the home folder: ~/..."
        )
    return str(expanded.absolute())
