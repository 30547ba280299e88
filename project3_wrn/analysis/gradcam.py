"""Grad-CAM: where in an image a network finds a class.

Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization (arXiv 1610.02391).
"""

import contextlib
import warnings

import torch
import torch.nn.functional as F

from common.support.errors import UserError

SMALLEST_MAP = 7  # rows and columns: a map of 4x4 shows halves of an image of 32x32, not parts of an object


def gradcam(model, images, targets, layer=None):
    """Return heat maps (N, h, w), each scaled to 0..1, for classes `targets` (N,) in normalized images (N, 3, H, W).

    layer: name of the module whose output (N, C, h, w) is explained; by default the output of `forward_features`.

    The model stays as it was: mode, gradients, hooks. Its parameters may be frozen. A warning names the maps that are
    zero everywhere, where no feature raises the score of the class.

    Raises:
        UserError: there is no such layer, or its output is not feature maps larger than 1x1.
        ValueError: there is not exactly one target per image.
    """
    if len(targets) != len(images):
        raise ValueError(f"{len(targets)} targets for {len(images)} images")
    targets = torch.as_tensor(targets, device=images.device)
    with _in_evaluation_mode(model), torch.enable_grad():
        features, scores = _features_and_scores(model, images, layer)
        gradients = torch.autograd.grad(scores.gather(1, targets[:, None]).sum(), features)[0]
    features = features.detach()
    weights = gradients.mean((2, 3), keepdim=True)  # alpha of equation 1
    maps = F.relu((weights * features).sum(1))  # equation 2
    highest = maps.amax((1, 2), keepdim=True)
    if blank := (highest == 0).flatten().nonzero().flatten().tolist():
        warnings.warn(f"Grad-CAM is zero all over for image {', '.join(map(str, blank))}", stacklevel=2)
    lowest = maps.amin((1, 2), keepdim=True)
    return (maps - lowest) / (highest - lowest + 1e-7)


@torch.no_grad()
def detailed_layer(model, images):
    """Return the layer whose maps are large enough to show where: None, the last feature maps, where these are.

    Of a network whose last maps are smaller than SMALLEST_MAP, it is the module run last whose output (N, C, h, w) is
    not; None where it has no such module.
    """
    shapes, hooks = {}, []

    def record(name):
        def hook(module, inputs, output):
            if isinstance(output, torch.Tensor):
                shapes.pop(name, None)  # a module may run twice: the order is that of the last time
                shapes[name] = output.shape

        return hook

    for name, module in model.named_modules():
        hooks.append(module.register_forward_hook(record(name)))
    try:
        with _in_evaluation_mode(model):
            features = model.forward_features(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if features.dim() == 4 and min(features.shape[2:]) >= SMALLEST_MAP:
        return None
    large = [name for name, shape in shapes.items() if len(shape) == 4 and min(shape[2:]) >= SMALLEST_MAP]
    return large[-1] if large else None


def upsample(maps, size):
    """Scale maps (N, h, w) bilinearly to (N, *size)."""
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _features_and_scores(model, images, layer):
    if layer is None:
        with torch.no_grad():
            features = model.forward_features(images)
        features = _maps(features, "forward_features").requires_grad_()
        return features, model.forward_head(features)
    modules = dict(model.named_modules())
    if layer not in modules:
        raise UserError(f"the network has no layer {layer!r}; for example {', '.join(list(modules)[-6:])}")
    outputs = []

    def capture(module, inputs, output):
        outputs.append(_maps(output.detach(), layer).requires_grad_())
        return outputs[0].clone()  # later layers may work in place

    hook = modules[layer].register_forward_hook(capture)
    try:
        scores = model(images)
    finally:
        hook.remove()
    return outputs[0], scores


def _maps(features, layer):
    if features.dim() != 4 or features.shape[-1] * features.shape[-2] == 1:
        raise UserError(
            f"the output of {layer} is {tuple(features.shape[1:])}, not feature maps larger than 1x1; choose an earlier"
            " layer with --gradcam-layer"
        )
    return features.detach().clone()


@contextlib.contextmanager
def _in_evaluation_mode(model):
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
