"""The warning of BF16 on a processor that computes it in software, from made-up flags."""

from pathlib import Path

import pytest

from trainer.run.processor import bf16_warning

OLD = "processor\t: 0\nflags\t\t: fpu sse2 avx2 fma avx512f avx512_vnni\nbugs\t\t: spectre_v1\n"
NEW = [OLD.replace("avx512_vnni", flag) for flag in ("avx512_bf16", "amx_bf16 amx_tile")]
ARM = "processor\t: 0\nFeatures\t: fp asimd sve bf16\n"


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(OLD)
    return path


def test_software_bf16_is_warned_of(cpuinfo: Path) -> None:
    warning = bf16_warning("bf16", "cpu", cpuinfo)
    assert warning is not None
    assert "use training.precision=fp32" in warning


def test_fp32_and_gpus_need_no_flag(cpuinfo: Path) -> None:
    assert bf16_warning("fp32", "cpu", cpuinfo) is None
    assert bf16_warning("bf16", "cuda", cpuinfo) is None


@pytest.mark.parametrize("content", [*NEW, ARM, "", "processor\t: 0\n"])
def test_nothing_is_said_of_a_processor_that_has_it_or_is_unknown(cpuinfo: Path, content: str) -> None:
    cpuinfo.write_text(content)
    assert bf16_warning("bf16", "cpu", cpuinfo) is None
    assert bf16_warning("bf16", "cpu", cpuinfo.with_name("missing")) is None
