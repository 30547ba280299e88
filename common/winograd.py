"""3x3 convolutions on a CPU by Winograd's minimal filtering, with a quarter of the multiplications.

A direct fp32 convolution runs at the rate of the CPU's matrix products. F(4x4, 3x3) of Lavin & Gray, Fast Algorithms
for Convolutional Neural Networks (arXiv 1509.09308, section 4.2), computes a tile of 4x4 outputs of one channel pair
from 6x6 inputs with 36 multiplications where the direct computation takes 144. With the filter g (3x3), the input tile
d (6x6) and * element by element,

    Y = A^T [ (G g G^T) * (B^T d B) ] A                                            the outputs, equation 8
    dX: the same of dY, with each filter rotated by 180 degrees, and inputs and outputs exchanged
    dg = G^T [ sum over tiles of (A dY A^T) * (B^T d B) ] G                        the chain rule

The sum over channels turns the 36 multiplications into 36 matrix products of (tiles, C) and (C, K): `torch.bmm`. B, A
and their transposes contain only small whole numbers and are written out in common/winograd.c; G is below. Blocks of
tiles are transformed, multiplied and transformed back one after the other, so that a block's planes are still in the
cache.

In fp32 the results differ from direct convolutions by about 2e-6 of their norm (filter gradients: up to 1e-5).
"""

import ctypes
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from common.support import native

SOURCE = Path(__file__).with_suffix(".c")
SMALLEST = 4  # pixels per side: smaller images do not fill a tile
# the least sum of channels in and out with which it is faster than a direct convolution: benchmarks/convolutions.md
PAYS_FROM = 80
G = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
GG = torch.kron(G, G).float()  # (36, 9): a filter as a vector to its transform as a vector
GG_ROTATED = GG.flip(1).contiguous()  # the same for the filter rotated by 180 degrees


def library() -> ctypes.CDLL:
    """Return the compiled tile transforms.

    Raises:
        UserError: they cannot be compiled here.
    """
    lib = native.load(SOURCE)
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    for function in (lib.winograd_input, lib.winograd_output, lib.winograd_gradient):
        # images, planes, distance of planes; number of images, height, width, channels; threads
        function.argtypes = [pointer, pointer, *[integer] * 5, ctypes.c_int]
    return lib


