"""The command line itself: quick, honest about its arguments, mistakes with an exit code and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from configs.choices import PACKAGES, available, settings
from configs.errors import UserError
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


@pytest.mark.parametrize("command", ["train", "plan", "compare", "generate", "prepare"])
def test_the_usage_line_shows_overrides_once(command: str) -> None:
    usage = CliRunner().invoke(app, [command, "--help"]).output
    assert " [KEY=VALUE]...  " in usage
    assert "[[" not in usage


def test_choices_are_listed_with_their_settings() -> None:
    text = CliRunner().invoke(app, ["config", "--choices"]).output
    for key, package in PACKAGES.items():
        assert f"\n{key}\n" in f"\n{text}"
        for choice, fields in settings(package).items():
            (_, own) = text.split(f"\n  {choice} - ")
            own = own.split("\n\n")[0]
            for name, field in fields.items():
                assert f"\n      {name}: " in own
                assert own.count(str(field.description)) == 1
    assert "\n      num_levels: integer = 2 - Stacked" in text
    assert '\n      interaction: dot | cross | none = "dot" - ' in text
    assert "\n      alpha: number or null = null - " in text
    assert "\n      top_layers: list of integer = [64, 32] - " in text
    assert "\n      label: string (required) - " in text


def test_prepare_names_its_data_sets_and_their_settings(tmp_path: Path) -> None:
    words = " ".join(CliRunner().invoke(app, ["prepare", "--help"]).output.split())
    for dataset in available("trainer.data.importers"):
        assert f"{dataset} - " in words
    arguments = ["prepare", "movielens", str(tmp_path), str(tmp_path / "out")]
    for setting, message in (
        ("likd=3", r"movielens\.likd unknown key; did you mean liked\?"),
        ("liked", "'liked' is no override"),
    ):
        done = CliRunner().invoke(app, [*arguments, setting])
        with pytest.raises(UserError, match=message):
            raise done.exception or AssertionError(done.output)


@pytest.mark.parametrize(
    ("option", "given", "said"),
    [
        ("--calibrate", "click=foo", r"--calibrate click=foo: is none of platt, isotonic\n"),
        ("--tables", "int5", r"--tables int5: is none of fp32, fp16, int8, int4; did you mean int8\?\n"),
    ],
)
def test_an_option_of_export_names_its_choices(option: str, given: str, said: str) -> None:
    done = CliRunner().invoke(app, ["export", "run", option, given])
    with pytest.raises(UserError, match=said):
        raise done.exception or AssertionError(done.output)
