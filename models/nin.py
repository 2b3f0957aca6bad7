"""Network in Network: convolutions followed by 1x1 ones (a perceptron that slides over the map), no dense layers.

Parameters, computed layer by layer. CIFAR form: 14,592 + 30,880 + 15,456, 460,992 + 2 x 37,056, 331,968 + 37,056 and
193 per class: 966,986 for 10 classes, 984,356 for 100. ImageNet form: 34,944 + 2 x 9,312, 614,656 + 2 x 65,792,
885,120 + 2 x 147,840, 3,539,968 + 1,049,600 + 1,025,000 = 7,595,176. The widths are those of the
author's configurations [2], [3].

Departures from the paper: no ReLU behind the last 1x1 convolution, for a logit or an energy may be negative. Without
it that convolution and the global average commute; the average comes first, so that scalars can join before it. The
parameters and the outputs are the same. Poolings may reach beyond the map, as in the author's configurations, which
gives maps of 32, 16 and 8 px.

References
----------
.. [1] Lin, Chen, Yan (2014), "Network in network", arXiv:1312.4400, sections 3 and 4.
.. [2] https://gist.github.com/mavenlin/e56253735ef32c3c296d (CIFAR-10).
.. [3] https://gist.github.com/mavenlin/d802a5849de39225bcc6 (ImageNet).
"""

from collections.abc import Sequence
from typing import Any, Literal

from models.heads import Head
from models.layers import init_he_normal, scaled_chans
from models.registry import register_model
from models.tables import Assembler, Conv, Drop, Pool, Steps, TableNetwork, check_choice, check_width

FORMS = ("cifar", "imagenet")
STEMS = ("cifar", "imagenet")
STEM = {"cifar": (5, 1, "same"), "imagenet": (11, 4, "valid")}  # kernel, stride, padding of the first convolution


class Nin(TableNetwork):
    """Network in Network ([1], Fig. 2).

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    form
        ``cifar``: three blocks, whose last features see 27 px, little of a camera's tile; ``imagenet``: four blocks,
        195 px, or 51 px with the stem of the other form.
    width
        Channels of the first convolution (192 and 96 in the two forms); all others keep the paper's ratio to it.
    stem
        First convolution: ``cifar``: 5x5 of stride 1; ``imagenet``: 11x11 of stride 4, of which a tile below 112 px has
        little. None for the form's own.
    drop_rate
        Dropout between the blocks; before the last block alone in the ImageNet form. The paper's half is for its
        widths; a narrow network learns far slower with it.
    drop_channels
        Whether it drops whole maps instead of single elements.
    n_scalars
        Scalars per tile joined to the averaged features.
    scalars_hidden
        Width of the scalars' own layers and of the one after that join.
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_outputs: int = 1,
        *,
        form: Literal["cifar", "imagenet"] = "cifar",
        width: int = 192,
        stem: Literal["cifar", "imagenet"] | None = None,
        drop_rate: float = 0.5,
        drop_channels: bool = False,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        check_choice("a NiN", "form", form, FORMS)
        stem = stem or form
        check_choice("a NiN", "stem", stem, STEMS)
        check_width("a NiN", width)
        drop = Drop(drop_rate, drop_channels)
        if form == "cifar":
            base = 192
            table: dict[str, Steps] = {
                "mlpconv1": _mlpconv((192, 160, 96), *STEM[stem]),
                "pool1": (_pool("max"), drop),
                "mlpconv2": _mlpconv((192, 192, 192), 5),
                "pool2": (_pool("avg"), drop),
                "mlpconv3": _mlpconv((192, 192), 3),
            }
        else:
            base = 96
            table = {
                "mlpconv1": _mlpconv((96, 96, 96), *STEM[stem]),
                "pool1": (_pool("max"),),
                "mlpconv2": _mlpconv((256, 256, 256), 5),
                "pool2": (_pool("max"),),
                "mlpconv3": _mlpconv((384, 384, 384), 3),
                "pool3": (_pool("max"), drop),
                "mlpconv4": _mlpconv((1024, 1024), 3),
            }
        super().__init__(in_chans, table, Assembler(lambda chans: scaled_chans(chans, width, base)))
        init_he_normal(self, "fan_in")
        self.head = Head(self.num_features, num_outputs, n_scalars, scalars_hidden)


def _mlpconv(chans: Sequence[int], kernel: int, stride: int = 1, padding: str = "same") -> Steps:
    """A convolution and 1x1 convolutions behind it; the last block's third one is the head's linear layer."""
    return (Conv(chans[0], kernel, stride, padding), *(Conv(count) for count in chans[1:]))


def _pool(kind: Literal["max", "avg"]) -> Pool:
    return Pool(kind, 3, 2, "ceil")


@register_model(paper="arXiv:1312.4400", ref={"in_chans": 3, "num_outputs": 10}, num_params=966_986)
def nin_cifar(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Nin:
    """Network in Network for CIFAR: three blocks."""
    return Nin(in_chans, num_outputs, **kwargs)


@register_model(paper="arXiv:1312.4400", ref={"in_chans": 3, "num_outputs": 1000}, num_params=7_595_176)
def nin_imagenet(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> Nin:
    """Network in Network for ImageNet: four blocks."""
    return Nin(in_chans, num_outputs, **({"form": "imagenet", "width": 96} | kwargs))
