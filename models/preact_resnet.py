"""Residual networks with other orders in the unit, pre-activated ones above all, and wide ones.

The orders (a) to (e) of [1], Fig. 4, are set out in `models.residual`. They move normalisations and activations about
and leave the number of parameters as it is, so that the four at 110 layers have that of ResNet-110 ((a), `resnet110`).

====================  ==========  ===================================================================
entry                 parameters  source of the count
====================  ==========  ===================================================================
110 layers, (b)-(e)    1,727,962  computed, option A, 10 classes
`preact_resnet164`     1,703,258  computed for the authors' code [2], 10 classes; 1.7 M in [4]
`preact_resnet1001`   10,327,706  computed, as before; 10.2 M in [4]
`resnetv2_50`         25,549,352  timm 1.0.31, measured
`resnetv2_101`        44,541,480  timm 1.0.31, measured
`resnetv2_152`        60,185,128  timm 1.0.31, measured
`wrn_40_2`             2,243,546  computed, 10 classes; 2.2 M in [4]
====================  ==========  ===================================================================

Details and departures:

- normalisation and ReLU of the stem come before the max pooling, as in [3]; timm has them behind it, with the same
  parameters;
- strides of a bottleneck as in `models.resnet`, by default in the first 1x1 convolution, where [2] has them;
- the wide network has no dropout between its convolutions ([4], section 2.4).

References
----------
.. [1] He, Zhang, Ren, Sun (2016), "Identity mappings in deep residual networks", arXiv:1603.05027.
.. [2] https://github.com/KaimingHe/resnet-1k-layers, resnet-pre-act.lua.
.. [3] https://github.com/facebookarchive/fb.resnet.torch, models/preresnet.lua.
.. [4] Zagoruyko, Komodakis (2016), "Wide residual networks", arXiv:1605.07146.
"""

from typing import Any

from models.registry import register_model
from models.resnet import CIFAR_REF, IMAGENET_REF, ResNet, build_cifar_resnet, build_resnet

_CIFAR = {"paper": "arXiv:1603.05027", "ref": CIFAR_REF}
_IMAGENET = {"paper": "arXiv:1603.05027", "ref": IMAGENET_REF}


@register_model(**_CIFAR, num_params=1_727_962)
def resnet110_bn_after_addition(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-110 with batch normalisation after the addition (Fig. 4b)."""
    return build_cifar_resnet(110, in_chans, num_outputs, {"variant": "bn_after_addition"} | kwargs)


@register_model(**_CIFAR, num_params=1_727_962)
def resnet110_relu_before_addition(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-110 with the last ReLU before the addition (Fig. 4c)."""
    return build_cifar_resnet(110, in_chans, num_outputs, {"variant": "relu_before_addition"} | kwargs)


@register_model(**_CIFAR, num_params=1_727_962)
def resnet110_relu_preact(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-110 with pre-activation by ReLU alone (Fig. 4d)."""
    return build_cifar_resnet(110, in_chans, num_outputs, {"variant": "relu_preact"} | kwargs)


@register_model(**_CIFAR, num_params=1_727_962)
def preact_resnet110(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-110 with full pre-activation (Fig. 4e)."""
    return build_cifar_resnet(110, in_chans, num_outputs, {"variant": "full_preact"} | kwargs)


def _preact_bottlenecks(layers: int, in_chans: int, num_outputs: int, kwargs: dict[str, Any]) -> ResNet:
    """9n + 2 weighted layers: three stages of n bottlenecks, 64 / 128 / 256 channels ([2])."""
    entry = {"block": "bottleneck", "depths": ((layers - 2) // 9,) * 3, "width": 16, "stem": "cifar"}
    return build_resnet(in_chans, num_outputs, kwargs, variant="full_preact", **entry)


@register_model(**_CIFAR, num_params=1_703_258)
def preact_resnet164(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """Pre-activated ResNet-164 for CIFAR, bottleneck blocks (n = 18)."""
    return _preact_bottlenecks(164, in_chans, num_outputs, kwargs)


@register_model(**_CIFAR, num_params=10_327_706)
def preact_resnet1001(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """Pre-activated ResNet-1001 for CIFAR, bottleneck blocks (n = 111)."""
    return _preact_bottlenecks(1001, in_chans, num_outputs, kwargs)


@register_model(**_IMAGENET, num_params=25_549_352)
def resnetv2_50(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-50 with full pre-activation."""
    return build_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 4, 6, 3), variant="full_preact")


@register_model(**_IMAGENET, num_params=44_541_480)
def resnetv2_101(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-101 with full pre-activation."""
    return build_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 4, 23, 3), variant="full_preact")


@register_model(**_IMAGENET, num_params=60_185_128)
def resnetv2_152(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-152 with full pre-activation."""
    return build_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 8, 36, 3), variant="full_preact")


@register_model(paper="arXiv:1605.07146", ref=CIFAR_REF, num_params=2_243_546)
def wrn_40_2(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """Wide residual network WRN-40-2: 6n + 4 layers, n = 6, 32 / 64 / 128 channels (Table 1)."""
    entry = {"depths": (6, 6, 6), "width": 16, "widen": 2, "stem": "cifar"}
    return build_resnet(in_chans, num_outputs, kwargs, variant="full_preact", **entry)
