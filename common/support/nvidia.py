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
NEWEST, OLDEST = "cu130", "cu126"  # indexes of wheels; torch 2.14 is the last in cu126
# What each index needs: the first driver, and the cards' first compute capability and the first one that is too new.
# docs.nvidia.com/deploy/cuda-compatibility, github.com/pytorch/pytorch/issues/190385
NEEDS = {NEWEST: (580, (7, 5), (99, 0)), OLDEST: (525, (5, 0), (10, 0))}


@dataclass(frozen=True)
class Card:
    """An NVIDIA card; each field is empty where it is unknown. capability: compute capability, (7, 5) of a T4."""

    name: str = ""
    driver: str = ""
    capability: tuple[int, ...] = ()

    def can_use(self, index: str, any_driver: bool = False) -> bool:
        """Return whether the wheels of an index run on this card, with its own driver or with the best one."""
        driver, first, too_new = NEEDS[index]
        major = self.driver.partition(".")[0]
        if not any_driver and not (major.isdigit() and int(major) >= driver):
            return False
        return not self.capability or first <= self.capability < too_new


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
    """Return what nvidia-smi says; drivers before 510 do not know compute_cap."""
    for fields in ("name,driver_version,compute_cap", "name,driver_version"):
        command = [smi, f"--query-gpu={fields}", "--format=csv,noheader"]
        try:
            output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        except subprocess.TimeoutExpired:
            break  # the fields are not the reason
        except (OSError, subprocess.SubprocessError):
            continue
        name, driver, capability = [*output.partition("\n")[0].split(", "), "", ""][:3]
        return Card(name, driver, tuple(map(int, re.findall(r"\d+", capability))))
    return Card()  # the driver does not answer


def wheel_index(card: Card | None, system: str) -> str:
    """Return the index of the wheels for this card; "" where the package index has the right ones.

    The package index has wheels without CUDA for Windows and macOS, and with the newest CUDA for Linux.
    """
    if card is None:
        return "cpu" if system == "Linux" else ""
    return NEWEST if card.can_use(NEWEST) else OLDEST


if __name__ == "__main__":
    print(wheel_index(find_card(), platform.system()))
