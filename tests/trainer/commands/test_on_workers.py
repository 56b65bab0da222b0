"""What a failed run's folder tells whoever counts its failures."""

from pathlib import Path

from trainer.checkpoint import files, link_files
from trainer.commands.on_workers import RunClues


def test_what_is_saved_changes_with_every_checkpoint_and_link_and_with_nothing_else(tmp_path: Path) -> None:
    clues, seen = RunClues(tmp_path, "logs/latest"), [""]
    checkpoints = tmp_path / "checkpoints"
    base, link = files.folder_name, link_files.folder_name
    for name, is_new in (
        (base(20), True),
        (f"{link_files.FOLDER}/{link(24, 1)}", True),
        (base(24), False),  # merged from the link
        (f"{link_files.FOLDER}/{link(23, 2)}", False),  # an attempt that went on from 20 again
        (f"{link_files.FOLDER}/{link(1_000_000_024, 2)}", True),
    ):
        (checkpoints / name).mkdir(parents=True)
        assert clues.saved() == seen[-1], "begun, not complete"
        (checkpoints / name / files.COMPLETE).touch()
        assert (clues.saved() != seen[-1]) == is_new
        seen.append(clues.saved())
    assert seen[-1] == "step 1,000,000,024"