def _blocks(channels, *tensors):
    """Split image tensors (N, ..., H, W) of equal N, H and W into blocks of images; channels: in and out together."""
    height, width = tensors[0].shape[2:]
    # measured on two AVX2 cores: few tiles leave the matrix products too small, many leave the cache
    tiles = min(max(65536 // channels, 256), 1024)
    images = max(1, tiles // (-(-height // 4) * -(-width // 4)))
    return zip(*(tensor.split(images) for tensor in tensors))


def _planes(images):
    """Allocate the 36 planes of `images` (N, C, H, W): (36, tiles + 1, C).

    The last tile of each plane is not used: without it the planes would lie powers of two apart, and all 36 would
    compete for the same few lines of the cache. torch.bmm multiplies it too, as it would copy what is not contiguous.
    """
    count, channels, height, width = images.shape
    return torch.empty(36, count * -(-height // 4) * -(-width // 4) + 1, channels)


def _transform(function, images, planes):
    """Call a transform of common/winograd.c between `images` (N, C, H, W) in channels_last and `planes`."""
    count, channels, height, width = images.shape
    pointers = images.data_ptr(), planes.data_ptr(), planes.stride(0)
    function(*pointers, count, height, width, channels, torch.get_num_threads())


def _correlate(x, filters):
    """Return the convolution (N, K, H, W) of x (N, C, H, W) with transformed `filters` (36, C, K), in channels_last."""
    (images, channels, height, width), out = x.shape, filters.shape[2]
    y, lib = torch.empty((images, out, height, width), memory_format=torch.channels_last), library()
    for inputs, outputs in _blocks(channels + out, x, y):
        transformed, products = _planes(inputs), _planes(outputs)
        _transform(lib.winograd_input, inputs, transformed)
        torch.bmm(transformed, filters, out=products)
        _transform(lib.winograd_output, outputs, products)
    return y


def _transformed(transform, weight):
    """Return G g G^T of filters (K, C, 3, 3) as (36, K, C)."""
    out, channels = weight.shape[:2]
    return (transform @ weight.permute(2, 3, 0, 1).reshape(9, -1)).view(36, out, channels)


def _check(*tensors):
    for tensor in tensors:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise TypeError(f"Winograd convolutions take float32 on a CPU, not {tensor.dtype} on {tensor.device.type}")


def _like_image(x):
    return x.contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("cifar10::winograd", mutates_args=())
def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return F.conv2d(x, weight, padding=1) of float32 x (N, C, H, W) and weight (K, C, 3, 3), in channels_last.

    Raises:
        TypeError: a tensor is not float32 on a CPU.
        UserError: the tile transforms cannot be compiled here.
    """
    _check(x, weight)
    return _correlate(_like_image(x), _transformed(GG, weight).transpose(1, 2))


@torch.library.custom_op("cifar10::winograd_input_gradient", mutates_args=())
def input_gradient(dy: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the gradient (N, C, H, W) of `convolve`'s x from that of its result, (N, K, H, W)."""
    _check(dy, weight)
    return _correlate(_like_image(dy), _transformed(GG_ROTATED, weight))


@torch.library.custom_op("cifar10::winograd_filter_gradient", mutates_args=())
def filter_gradient(x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """Return the gradient (K, C, 3, 3) of `convolve`'s weight from that of its result, (N, K, H, W)."""
    _check(x, dy)
    x, dy = _like_image(x), _like_image(dy)
    channels, out, lib = x.shape[1], dy.shape[1], library()
    total = torch.zeros(36, out, channels)
    for inputs, gradients in _blocks(channels + out, x, dy):
        transformed, transformed_gradients = _planes(inputs), _planes(gradients)
        _transform(lib.winograd_input, inputs, transformed)
        _transform(lib.winograd_gradient, gradients, transformed_gradients)
        total.baddbmm_(transformed_gradients[:, :-1].transpose(1, 2), transformed[:, :-1])
    return _like_image((GG.T @ total.view(36, -1)).view(3, 3, out, channels).permute(2, 3, 0, 1))


def _empty(like, *shape):
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


@convolve.register_fake
def _(x, weight):
    return _empty(x, len(x), len(weight), *x.shape[2:])


@input_gradient.register_fake
def _(dy, weight):
    return _empty(dy, len(dy), weight.shape[1], *dy.shape[2:])


@filter_gradient.register_fake
def _(x, dy):
    return _empty(x, dy.shape[1], x.shape[1], 3, 3)


def _remember(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, dy):
    x, weight = ctx.saved_tensors
    wanted_x, wanted_weight = ctx.needs_input_grad
    return input_gradient(dy, weight) if wanted_x else None, filter_gradient(x, dy) if wanted_weight else None


convolve.register_autograd(_backward, setup_context=_remember)


def conv2d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return F.conv2d(x, weight, bias, padding=1), by `convolve` unless the images are smaller than SMALLEST."""
    if min(x.shape[2:]) < SMALLEST:
        return F.conv2d(x, weight, bias, padding=1)
    y = convolve(x, weight)
    return y if bias is None else y + bias.view(-1, 1, 1)


def use(model: nn.Module) -> nn.Module:
    """Replace the matching convolutions of `model` by `conv2d`, in place; return the model.

    They are those of 3x3 pixels, stride 1, padding 1 and at least PAYS_FROM channels in and out together. Parameters
    and state_dict do not change.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and _matches(layer):
            layer._conv_forward = conv2d  # what nn.Conv2d's own forward calls
    return model


def _matches(layer):
    plain = layer.padding_mode == "zeros" and layer.groups == 1
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
    return plain and shape and layer.in_channels + layer.out_channels >= PAYS_FROM
