"""MinAtar's convolution in NumPy on a CPU, with derivatives that are written by hand; layers.py has those of others."""

import numpy as np
from torch import nn

from agent.compute.numpy.normalisation import Pullback, own_parameters, views
from agent.networks.encoders import TrunkEncoder
from agent.networks.trunks import Convolution, Convolutions

#: For windows at more positions torch is faster: the patches no longer fit in the processor's cache.
POSITIONS = 64


class PatchConvolution:
    """One convolution and its ReLU, as a product of its weights with the patches of the images.

    Shapes: of images [B, C, H, W] there are P positions of a window of K = C·k·k numbers; the features [B, q·P] are
    ordered as torch's flattened [B, q, H', W'].

    Args:
        encoder: one that `fits`; its parameters are shared, and the pullback writes their gradients.
    """

    def __init__(self, encoder: nn.Module) -> None:
        assert isinstance(encoder, TrunkEncoder)
        layer: Convolution = encoder.trunk.layers[0]  # type: ignore[index, assignment]
        weight, gradient = views(layer.weight)
        self.weight = weight.reshape(len(weight), -1)
        self.g_weight = None if gradient is None else gradient.reshape(self.weight.shape)
        self.bias, self.g_bias = views(layer.bias)
        self._index = patch_index(encoder.shape, layer)
        self._scale = np.float32(encoder.scale)

    @staticmethod
    def fits(encoder: nn.Module) -> bool:
        """Whether an encoder begins with one plain convolution of small images."""
        if type(encoder) is not TrunkEncoder or type(encoder.trunk) is not Convolutions:
            return False
        layers = list(encoder.trunk.layers)
        if len(layers) != 1 or type(layers[0]) is not Convolution or own_parameters(layers[0]) != {"weight", "bias"}:
            return False
        layer = layers[0]
        return not (layer.padding or layer.spectral_norm) and encoder.trunk.features <= POSITIONS * layer.outputs

    def patches(self, images: np.ndarray) -> np.ndarray:
        """Images [B, C, H, W], as they are stored, as patches [B, K, P] of floats."""
        flat = images.reshape(len(images), -1).take(self._index, axis=1, mode="clip")  # no index is outside
        patches: np.ndarray = flat.reshape(len(images), self.weight.shape[1], -1).astype(np.float32)
        if self._scale != 1.0:
            patches *= self._scale
        return patches

    def vjp(self, patches: np.ndarray) -> tuple[np.ndarray, Pullback]:
        """The features [B, q·P] of patches, and their pullback, whose result means nothing: images need no gradient."""
        y: np.ndarray = self.weight @ patches
        y += self.bias[:, None]
        np.maximum(y, np.zeros_like(y), out=y)  # faster than with a zero

        def pullback(g: np.ndarray) -> np.ndarray:
            g = g.reshape(y.shape)
            g *= y > 0.0
            np.add.reduce(g @ patches.transpose(0, 2, 1), axis=0, out=self.g_weight)
            np.add.reduce(g, axis=(0, 2), out=self.g_bias)
            return g

        return y.reshape(len(y), -1), pullback


def patch_index(shape: tuple[int, ...], layer: Convolution) -> np.ndarray:
    """Where the numbers [K·P] of all patches are in a flattened image [C, H, W]."""
    places = np.arange(np.prod(shape)).reshape(shape)
    windows = np.lib.stride_tricks.sliding_window_view(places, (layer.kernel, layer.kernel), axis=(1, 2))
    windows = windows[:, :: layer.stride, :: layer.stride]  # [C, H', W', k, k]
    return np.ascontiguousarray(windows.transpose(0, 3, 4, 1, 2)).reshape(-1)
