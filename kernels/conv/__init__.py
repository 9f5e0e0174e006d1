"""The convolutional layer on arrays (`arrays`), and what compiled networks of images are made of, by address."""
from fastnet.kernels.conv.arrays import (
    conv_backward,
    conv_backward_bias,
    conv_backward_input,
    conv_backward_weights,
    conv_forward,
    pack_filters,
    window_of,
)

__all__ = ["conv_backward", "conv_backward_bias", "conv_backward_input", "conv_backward_weights", "conv_forward",
           "pack_filters", "window_of"]
