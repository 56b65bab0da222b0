"""What this machine's processor lacks for a run, by the flags that Linux shows."""

from pathlib import Path

BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags of processors that compute it: of x86, and of Arm."""


def bf16_warning(precision: str, device: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """What to say of `training.precision: bf16` at the start; None where nothing is wrong, or nothing is known."""
    if precision != "bf16" or device != "cpu" or not cpuinfo.exists():
        return None
    flags = [
        line for line in cpuinfo.read_text(errors="replace").splitlines() if line.startswith(("flags", "Features"))
    ]
    if not flags or not BF16.isdisjoint(flags[0].split()):
        return None
    return (
        "warning: training.precision=bf16, but this processor computes BF16 in software (no avx512_bf16, no amx_bf16): "
        "steps take many times as long; use training.precision=fp32"
    )
