"""A faster gradient of the convolutions that see the image itself.

On a processor, the input gradient of a convolution with one to three input channels takes
a third of a whole gradient pass; as a matrix product it takes a fraction of that. The
values of the forward pass stay the same to the last bit.
"""

import torch
from torch.nn import functional as F


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, dilation):
        ctx.save_for_backward(weight)
        ctx.geometry = x.shape[2:], weight.shape[2:], dilation, padding, stride
        return F.conv2d(x, weight, bias, stride, padding, dilation)

    @staticmethod
    def backward(ctx, gradient):
        (weight,) = ctx.saved_tensors
        columns = weight.flatten(1).T.to(gradient.dtype) @ gradient.flatten(2)
        return F.fold(columns, *ctx.geometry), None, None, None, None, None


class _InputConv2d(torch.nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        frozen = not weight.requires_grad  # those of a copy may be thawed
        if input.ndim != 4 or not input.requires_grad or not frozen:
            return super()._conv_forward(input, weight, bias)
        return _Convolve.apply(
            input, weight, bias, self.stride, self.padding, self.dilation
        )


def speed_up_input_gradients(module):
    """Change, in place, the convolutions of a frozen copy that gain by it."""
    for layer in module.modules():
        if (
            type(layer) is torch.nn.Conv2d
            and layer.in_channels <= 3
            and layer.groups == 1
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
            and layer.weight.device.type == "cpu"
        ):
            layer.__class__ = _InputConv2d
    return module
