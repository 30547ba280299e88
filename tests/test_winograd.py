"""Winograd convolutions are convolutions: against float64, each other, under torch.compile, however they are built."""

import copy
import ctypes
import dataclasses
import hashlib
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common import cli, winograd
from common.models import MODELS
from common.support import machine, native
from common.support.checkpoints import Checkpoint
from common.support.errors import UserError
from project3_wrn import main as project3
from project3_wrn.method import train
from project3_wrn.method.recipes import RECIPES
from project3_wrn.method.train import Backend
from tests.conftest import ROOT, assert_single_error_line, run_python

MAIN = ROOT / "project3_wrn" / "main.py"
SIZES = (4, 7, 8, 15, 16, 31, 32)
CHANNELS = ((1, 1), (3, 5), (7, 64), (65, 33))


def buildable():
    try:
        return bool(winograd.library())
    except UserError:
        return False


pytestmark = pytest.mark.skipif(not buildable(), reason="no C compiler, or not Linux on x86-64")


def with_gradients(convolution, x, weight, bias, dy):
    """Return the output and the gradients of image, filters and bias."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (x, weight, bias)]
    y = convolution(*inputs)
    return y.detach(), *torch.autograd.grad(y, inputs, dy)


def example(images, channels, out, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (images, channels, height, width), (out, channels, 3, 3), (out,), (images, out, height, width)
    x, weight, bias, dy = (torch.randn(shape, generator=generator) for shape in shapes)
    return x, weight / (9 * channels) ** 0.5, bias, dy


# --- what it computes ---


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("channels", "out"), CHANNELS)
def test_outputs_and_gradients_are_those_of_a_convolution_in_float64(size, channels, out):
    tensors = example(3, channels, out, size, SIZES[-1 - SIZES.index(size)])
    ours = with_gradients(winograd.conv2d, *tensors)
    doubles = [tensor.double() for tensor in tensors]
    theirs = with_gradients(lambda x, weight, bias: F.conv2d(x, weight, bias, padding=1), *doubles)
    for mine, expected in zip(ours, theirs):
        assert mine.shape == expected.shape
        assert (mine - expected).norm() <= 1e-5 * expected.norm()


def test_the_blocks_of_a_batch_are_joined_in_order():
    """Of blocks of 32 images and a last one of 6, every image is convolved as it would be alone."""
    x, weight, bias, _ = example(70, 64, 64, 15, 15)
    together = winograd.conv2d(x, weight, bias)
    alone = torch.cat([winograd.conv2d(image[None], weight, bias) for image in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_memory_layout_gives_the_same(layout):
    tensors = example(2, 8, 16, 9, 6)
    references = with_gradients(winograd.conv2d, *tensors)
    results = with_gradients(
        winograd.conv2d,
        *(tensor.contiguous(memory_format=layout) if tensor.dim() == 4 else tensor for tensor in tensors),
    )
    for mine, expected in zip(results[:3], references[:3]):  # the bias's gradient is torch's own sum
        assert torch.equal(mine, expected)


def test_the_same_to_the_bit_each_time():
    tensors = example(40, 96, 64, 16, 16)
    first, second = (with_gradients(winograd.conv2d, *tensors) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_images_smaller_than_a_tile_are_convolved_directly():
    x, weight, bias, _ = example(2, 64, 64, 3, 32)
    assert torch.equal(winograd.conv2d(x, weight, bias), F.conv2d(x, weight, bias, padding=1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_refused(dtype):
    x, weight, *_ = example(1, 4, 4, 8, 8)
    with pytest.raises(TypeError, match="float32 on a CPU"):
        winograd.convolve(x.to(dtype), weight.to(dtype))


# --- as an operator ---


def test_pytorchs_own_checks_of_an_operator():
    x, weight, *_ = example(2, 3, 4, 8, 7)
    torch.library.opcheck(winograd.convolve, (x.requires_grad_(), weight.requires_grad_()))


def test_compiled_without_a_graph_break():
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("no C++ compiler")
    torch.manual_seed(0)
    model = winograd.use(nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)))
    x = torch.randn(2, 64, 8, 8).contiguous(memory_format=torch.channels_last)
    eager = torch.autograd.grad(model(x).square().sum(), model.parameters())
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, dynamic=False)
    graph = torch.autograd.grad(compiled(x).square().sum(), compiled.parameters())
    for mine, expected in zip(graph, eager):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-3)


# --- in a network ---


def replaced(model):
    return [name for name, layer in model.named_modules() if "_conv_forward" in vars(layer)]


def test_it_replaces_the_matching_convolutions_and_nothing_else():
    model = MODELS["resnet18"]()
    before = copy.deepcopy(model.state_dict())
    assert winograd.use(model) is model
    convolutions = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    direct = set(convolutions) - set(replaced(model))
    shortcuts = {f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)}  # 1x1
    assert direct == {"conv1", *shortcuts, *(f"layer{stage}.0.conv1" for stage in (2, 3, 4))}  # 3 channels; stride 2
    assert replaced(copy.deepcopy(model)) == replaced(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    model.load_state_dict(before)


def test_a_training_agrees_with_direct_convolutions(sample):
    images = sample[0][:96]
    recipe = RECIPES["report"]
    losses = {}
    for how in ("direct", "winograd"):
        learner, batches, _ = train.build("resnet18", recipe, 0, images, Backend(convolutions=how))
        assert bool(replaced(learner.model)) == (how == "winograd")
        learner.set_lr(0.01)
        x, y = next(iter(batches))
        losses[how] = torch.stack([learner.step(x[part], y[part]) for part in torch.arange(96).split(24)])
    torch.testing.assert_close(losses["winograd"], losses["direct"], rtol=2e-4, atol=0)


def test_stopped_and_resumed_is_never_stopped(sample, tmp_path):
    parts = {"train": sample[0][:60]}
    recipe = dataclasses.replace(RECIPES["report"], epochs=2, batch_size=30, validation_split=False, patience=0)

    def trained(name, **options):
        checkpoint = Checkpoint(tmp_path / f"{name}.pt")
        learner, _ = train.train(
            "resnet18", recipe, 0, parts, Backend(convolutions="winograd"), checkpoint=checkpoint, **options
        )
        return learner.weights()

    def stop(epoch, history):
        raise KeyboardInterrupt

    whole = trained("whole")
    with pytest.raises(KeyboardInterrupt):
        trained("stopped", on_epoch=stop)
    stopped = trained("stopped")
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())


# --- how it is built ---


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache folder whose path has a space and Chinese in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "课程 作业"))
    return native.cache_folder()


def load():
    """Load anew: the module's own result is cached."""
    return native.load.__wrapped__(winograd.SOURCE)


