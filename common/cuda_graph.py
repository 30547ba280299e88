"""Whole training steps as CUDA graphs: the hundreds of kernels of a step are launched by one call.

A step of a small network takes a GPU less time than the host needs to launch its kernels one by one. What was counted
and what remains to be measured: benchmarks/cuda.md.
"""

import sys
import time
from collections.abc import Callable

import torch

from common.support.errors import first_line

EAGER_CALLS = 3  # ordinary calls before a capture: by then every library has chosen its algorithms
# Forward FLOPs of a step: from here on the GPU computes for longer than the host launches, and a graph would only
# reserve its memory for a second time.
LONG_STEP = 1e12
# From here on the GPU computes long enough for torch.compile's fused kernels to be worth the minute that it takes.
WORTH_COMPILING = 1.5e11


def capture(function: Callable, arguments: list[torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
    """Record the kernels that `function` launches, without running them; return (how to run them, their result)."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(*arguments)
    return graph.replay, result


class StepGraphs:
    """Calls a function of tensors as a CUDA graph, one for each combination of shapes.

    The first EAGER_CALLS calls with new shapes are ordinary ones, the next one is captured, and all others replay it.
    So whatever the function reads or writes apart from its arguments must be a tensor that stays in place, and the
    function must do the same in every call. Where capturing fails, one line says so and all calls are ordinary ones.
    """

    def __init__(self):
        self._seconds = 0.0
        self._calls = {}  # shapes: number of ordinary calls
        self._graphs = {}  # shapes: (arguments, replay, result)
        self._failed = False

    def __call__(self, function: Callable[..., torch.Tensor], *arguments: torch.Tensor) -> torch.Tensor:
        """Return function(*arguments); the function must be the same one in every call."""
        shapes = tuple((argument.shape, argument.dtype) for argument in arguments)
        if shapes not in self._graphs:
            self._calls[shapes] = self._calls.get(shapes, 0) + 1
            if self._failed or self._calls[shapes] <= EAGER_CALLS or not self._capture(shapes, function, arguments):
                return function(*arguments)
        inputs, replay, result = self._graphs[shapes]
        for mine, argument in zip(inputs, arguments):
            mine.copy_(argument)
        replay()
        return result.clone()  # the next replay overwrites it

    def _capture(self, shapes, function, arguments):
        """Capture a call; return whether that succeeded."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # steps that are still running are not part of capturing
        started = time.perf_counter()
        inputs = [argument.clone() for argument in arguments]
        try:
            self._graphs[shapes] = inputs, *capture(function, inputs)
        except Exception as error:  # nothing has been computed, so the same step can be taken without a graph
            print(f"steps are launched kernel by kernel, so slower: {first_line(error)}", file=sys.stderr, flush=True)
            self._failed = True
        self._seconds += time.perf_counter() - started
        return not self._failed

    def take_seconds(self) -> float:
        """Return the seconds of capturing since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
