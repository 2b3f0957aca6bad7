"""ResNet-110 with stochastic depth: whole residual branches are dropped in training.

Unit l of L computes H_l = ReLU(b_l f_l(H_{l-1}) + id(H_{l-1})). In training, b_l is 1 with probability
p_l = 1 - (l / L) (1 - p_L), else 0, drawn once per mini-batch ([1], Eqs. 2 and 4); in evaluation f_l is scaled by p_l
(Eq. 5). With p_L = 0.5, the mean number of active units is (3 L - 1) / 4, 40.25 of the 54 of ResNet-110.

The parameters are those of `resnet110`. Where the shape changes, the shortcut averages 2x2 pixels before the new
channels are padded with zeros, as in the authors' code [2]; `resnet110` takes every second pixel.

Departures from the paper: a dropped branch is computed and multiplied by zero (see `models.layers.StochasticGate`), so
that training is not faster than without, and the running means of its normalisations are updated with every mini-batch.

References
----------
.. [1] Huang, Sun, Liu, Sedra, Weinberger (2016), "Deep networks with stochastic depth", arXiv:1603.09382.
.. [2] https://github.com/yueatsprograms/Stochastic_Depth, ResidualDrop.lua.
"""

from typing import Any

from models.registry import register_model
from models.resnet import CIFAR_REF, ResNet, build_cifar_resnet


@register_model(paper="arXiv:1603.09382", ref=CIFAR_REF, num_params=1_727_962)
def stochastic_depth_resnet110(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """ResNet-110 with stochastic depth, p_L = 0.5 (section 4)."""
    entry = {"shortcut": "average_pad", "last_survival": 0.5}
    return build_cifar_resnet(110, in_chans, num_outputs, entry | kwargs)
