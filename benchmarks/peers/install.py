"""`python -m benchmarks.peers.install FOLDER`: an environment for each peer and for the load generators.

Each sees the packages of this interpreter's environment behind its own (a .pth file), so that the bundle's code runs in
it without a second copy of torch. Triton's python backend knows no NumPy 2, and pyarrow wants that since version 22.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

PACKAGES = {
    "triton": ["nvidia-pytriton==0.7.0", "numpy<2", "pyarrow==21.0.0"],
    "mlserver": ["mlserver==1.7.1", "uvloop<0.22"],
    "litserve": ["litserve==0.2.19"],
    "kserve": ["kserve==0.21.0"],
    "tritonclient": ["tritonclient[all]==2.46.0", "numpy<2", "nvidia-cuda-runtime-cu12"],
}
_WHOLE = "installed"


def main() -> None:
    """Makes what is missing."""
    for name, packages in PACKAGES.items():
        print(f"{install(name, Path(sys.argv[1]))}: {', '.join(packages)}")


def install(name: str, folder: Path) -> Path:
    """The environment of a name below `folder`, made or completed where need be. CalledProcessError: it cannot be."""
    place = folder / name
    if (place / _WHOLE).exists():
        return place
    if not (place / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
    subprocess.run([place / "bin" / "pip", "install", "--quiet", *PACKAGES[name]], check=True, stdout=sys.stderr)
    if name in ("triton", "mlserver", "litserve"):
        (site,) = (place / "lib").glob("python3*/site-packages")
        (site / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (place / _WHOLE).touch()
    return place


if __name__ == "__main__":
    main()
