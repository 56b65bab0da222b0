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


def main() -> None:
    """Makes what is missing."""
    folder = Path(sys.argv[1])
    for name, packages in PACKAGES.items():
        place = folder / name
        if not (place / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([place / "bin" / "pip", "install", "--quiet", *packages], check=True)
        if name in ("triton", "mlserver", "litserve"):
            (site,) = (place / "lib").glob("python3*/site-packages")
            (site / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
        print(f"{place}: {', '.join(packages)}")


if __name__ == "__main__":
    main()
