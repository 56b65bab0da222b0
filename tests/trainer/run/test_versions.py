"""Which torch, torchrec and fbgemm are let through, and what is said of the others."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from configs.errors import UserError
from trainer.run.versions import MATCHING, check_versions, installed

ROOT = Path(__file__).parents[3]


def triple(torch, torchrec, **fbgemm):
    return {"torch": torch, "torchrec": torchrec, **{name.replace("_", "-"): v for name, v in fbgemm.items()}}


def test_what_is_installed_here_is_let_through():
    assert {"torch", "torchrec"} < installed().keys()
    check_versions()


@pytest.mark.parametrize("torch", MATCHING)
@pytest.mark.parametrize("suffix", [".0", ".1", ".0+cu130", ".0.dev20260101"])
def test_matching_triples_are_let_through(torch, suffix):
    wanted = MATCHING[torch]
    check_versions(triple(torch + suffix, f"{wanted}.0", fbgemm_gpu=f"{wanted}.0"))
    check_versions(triple(torch + suffix, f"{wanted}.0", fbgemm_gpu_cpu=f"{wanted}.0"))
    check_versions(triple(torch + suffix, f"{wanted}.0", fbgemm_gpu=f"{wanted}.0+cpu", fbgemm_gpu_cpu=f"{wanted}.0"))


@pytest.mark.parametrize(
    ("packages", "said", "remedy"),
    [
        (triple("2.13.0", "1.7.0", fbgemm_gpu="1.8.0"), "torchrec 1.7.0", "pip install torchrec==1.8.0"),
        (
            triple("2.13.0", "1.8.0", fbgemm_gpu_cpu="1.9.0"),
            "fbgemm-gpu-cpu 1.9.0",
            "pip install fbgemm-gpu-cpu==1.8.0",
        ),
        (triple("2.12.1", "1.8.0", fbgemm_gpu="1.8.0"), "torch 2.12.1", "torchrec==1.7.0 fbgemm-gpu==1.7.0"),
        (triple("2.3.0", "1.8.0", fbgemm_gpu="1.8.0"), "torch 2.3.0 is not supported", "2.13 with 1.8"),
        (triple("2.13.0", "1.8.0"), "fbgemm is not installed", "fbgemm-gpu-cpu==1.8.0"),
        (triple("2.13.0", "1.8.0", fbgemm_gpu="1.8.0+cpu"), "fbgemm is not installed", "fbgemm-gpu-cpu==1.8.0"),
        (
            triple("2.13.0", "1.8.0", fbgemm_gpu="1.8.0", fbgemm_gpu_cpu="1.8.0"),
            "fbgemm-gpu 1.8.0 and fbgemm-gpu-cpu 1.8.0",
            "pip uninstall both",
        ),
        ({"torch": "2.13.0"}, "torchrec is not installed", "README"),
        ({}, "torch is not installed", "README"),
    ],
)
def test_anything_else_is_refused_with_the_remedy(packages, said, remedy):
    with pytest.raises(UserError) as refused:
        check_versions(packages)
    first, second = str(refused.value).splitlines()
    assert said in first
    assert remedy in second


def test_a_package_that_fits_is_not_installed_again():
    with pytest.raises(UserError) as refused:
        check_versions(triple("2.13.0", "1.7.0", fbgemm_gpu="1.8.0"))
    assert str(refused.value).endswith("pip install torchrec==1.8.0")


def test_the_table_of_the_docs_names_the_same_pairs():
    page = (ROOT / "docs" / "gpu.md").read_text()
    assert dict(re.findall(r"^\| (\d\.\d+) \| (\d\.\d+) \|", page, re.MULTILINE)) == MATCHING


def test_the_project_asks_for_a_triple_that_it_lets_through():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["train"]
    check_versions(dict(name.split("==") for name in asked if name.startswith(("torch", "fbgemm"))))


def test_nothing_heavy_is_imported():
    code = (
        "import sys, trainer.run.versions as v, trainer.run.environment as e; v.check_versions(); e.environment(); "
        "sys.exit(bool({'torch', 'torchrec', 'fbgemm_gpu', 'ray'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
