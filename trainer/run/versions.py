"""Refuses a torch, torchrec and fbgemm that do not belong together, before any of them is imported.

A wrong triple fails with an undefined symbol, or an operator that is missing, deep inside the first step. Package
metadata tells at once, and needs no import.
"""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from configs.errors import UserError

# torch -> torchrec and fbgemm-gpu, which carry the same number
MATCHING = {"2.11": "1.6", "2.12": "1.7", "2.13": "1.8", "2.14": "1.9"}
NAMES = ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu")


def installed(names: Sequence[str] = NAMES) -> dict[str, str]:
    """Version by package, of those that are there."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_versions(packages: Mapping[str, str] | None = None) -> None:
    """
    Args:
        packages: version by package; what is installed when left out.

    Raises:
        UserError: a package is missing, two fbgemm builds are there, or the triple does not match; names the right one.
    """
    there = installed() if packages is None else packages
    for name in ("torch", "torchrec"):
        if name not in there:
            raise UserError(f"{name} is not installed\ninstall the project as its README says")
    torch = _minor(there["torch"])
    if torch not in MATCHING:
        known = ", ".join(f"{key} with {value}" for key, value in MATCHING.items())
        raise UserError(f"torch {there['torch']} is not supported\ninstall torch and torchrec of one line: {known}")
    fbgemm = _fbgemm(there, MATCHING[torch])
    wanted = MATCHING[torch]
    if not _minor(there["torchrec"]) == _minor(there[fbgemm]) == wanted:
        torchrec_alone = "" if _minor(there["torchrec"]) == wanted else f" torchrec=={wanted}.0"
        fbgemm_alone = "" if _minor(there[fbgemm]) == wanted else f" {fbgemm}=={wanted}.0"
        raise UserError(
            f"torch {there['torch']}, torchrec {there['torchrec']} and {fbgemm} {there[fbgemm]} do not match\n"
            f"torch {torch} needs torchrec {wanted} and {fbgemm} {wanted}: pip install{torchrec_alone}{fbgemm_alone}"
        )


def _fbgemm(there: Mapping[str, str], wanted: str) -> str:
    """The package that brings the module fbgemm_gpu; both bring the same files, and the second breaks the first."""
    stand_in = "+cpu" in there.get("fbgemm-gpu", "")  # metadata alone, so that torchrec's requirement is met on CPU
    cuda, cpu = "fbgemm-gpu" in there and not stand_in, "fbgemm-gpu-cpu" in there
    if cuda and cpu:
        raise UserError(
            f"fbgemm-gpu {there['fbgemm-gpu']} and fbgemm-gpu-cpu {there['fbgemm-gpu-cpu']} are the same files\n"
            f"pip uninstall both, then install one: fbgemm-gpu=={wanted}.0 for GPUs, or fbgemm-gpu-cpu=={wanted}.0"
        )
    if not cuda and not cpu:
        raise UserError(
            f"fbgemm is not installed\npip install fbgemm-gpu=={wanted}.0 for GPUs, or fbgemm-gpu-cpu=={wanted}.0"
        )
    return "fbgemm-gpu" if cuda else "fbgemm-gpu-cpu"


def _minor(full: str) -> str:
    match = re.match(r"\d+\.\d+", full)
    return match[0] if match else full
