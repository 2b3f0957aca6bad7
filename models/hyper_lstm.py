"""Dynamic hypernetwork: an LSTM whose weights a smaller LSTM rescales in each step (HyperLSTM).

With N_x inputs, N_h units, n units of the smaller cell and embeddings of N_z numbers, and y each of the four gates
i, g, f, o ([1], Eqs. 10 to 12):

    smaller cell        4 n (N_h + N_x + n + 1)                      an LSTM over (h, x)
    embeddings          4 (n + 1) N_z  for h,  the same for x,  4 n N_z  for the bias
    scales and bias     3 x 4 N_h N_z                                rows of W_h, rows of W_x, bias
    main cell           4 N_h (N_h + N_x + 1)
    layer normalisation 10 (N_h + n)                                 scale and offset of four gates and the cell state

Of the seven counts in [1], Tables 3 and 4, five come out of this (with the linear layer to 50 or 205 characters):
4.91 M and 4.92 M for 1000 units without and with layer normalisation, 14.41 M for two layers with N_z = 16, 18.71 M
for 1800 units, 26.54 M for 2048. For the one layer with N_z = 16 it gives 5.09 M where the table has 5.06 M, for 1800
units with layer normalisation 18.73 M where it has 18.78 M: slips of the table, as the neighbouring rows fix each term.

Where text and formulas of [1] differ, this follows the text and the authors' code [2]: the embeddings come from the
smaller cell's new state, not from that of the step before as Eq. 11 has it, and the forget gates start open.

References
----------
.. [1] Ha, Dai, Le (2016), "HyperNetworks", arXiv:1609.09106, appendix A.2.
.. [2] https://github.com/hardmaru/supercell, supercell.py.
.. [3] Semeniuta, Severyn, Barth (2016), "Recurrent dropout without memory loss", arXiv:1603.05118.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GATES = 4  # i, g, f, o in this order
FORGET_BIAS = 1.0  # [2]
EPSILON = 1e-3  # of the layer normalisation, [2]
START_OF_SCALES = 0.1  # [1], appendix A.2.3: smaller than one for the flow of gradients

State = tuple[Tensor, Tensor, Tensor, Tensor]
"""Output and cell state of the main LSTM, output and cell state of the smaller one."""


class _Gates(nn.Module):
    """What follows the sums of an LSTM's four gates: normalisation, the new cell state, the output."""

    def __init__(self, units: int, layer_norm: bool, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(drop_rate)  # on the update alone, so that what is remembered stays [3]
        self.norm = None
        if layer_norm:
            self.scale = nn.Parameter(torch.ones(GATES, units))
            self.offset = nn.Parameter(torch.zeros(GATES, units))
            self.norm = nn.LayerNorm(units, EPSILON)

    def forward(self, sums: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Sums (N, 4, units) and cell state (N, units) to output and new cell state."""
        if self.norm is not None:
            sums = self.scale * F.layer_norm(sums, sums.shape[-1:], eps=EPSILON) + self.offset
        i, g, f, o = sums.unbind(1)
        cell = torch.sigmoid(f + FORGET_BIAS) * cell + torch.sigmoid(i) * self.drop(torch.tanh(g))
        shown = cell if self.norm is None else self.norm(cell)
        return torch.sigmoid(o) * torch.tanh(shown), cell


class HyperLSTMCell(nn.Module):
    """One step of a HyperLSTM; started as in [1], appendix A.2.3.

    In the very first step of training the smaller cell has no gradient: the weights behind it start at zero.

    Parameters
    ----------
    inputs
        Length N_x of an input.
    units
        Length N_h of the output.
    hyper_units
        Length of the smaller cell's output.
    embedding
        Length N_z of the embeddings from which scales and bias of a gate are made.
    layer_norm
        Normalise the gates and the cell states.
    drop_rate
        Dropout of the updates of the main cell.

    Attributes
    ----------
    state_sizes : tuple of int
        Lengths of the parts of the state, which starts at zero.
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        hyper_units: int = 128,
        embedding: int = 4,
        layer_norm: bool = True,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.state_sizes = (units, units, hyper_units, hyper_units)
        self.hyper = nn.Linear(units + inputs + hyper_units, GATES * hyper_units)
        self.hyper_gates = _Gates(hyper_units, layer_norm)
        self.embed_h = nn.Linear(hyper_units, GATES * embedding)
        self.embed_x = nn.Linear(hyper_units, GATES * embedding)
        self.embed_b = nn.Linear(hyper_units, GATES * embedding, bias=False)
        self.scale_h = nn.Parameter(torch.full((GATES, embedding, units), START_OF_SCALES / embedding))
        self.scale_x = nn.Parameter(torch.full((GATES, embedding, units), START_OF_SCALES / embedding))
        self.shift = nn.Parameter(torch.zeros(GATES, embedding, units))
        self.from_h = nn.Linear(units, GATES * units, bias=False)
        self.from_x = nn.Linear(inputs, GATES * units, bias=False)
        self.bias = nn.Parameter(torch.zeros(GATES, units))
        self.gates = _Gates(units, layer_norm, drop_rate)
        self._init_weights()

    def _init_weights(self) -> None:
        for layer in (self.hyper, self.from_h, self.from_x):
            for gate in layer.weight.chunk(GATES):
                nn.init.orthogonal_(gate)
        for layer in (self.embed_h, self.embed_x):
            nn.init.zeros_(layer.weight)
            nn.init.ones_(layer.bias)
        nn.init.normal_(self.embed_b.weight, std=0.01)
        nn.init.zeros_(self.hyper.bias)

    def forward(self, x: Tensor, state: State) -> State:
        """Input (N, inputs) and state to the new state, the first part of which is the output (N, units)."""
        h, cell, hyper_h, hyper_cell = state
        hyper_h, hyper_cell = self.hyper_gates(_by_gate(self.hyper(torch.cat([h, x, hyper_h], 1))), hyper_cell)
        from_h = _per_unit(self.embed_h(hyper_h), self.scale_h) * _by_gate(self.from_h(h))
        from_x = _per_unit(self.embed_x(hyper_h), self.scale_x) * _by_gate(self.from_x(x))
        shift = _per_unit(self.embed_b(hyper_h), self.shift)
        h, cell = self.gates(from_h + from_x + shift + self.bias, cell)
        return h, cell, hyper_h, hyper_cell


def _by_gate(sums: Tensor) -> Tensor:
    """(N, 4 units) to (N, 4, units)."""
    return sums.unflatten(1, (GATES, -1))


def _per_unit(embeddings: Tensor, weight: Tensor) -> Tensor:
    """Embeddings (N, 4 N_z) and weights (4, N_z, units) to one number per gate and unit, (N, 4, units)."""
    return torch.einsum("ngz,gzu->ngu", _by_gate(embeddings), weight)