def cached(cache):
    return next(cache.glob("*.so"))


def test_it_is_built_once(cache):
    load()
    first = cached(cache).stat()
    load()
    assert sorted(path.suffix or path.name for path in cache.iterdir()) == [".lock", ".sha256", ".so"]
    assert cached(cache).stat().st_mtime_ns == first.st_mtime_ns


@pytest.mark.parametrize("damage", ["cut in half", "empty", "of another machine", "one bit", "no checksum"])
def test_a_damaged_library_is_rebuilt(cache, damage):
    load()
    library = cached(cache)
    good = library.read_bytes()
    bad = {
        "cut in half": good[: len(good) // 2],
        "empty": b"",
        "of another machine": good[:18] + b"\xb7" + good[19:],  # the ELF header's machine: AArch64
        "one bit": good[:-100] + bytes([good[-100] ^ 1]) + good[-99:],
        "no checksum": good,
    }[damage]
    library.unlink()  # this process has it loaded
    library.write_bytes(bad)
    if damage == "no checksum":
        next(cache.glob("*.sha256")).unlink()
    load()
    assert library.read_bytes() == good


def test_a_foreign_library_with_a_matching_checksum_is_left_alone(cache, tmp_path, monkeypatch):
    load()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))  # a path that this process has not loaded
    library = native.cache_folder() / cached(cache).name
    library.parent.mkdir(parents=True)
    library.write_bytes(b"not a library")
    library.with_suffix(".sha256").write_text(hashlib.sha256(b"not a library").hexdigest())
    assert isinstance(load(), ctypes.CDLL)
    assert library.read_bytes() == b"not a library"


