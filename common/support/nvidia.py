"""Which NVIDIA card and driver this machine has, and which build of torch can use them. It needs nothing installed.

python common/support/nvidia.py     prints the index of PyTorch's wheels to install from: cu130, cu126, cpu or nothing
"""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

WHEELS = "https://download.pytorch.org/whl/"
WSL = Path("/usr/lib/wsl/lib")  # where Windows puts its driver into WSL; it may not be on the PATH
KERNEL_MODULE = Path("/proc/driver/nvidia/version")  # a container sees it too where it has no card
NEWEST, OLDEST = "cu130", "cu126"  # indexes of wheels
NEWEST_NEEDS = 580  # the first driver for CUDA 13


@dataclass(frozen=True)
class Card:
    """An NVIDIA card; each text is empty where it is unknown."""

    name: str = ""
    driver: str = ""


def find_card() -> Card | None:
    """Return the first NVIDIA card, None if there is none or CUDA_VISIBLE_DEVICES hides all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    smi = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=str(WSL))
    if smi:
        return _ask(smi)
    if KERNEL_MODULE.exists() and list(Path("/dev").glob("nvidia[0-9]*")):
        version = re.search(r"\d{3}\.[\d.]+", KERNEL_MODULE.read_text(encoding="utf-8"))
        return Card(driver=version[0] if version else "")
    return Card() if (WSL / "libcuda.so.1").exists() else None


def _ask(smi):
    command = [smi, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return Card()  # the driver does not answer
    name, _, driver = output.partition("\n")[0].rpartition(",")
    return Card(name.strip(), driver.strip())


def wheel_index(card: Card | None, system: str) -> str:
    """Return the index of the wheels for this card; "" where the package index has the right ones.

    The package index has wheels without CUDA for Windows and macOS, and with the newest CUDA for Linux.
    """
    if card is None:
        return "cpu" if system == "Linux" else ""
    major = card.driver.partition(".")[0]
    return NEWEST if major.isdigit() and int(major) >= NEWEST_NEEDS else OLDEST


if __name__ == "__main__":
    print(wheel_index(find_card(), platform.system()))
