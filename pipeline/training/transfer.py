"""Fine-tuning: a network that starts from the weights of a bundle, and parts of it that keep them (torch)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.sequence import ShowerModel
from pipeline.bundle.card import Card, bundle_weights, load_bundle_card, resolve_bundle
from pipeline.bundle.export import load_weights
from pipeline.bundle.files import check_digest
from pipeline.errors import UserError

_HEAD = "head."


class Origin:
    """The bundle that a training starts from.

    Parameters
    ----------
    bundle : str or path
        Directory, or name of one that ships.

    Raises
    ------
    UserError
        If the bundle does not exist.
    InputFileError
        If it cannot be read, has no weights, or has those of another one.
    """

    def __init__(self, bundle: str | Path) -> None:
        self.name = str(bundle)
        self.card: Card = load_bundle_card(bundle)
        self.directory = resolve_bundle(bundle)
        self.weights = bundle_weights(bundle)
        check_digest(self.directory, self.card)

    def has_scalars(self, scalars: Sequence[str]) -> bool:
        """Whether the bundle reads these scalars in this order, so that its head has weights for them."""
        return tuple(scalars) == self.card.input.preparation.scalar_names

    def network(
        self,
        build: Callable[[int], nn.Module],
        *,
        outputs: Sequence[str],
        scalars: Sequence[str],
    ) -> nn.Module:
        """A network with the bundle's weights, wherever they have the same meaning in both.

        The last layer is re-initialised if the outputs differ, the whole head if the scalars differ. Weights of the
        bundle that have no place here (an auxiliary output) are ignored.

        Parameters
        ----------
        build : callable
            Number of outputs -> the new network with fresh weights.
        outputs, scalars : sequence of str
            Names of the new network's outputs and scalars.

        Raises
        ------
        UserError
            If the weights do not fit: another architecture, or other arguments.
        """
        same_outputs = tuple(outputs) == self.card.output_names
        same_scalars = self.has_scalars(scalars)
        if self.takes == "telescopes" and not same_outputs:
            raise UserError(
                f"start_from {self.name} is a network of whole events with the outputs "
                f"{', '.join(self.card.output_names)}, and this one has {', '.join(outputs)}; give it the same heads, "
                "or start from networks of single images"
            )
        # Built with the bundle's outputs, the head takes all of its weights; its last layer is then replaced.
        network = build(self.card.model.num_outputs if same_scalars else len(outputs))
        weights = load_weights(self.weights)
        if not same_scalars:
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith(_HEAD)}
        self._check_fit(network, weights, same_scalars=same_scalars)
        fresh = network.state_dict()
        fitting = {name: new for name, new in weights.items() if name in fresh and new.shape == fresh[name].shape}
        network.load_state_dict(fitting, strict=False)
        if same_scalars and not same_outputs:
            network.reset_head(len(outputs))
        return network

    @property
    def takes(self) -> str:
        """What the bundle's network takes; see `pipeline.inputs`."""
        return self.card.input.preparation.takes

    def _check_fit(self, network: nn.Module, weights: dict[str, Tensor], *, same_scalars: bool) -> None:
        problems = []
        for name, tensor in network.state_dict().items():
            if _is_auxiliary(name) or (name.startswith(_HEAD) and not same_scalars):
                continue
            if name not in weights:
                problems.append(f"it has no {name}")
            elif weights[name].shape != tensor.shape:
                problems.append(f"its {name} is {_shape(weights[name])}, here {_shape(tensor)}")
        if problems:
            model = self.card.model
            raise UserError(
                f"start_from {self.name} does not fit this network: {problems[0]} (one of {len(problems)} "
                f"differences); it is a {model.name} with {model.kwargs or 'its default arguments'} for "
                f"{model.in_chans} channels: train the same model with the same arguments"
            )


def start_encoders(network: ShowerModel, origins: Sequence[Origin], *, scalars: Sequence[str]) -> None:
    """Take over the encoders of a network for events from networks for single images.

    With the same scalars, the layers that join them to the features are taken over, too. The join over the telescopes
    keeps its fresh weights.

    Parameters
    ----------
    network : ShowerModel
    origins : sequence of Origin
        One per camera, in the order of the encoders.
    scalars : sequence of str
        Names of the network's scalars.

    Raises
    ------
    UserError
        If the weights do not fit: another architecture, or other arguments.
    """
    state = network.state_dict()
    for number, origin in enumerate(origins):
        of_head = f"head.telescopes.{number}."
        parts = [f"encoders.{number}."]
        if origin.has_scalars(scalars) and scalars:
            parts += [f"{of_head}embed.", f"{of_head}join."]
        renamed = {
            f"{of_head}{name.removeprefix(_HEAD)}" if name.startswith(_HEAD) else f"encoders.{number}.{name}": tensor
            for name, tensor in load_weights(origin.weights).items()
        }
        wanted = [name for name in state if name.startswith(tuple(parts)) and not _is_auxiliary(name.split(".", 2)[2])]
        missing = [n for n in wanted if n not in renamed or renamed[n].shape != state[n].shape]
        if missing:
            model = origin.card.model
            raise UserError(
                f"start_from {origin.name} does not fit this network's encoder: {missing[0]} is not there or of "
                f"another shape; it is a {model.name} with {model.kwargs or 'its default arguments'}: leave encoder "
                "and encoder_kwargs out, and scalars_hidden at its default"
            )
        state |= {name: renamed[name] for name in wanted}
    network.load_state_dict(state)


def _is_auxiliary(name: str) -> bool:
    """Whether a weight belongs to an auxiliary output, which a bundle need not have."""
    return name.partition(".")[0].startswith("aux")


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"


def freeze(network: nn.Module, levels: int | str, images: Tensor) -> list[nn.Module]:
    """Freeze a network's first levels of features, or all of them.

    Parameters
    ----------
    network : nn.Module
    levels : int or "features"
        How many entries of `feature_info`, finest first: everything that a tile passes until the last of them is done.
        "features": everything but the head.
    images : Tensor
        Tiles that the network takes, to find the order of its parts.

    Returns
    -------
    list of nn.Module
        What must stay in evaluation mode, because batch normalisation has statistics besides its weights.

    Raises
    ------
    UserError
        If the network has fewer levels.
    """
    names = [info.module for info in network.feature_info]
    if levels == "features":
        frozen = [part for name, part in network.named_children() if name != _HEAD.rstrip(".")]
        kept = [p for name, p in network.named_parameters() if not name.startswith(_HEAD)]
    elif levels > len(names):
        raise UserError(
            f"freeze {levels} is more than the {len(names)} levels of features that {type(network).__name__} has "
            f"({', '.join(names)}); take fewer, or features"
        )
    else:
        frozen = _done_until(network, network.get_submodule(names[levels - 1]), images) if levels else []
        kept = [parameter for part in frozen for parameter in part.parameters()]
    for parameter in kept:
        parameter.requires_grad_(False)
    return frozen


@torch.no_grad()
def _done_until(network: nn.Module, last: nn.Module, images: Tensor) -> list[nn.Module]:
    """The parts whose work is done when `last` has done its own, whatever the order of their definition."""
    done: list[nn.Module] = []

    def note(part: nn.Module, *_: object) -> None:
        if last not in done:
            done.append(part)

    hooks = [part.register_forward_hook(note) for part in network.modules() if part is not network]
    training = network.training
    network.eval().forward_features(images)
    network.train(training)
    for hook in hooks:
        hook.remove()
    return done
