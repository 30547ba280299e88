"""What this machine has and can do: device, precision, how convolutions are computed, speed, name and memory."""

import os
import platform
import sys
import time

import torch

from common import winograd
from common.support.errors import UsageError, UserError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
CONVOLUTIONS = ("auto", "direct", "winograd")
MATRIX = 4096


def available_devices() -> dict[str, bool]:
    """Return whether each torch device type is available here."""
    return {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def choose_device(name: str) -> str:
    """Return the torch device type for `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        UsageError: the device is requested by name and not available.
    """
    available = available_devices()
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available[name]:
        others = " or ".join(device for device in available if available[device])
        raise UsageError(f"device {name} is not available here; use --device {others}")
    return name


def choose_precision(name: str, device: str) -> str:
    """Return `fp32` or `bf16`; `auto` is bf16 on CUDA and on CPUs that have bf16 instructions.

    Emulated bf16 is a hundred times slower than fp32.
    """
    if name != "auto":
        return name
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
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
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
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
