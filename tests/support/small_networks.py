"""Every entry of the zoo at a width and depth that tests can afford."""

import torch
from torch import nn

from models import create_model, model_entry

SMALL = {
    "resnet": {"width": 4},
    "autoencoder": {"width": 4},
    "hypernet": {"width": 4},
    "sequence": {"width": 8, "encoder": "resnet20", "encoder_kwargs": {"width": 4, "depths": (1, 1)}},
    "preact_resnet": {"width": 4},
    "stochastic_depth": {"width": 4},
    "senet": {"width": 4},
    "fractalnet": {"width": 4},
    "densenet": {"growth_rate": 4},
    "mlp": {"hidden": (16,)},
    "alexnet": {"width": 8, "stem": "small"},
    "vgg": {"width": 4},
    "nin": {"width": 12, "stem": "cifar"},
    "googlenet": {"width": 8, "stem": "small"},
    "inception": {"width": 4, "stem": "small"},
}
DEEP = {
    "resnet101": (1, 1, 3, 1),
    "resnet152": (1, 2, 3, 1),
    "resnet56": (2, 2, 2),
    "resnet110": (2, 2, 3),
    "hypernet_wrn40_2": (1, 1, 1),
    "resnet1202": (2, 2, 2),
    "resnet110_bn_after_addition": (2, 1, 2),
    "resnet110_relu_before_addition": (2, 1, 2),
    "resnet110_relu_preact": (2, 1, 2),
    "preact_resnet110": (2, 1, 2),
    "preact_resnet164": (2, 1, 2),
    "preact_resnet1001": (1, 2, 2),
    "resnetv2_101": (1, 1, 3, 1),
    "resnetv2_152": (1, 2, 3, 1),
    "wrn_40_2": (1, 2, 1),
    "stochastic_depth_resnet110": (2, 1, 2),
    "se_resnet101": (1, 1, 3, 1),
    "se_resnet152": (1, 2, 3, 1),
    "senet154": (1, 2, 1, 1),
    "densenet40_k12": (2, 3, 2),
    "densenet_bc100_k12": (2, 3, 2),
    "densenet_bc250_k24": (3, 2, 3),
    "densenet_bc190_k40": (2, 2, 3),
    "densenet121": (2, 3, 2, 2),
    "densenet169": (2, 2, 3, 2),
    "densenet201": (1, 2, 3, 2),
    "densenet161": (2, 2, 2, 3),
    "inception_v2": (1, 1, 2),
    "inception_v3": (1, 2, 1),
    "inception_v4": (1, 1, 1),
    "inception_resnet_v2": (2, 1, 2),
}


def small_arguments(name):
    """Reduced width, and depth where hundreds of layers would only cost time; a network of a user's own as it is."""
    return SMALL.get(model_entry(name).family, {}) | ({"depths": DEEP[name]} if name in DEEP else {})


def small_model(name, in_chans=3, num_outputs=3, **kwargs):
    torch.manual_seed(0)
    return create_model(name, in_chans, num_outputs, **small_arguments(name), **kwargs)


@torch.no_grad()
def settled(model, *inputs):
    """The network with the statistics of normalisation that these inputs have.

    Before any training, a deep network in evaluation mode may give its last bias whatever it reads, and so would agree
    with any other.
    """
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the mean over all passes
    model.train()
    for _ in range(4):
        model(*inputs)
    return model.eval()
