"""What this machine has and can do: device, precision, how convolutions are computed, speed, name and memory."""

import os
import platform
import sys
import time
import warnings

import torch

from common import winograd
from common.support import nvidia
from common.support.errors import UsageError, UserError, first_line

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CONVOLUTIONS = ("auto", "direct", "winograd")
MATRIX = 4096
FP16_CAPABILITY = 7  # of Volta and Turing: fast in fp16, without bf16


def available_devices() -> dict[str, bool]:
    """Return whether each torch device type is available here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is too old; cuda_problem says so
        return {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def choose_device(name: str) -> str:
    """Return the torch device type for `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        UsageError: the device is requested by name and not available.
        UserError: there is an NVIDIA card, and this torch cannot use it.
    """
    if name in ("auto", "cuda") and (problem := cuda_problem()):
        raise UserError(problem)
    available = available_devices()
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available[name]:
        others = " or ".join(device for device in available if available[device])
        raise UsageError(f"device {name} is not available here; use --device {others}")
    return name


def cuda_problem() -> str:
    """Return one line on why torch cannot use the NVIDIA card that is here, "" where it can or there is none.

    The line names the card, its driver, this build of torch, the reason, and what mends it.
    """
    usable = available_devices()["cuda"]
    if usable:
        capability = torch.cuda.get_device_capability()
        supported = [divmod(int(arch[3:].rstrip("af")), 10) for arch in torch.cuda.get_arch_list() if arch[:3] == "sm_"]
        if not supported or capability >= min(supported):
            return ""
        found = nvidia.find_card()
        card = nvidia.Card(torch.cuda.get_device_name(), found.driver if found else "", capability)
        reason = "it has no code for compute capability {}.{}".format(*capability)
    else:
        if (card := nvidia.find_card()) is None:
            return ""
        reason = _why_unavailable()
    driver = f", driver {card.driver}" if card.driver else "" if usable else ", whose driver does not answer"
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return (
        f"here is an NVIDIA GPU ({card.name or 'of unknown name'}{driver}), but torch {torch.__version__} ({build})"
        f" cannot use it: {reason}; {_remedy(card, usable)}, or train on the CPU with --device cpu"
    )


def _remedy(card, driver_works):
    """Return what makes torch able to use this card. driver_works: torch starts CUDA, but has no code for the card."""
    if not card.driver and not driver_works:
        return "see whether nvidia-smi finds the card"
    indexes = [index for index in nvidia.NEEDS if card.can_use(index, any_driver=driver_works)]
    if indexes:
        if not driver_works and (torch.version.cuda or "").partition(".")[0] == indexes[0][2:4]:
            return "see whether nvidia-smi finds the card"  # another build would not help
        packages = f"torch torchvision --index-url {nvidia.WHEELS}{indexes[0]}"
        return f'run "{sys.executable}" -m pip install --force-reinstall {packages}'
    drivers = [driver for index, (driver, *_) in nvidia.NEEDS.items() if card.can_use(index, any_driver=True)]
    if drivers:
        return f"install NVIDIA's driver {min(drivers)} or newer (https://www.nvidia.com/drivers)"
    return "no build of this torch has code for that card"


def _why_unavailable():
    """Return why torch cannot start CUDA."""
    if not torch.version.cuda:
        return "it was built without CUDA"
    try:
        torch.cuda.init()
    except Exception as error:
        return first_line(error).partition(". ")[0]
    return "no device is visible"


def choose_precision(name: str, device: str) -> str:
    """Return `fp32`, `bf16` or `fp16`; `auto` is bf16 on CUDA and on CPUs that have bf16 instructions.

    On a GPU of compute capability 7, which has no bf16, it is fp16. Emulated bf16 is a hundred times slower than fp32.

    Raises:
        UsageError: fp16 is requested and the device is not a CUDA one.
    """
    if name == "fp16" and device != "cuda":
        raise UsageError(f"--precision fp16 is for CUDA devices, not {device}; leave it out")
    if name != "auto":
        return name
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability()[0] == FP16_CAPABILITY else "fp32"
    return "bf16" if device == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Return whether this CPU computes in bf16 rather than emulates it."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def choose_convolutions(name: str, device: str, precision: str) -> str:
    """Return `direct` or `winograd`; for `auto` the faster one, with one line printed where it cannot be compiled.

    CPUs with bf16 also have AVX-512, whose direct fp32 convolutions are as fast as Winograd's: there `auto` is direct.

    Raises:
        UsageError: Winograd's algorithm is requested on a GPU or in bf16.
        UserError: it is requested by name and cannot be compiled here.
    """
    if name == "direct" or (name == "auto" and (device != "cpu" or precision != "fp32" or cpu_has_bf16())):
        return "direct"
    if device != "cpu" or precision != "fp32":
        raise UsageError(
            f"--convolutions winograd computes in fp32 on a CPU, not in {precision} on {device};"
            " add --device cpu --precision fp32, or leave it out"
        )
    try:
        winograd.library()
    except UserError as error:
        if name == "winograd":
            raise
        print(f"convolutions: direct ({error})", flush=True)
        return "direct"
    return "winograd"


def be_deterministic() -> None:
    """Ask torch for algorithms that are bit-reproducible; where an operation has none, torch warns and names it."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads this when it starts
    torch.use_deterministic_algorithms(True, warn_only=True)


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def matmul_flops(device: str | torch.device, precision: str, size: int = MATRIX) -> float:
    """Measure the FLOP/s of a product of two matrices (size, size): the practical ceiling of this machine."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def device_name(device: str) -> str:
    """Return the name of the GPU, or of the CPU with the instructions that PyTorch uses."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name")
    return f"{name or platform.processor() or platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def peak_memory_gb(device: str) -> float | None:
    """Return the peak memory in GB of the GPU, else of this process or its largest child; None if unknown."""
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(largest * (1 if sys.platform == "darwin" else 1024) / 1e9, 2)
