"""A convolution with all that follows it in one pass, on a GPU; elsewhere torch's own modules do it in their order.

On a CPU the values stay those of torch's modules to the last bit.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from detector.kernels.available import usable
from detector.kernels.bias_relu import add_bias
from detector.kernels.fold_norm import Norm, fold_norm


class FrozenNorm(FrozenBatchNorm2d):
    """Frozen batch norm with torchvision's values. It overwrites its input, a convolution's fresh output."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The norm as ``scale * x + shift``: [C] and [C]."""
        scale: Tensor = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape in the norm's dtype; ``x`` is overwritten if it has that dtype."""
        scale, shift = (values[:, None, None] for values in self.scale_and_shift())
        return x.to(scale.dtype).mul_(scale).add_(shift)


def can_fuse(x: Tensor, norm: nn.Module | None = None) -> bool:
    """Whether ``convolve`` takes this input, and this norm after the convolution."""
    return usable(x) and (norm is None or isinstance(norm, FrozenNorm))


def convolve(
    conv: nn.Conv2d,
    x: Tensor,
    *,
    norm: nn.Module | None = None,
    relu: bool = False,
    residual: Tensor | None = None,
    coarse: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """``conv(x)``, then norm, + residual, + coarse enlarged to the output's size, then ReLU; for what ``can_fuse``.

    norm: a ``FrozenNorm`` after a convolution without bias; at most one of residual, of the output's shape, and coarse,
    of half its height and width. shift: [C], added to the bias.
    """
    weight, bias = folded_weight(conv, norm) if norm is not None else (conv.weight, conv.bias)
    y = F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    if bias is None:
        raise ValueError("convolve needs a convolution with bias, or a frozen norm after it.")
    return add_bias(y, bias if shift is None else bias + shift, relu=relu, residual=residual, coarse=coarse)


def folded_weight(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that gives ``norm(conv(x))``, up to rounding; in one launch on a GPU."""
    assert isinstance(norm, FrozenNorm)
    return fold_norm(conv.weight, Norm(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps))


def normed(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(conv(x))`` by torch; on a GPU a frozen norm becomes part of the convolution's weight and bias."""
    # On a CPU folding saves hardly any time, and the values would no longer be torchvision's to the last bit.
    if x.device.type == "cpu" or not isinstance(norm, FrozenNorm):
        result: Tensor = norm(conv(x))
        return result
    return folded(conv, norm, x)


def folded(conv: nn.Conv2d, norm: FrozenNorm, x: Tensor) -> Tensor:
    """``norm(conv(x))`` in one convolution, up to rounding, for a convolution without bias."""
    scale, shift = norm.scale_and_shift()
    weight = conv.weight * scale[:, None, None, None]
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)
