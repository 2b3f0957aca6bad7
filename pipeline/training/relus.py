"""Which ReLU channels of a network are dead (torch)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class ReluWatch:
    """Which ReLU channels of a network are ever active.

    A channel that is zero for every tile passes no gradient and costs its time for nothing. Leaky ReLUs cannot die and
    are not counted.
    """

    def __init__(self, network: nn.Module) -> None:
        self._alive: dict[tuple[str, int], Tensor] = {}
        self._calls: dict[str, int] = {}
        self._hooks = [network.register_forward_pre_hook(lambda *_: self._calls.clear())]
        for name, layer in network.named_modules():
            if isinstance(layer, nn.ReLU):
                self._hooks.append(layer.register_forward_hook(self._note(name)))

    def _note(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            # A ReLU module may be used at several places of a network: each call counts for itself.
            self._calls[name] = self._calls.get(name, 0) + 1
            key = (name, self._calls[name])
            # Channels are the second axis of maps, and the last one of vectors, of single tiles or of all of an event.
            channels_last = output.detach().movedim(1 if output.ndim == 4 else -1, -1)
            alive = channels_last.flatten(0, -2).amax(0) > 0
            self._alive[key] = self._alive[key] | alive if key in self._alive else alive

        return hook

    def close(self, of_all: Callable[[Any], list[Any]] = lambda own: [own]) -> float:
        """Stop watching; share of channels that never passed anything, NaN for a network without ReLUs.

        `of_all` gives what each of several ranks has seen.
        """
        for hook in self._hooks:
            hook.remove()
        alive: dict[tuple[str, int], Tensor] = {}
        for seen in of_all({key: channels.cpu() for key, channels in self._alive.items()}):
            for key, channels in seen.items():
                alive[key] = alive[key] | channels if key in alive else channels
        if not alive:
            return math.nan
        return float((~torch.cat(list(alive.values()))).double().mean())
