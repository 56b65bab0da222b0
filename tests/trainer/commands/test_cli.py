"""The command line itself: quick, honest about its arguments, mistakes with an exit code and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainer.cli import app

QUICKSTART = Path(__file__).resolve().parents[3] / "configs" / "quickstart.yaml"
HEAVY = {"torch", "torchrec", "ray"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["train", "--help"], 0), (["config", str(QUICKSTART)], 0), (["train", str(QUICKSTART), "data.lanes=0"], 2)],
)
def test_nothing_heavy_is_imported_for_help_and_config_errors(arguments: list[str], code: int) -> None:
    program = (
        "import sys, trainer.cli; sys.argv[1:] = sys.argv[1:]\n"
        "try: trainer.cli.main()\n"
        "except SystemExit as end: code = end.code or 0\n"
        f"print('heavy:', sorted({HEAVY!r} & sys.modules.keys()), 'code:', code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == f"heavy: [] code: {code}", done.stderr
    assert "Traceback" not in done.stderr


def test_a_screen_that_is_full_changes_no_exit_code() -> None:
    command = [sys.executable, "-m", "trainer", "config", "missing.yaml"]
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, stdout=full, stderr=full, check=False).returncode == 2


def test_a_user_s_modules_of_the_same_name_are_not_taken(tmp_path: Path) -> None:
    for name in ("configs.py", "typer.py", "yaml.py"):
        (tmp_path / name).write_text("raise SystemExit('another module')")
    command = [sys.executable, "-m", "trainer", "config", str(QUICKSTART)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["train", "plan", "compare", "generate"])
def test_the_usage_line_shows_overrides_once(command: str) -> None:
    usage = CliRunner().invoke(app, [command, "--help"]).output
    assert " [KEY=VALUE]...  " in usage
    assert "[[" not in usage