def test_a_cache_that_cannot_be_written_is_not_needed(cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where a folder should be")
    assert isinstance(load(), ctypes.CDLL)
    assert cache.read_text() == "a file where a folder should be"


def test_without_a_home_nothing_is_cached(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert isinstance(load(), ctypes.CDLL)
    assert not list(tmp_path.iterdir())


def compiler(tmp_path, monkeypatch, script):
    """Make this shell script the only compiler on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cc").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_a_compiler_it_says_so(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs a C compiler"):
        load()


def test_a_compiler_that_fails_is_named(cache, tmp_path, monkeypatch):
    compiler(tmp_path, monkeypatch, "echo 'cc1: no -fopenmp here' >&2; exit 1")
    with pytest.raises(UserError, match=r"fails: cc1: no -fopenmp here"):
        load()
    assert not list(cache.glob("*")) if cache.exists() else True


def test_the_next_compiler_is_tried(cache, tmp_path, monkeypatch):
    good = shutil.which("gcc") or shutil.which("cc")
    compiler(tmp_path, monkeypatch, "echo 'no libomp' >&2; exit 1")
    (tmp_path / "bin" / "gcc").write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin exec {good} "$@"\n')
    (tmp_path / "bin" / "gcc").chmod(0o755)
    assert isinstance(load(), ctypes.CDLL)


def test_another_system_is_left_alone(cache, monkeypatch):
    monkeypatch.setattr(native.platform, "system", lambda: "Darwin")
    with pytest.raises(UserError, match="Linux x86-64 only, not on Darwin"):
        load()


# --- what chooses it ---


def choose(monkeypatch, name="auto", device="cpu", precision="fp32", bf16=False, problem=None):
    def library():
        if problem:
            raise UserError(problem)

    monkeypatch.setattr(machine, "cpu_has_bf16", lambda: bf16)
    monkeypatch.setattr(winograd, "library", library)
    return machine.choose_convolutions(name, device, precision)


def test_winograd_is_chosen_where_it_pays(monkeypatch, capsys):
    assert choose(monkeypatch) == "winograd"
    assert choose(monkeypatch, bf16=True) == "direct"  # AVX-512 too, whose direct convolutions are as fast
    assert choose(monkeypatch, device="cuda", precision="bf16") == "direct"
    assert choose(monkeypatch, "winograd", bf16=True) == "winograd"
    assert choose(monkeypatch, "direct") == "direct"
    assert not capsys.readouterr().out
    assert choose(monkeypatch, problem="no compiler") == "direct"
    assert capsys.readouterr().out == "convolutions: direct (no compiler)\n"
    with pytest.raises(UserError, match="no compiler"):
        choose(monkeypatch, "winograd", problem="no compiler")


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_winograd_where_it_is_impossible_is_a_usage_error(precision, run_in_process, monkeypatch):
    monkeypatch.setattr(machine, "cpu_has_bf16", lambda: True)
    arguments = ("--device", "cpu", "--convolutions", "winograd", "--precision", precision)
    assert_single_error_line(run_in_process(project3.main, *arguments), "fp32 on a CPU, not in bf16 on cpu", status=2)


def test_an_unknown_algorithm_is_a_usage_error(run_in_process):
    assert_single_error_line(run_in_process(project3.main, "--convolutions", "fft"), "--convolutions", "fft", status=2)


def test_run_json_names_it_and_a_resumed_run_keeps_it(tmp_path):
    arguments = (
        MAIN,
        "--scale",
        "quick",
        "--device",
        "cpu",
        "--model",
        "fast_small",
        "--precision",
        "fp32",
        "--out",
        tmp_path,
    )
    first = run_python(*arguments, "--convolutions", "winograd", "--keep-checkpoints")
    assert first.returncode == 0, first.stderr
    assert cli.read_json(tmp_path / "fast_small" / "run.json")["convolutions"] == "winograd"
    second = run_python(*arguments, "--convolutions", "direct")
    assert_single_error_line(second, "convolutions was winograd, is direct", status=1)


def test_without_a_compiler_winograd_is_one_line(tmp_path):
    arguments = (MAIN, "--device", "cpu", "--precision", "fp32", "--convolutions", "winograd", "--out", tmp_path)
    process = run_python(*arguments, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert_single_error_line(process, "needs a C compiler", status=1)
    assert not list(tmp_path.rglob("run.json"))
