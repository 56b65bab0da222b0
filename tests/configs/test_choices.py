"""Choices by module name."""

import subprocess
import sys
from pathlib import Path

import pytest

from configs.choices import PACKAGES, available, described, did_you_mean, load
from configs.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", PACKAGES.values())
def test_choices_are_the_public_files_of_a_package(package: str) -> None:
    folder = ROOT / package.replace(".", "/")
    files = [path for path in folder.iterdir() if path.suffix == ".py" and not path.name.startswith("_")]
    assert available(package) == sorted(path.stem for path in files)
    assert files


def test_listing_choices_imports_none() -> None:
    program = "import sys; from configs.choices import PACKAGES, described, settings\n"
    program += "for package in PACKAGES.values(): print(package, *described(package), *settings(package))\n"
    program += "print(*sys.modules, sep=',')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    *listed, imported = done.stdout.splitlines()
    assert [line.split()[1:] for line in listed] == [2 * available(package) for package in PACKAGES.values()]
    roots = {module.split(".")[0] for module in imported.split(",")}
    assert not roots & {"torch", "torchrec", "ray", "pyarrow", "models", "trainer", "embeddings"}


def test_loads_by_name_or_suggests_another() -> None:
    assert load("trainer.data.generators", "feed").__name__ == "trainer.data.generators.feed"
    with pytest.raises(UserError, match="'fed' is not in trainer/data/generators: did you mean feed"):
        load("trainer.data.generators", "fed")


def test_did_you_mean_lists_all_when_nothing_is_near() -> None:
    assert did_you_mean("relu6", ["relu", "tanh"]) == "did you mean relu?"
    assert did_you_mean("zzz", ["relu", "tanh"]) == "there are: relu, tanh"


@pytest.mark.parametrize("package", PACKAGES.values())
def test_every_choice_says_what_it_is_for(package: str) -> None:
    texts = described(package)
    assert list(texts) == available(package)
    assert all(len(text) > 40 and "Shapes:" not in text for text in texts.values()), texts


def test_help_tells_the_tops_and_their_papers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "train", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    words = " ".join(done.stdout.split())
    for top in available("models.tops"):
        assert f"{top} - " in words
    for paper in ("Ma et al. 2018", "Tang et al. 2020", "Caruana 1997"):
        assert paper in words
