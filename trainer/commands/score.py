"""`score`: predictions of a bundle over Parquet files. How, says `trainer.serving.score`."""

from pathlib import Path


def score(bundle: Path, files: list[Path], out: Path) -> None:
    """Score Parquet FILES with a BUNDLE; OUT gets the predictions beside the rows' columns."""
    from trainer.serving.score import score_files

    score_files(str(bundle), [str(file) for file in files], str(out))
