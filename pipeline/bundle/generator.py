"""A bundle that generates images: its card, its graph, and draws from it. No torch."""

from pathlib import Path
from typing import Self

import numpy as np

from pipeline.bundle.backends import Backend, candidates, open_graph
from pipeline.bundle.card import ONNX_FILE, Card, load_bundle_card, resolve_bundle
from pipeline.bundle.files import check_bundle
from pipeline.errors import InputFileError, UserError
from pipeline.inputs.shower_frame import Maps, ShowerFrameInput, Spreads

_MAX_IMAGES = 64
_N_MAPS = 5  # share, time, concentration, and the same everywhere: two spreads of times


class ImageGenerator:
    """Maps of photo-electrons from conditions.

    Parameters
    ----------
    card : Card
    backend : Backend
        Of its graph.

    Attributes
    ----------
    conditions : ShowerFrameInput
        What images may be asked for, and how the network is told.
    """

    def __init__(self, card: Card, backend: Backend) -> None:
        self.card, self.backend = card, backend
        self.conditions: ShowerFrameInput = card.input.preparation
        self._latent = backend.inputs["noise"][1]

    @classmethod
    def load(cls, path: str | Path, threads: int = 2) -> Self:
        """Open the bundle in directory `path`.

        Raises
        ------
        UserError
            If there is no such bundle, or it generates nothing.
        InputFileError
            If it is incomplete, or not the one that its card was written for.
        """
        directory = resolve_bundle(path)
        card = load_bundle_card(directory)
        if not card.generates:
            raise UserError(
                f"{card.name} generates no images (its tasks: {', '.join(card.tasks)}); give a bundle of the task "
                "generation"
            )
        check_bundle(directory, card)
        (name, *_) = candidates("onnxruntime", card.wing)
        backend = open_graph(directory / ONNX_FILE, threads, name)
        if set(backend.inputs) != {"noise", "scalars"}:
            raise InputFileError(
                f"{directory / ONNX_FILE} takes {', '.join(backend.inputs)}, and a generator takes noise and scalars; "
                "copy the bundle again"
            )
        return cls(card, backend)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Identities of the cameras served."""
        return tuple(camera.identity for camera in self.card.cameras)

    @property
    def size_px(self) -> int:
        """Rows and columns of a map."""
        return self.card.input.tile_shape[0]

    def check_serves(self, camera_identity: str, name: str) -> None:
        """Refuse a camera whose images the bundle was not trained on.

        Raises
        ------
        UserError
        """
        if camera_identity not in self.cameras:
            names = ", ".join(camera.name for camera in self.card.cameras)
            raise UserError(
                f"{self.card.name} generates images of {names} ({', '.join(self.cameras)}), and the "
                f"telescope {name} has the camera {camera_identity}; set showers.telescope, or take the geometry of "
                "the files that it was trained on (showers.geometry_files)"
            )

    def maps(self, primary_id: np.ndarray, conditions: np.ndarray, rng: np.random.Generator) -> Maps:
        """Where the photo-electrons of `N` images shall be, and when.

        Parameters
        ----------
        primary_id : ndarray of int, shape (N,)
        conditions : ndarray, shape (N, 5)
            `pipeline.inputs.shower_frame.CONDITIONS`.
        rng : numpy.random.Generator

        Raises
        ------
        InputFileError
            If the graph is that of an older network.
        """
        scalars = self.conditions.scalars(primary_id, conditions)
        noise = rng.standard_normal((len(scalars), self._latent), np.float32)
        found = Maps(
            *np.empty((2, len(scalars), self.size_px, self.size_px), np.float32),
            Spreads(
                np.empty((len(scalars), self.size_px, self.size_px), np.float32),
                *np.empty((2, len(scalars)), np.float32),
            ),
        )
        for start in range(0, len(scalars), _MAX_IMAGES):
            here = slice(start, start + _MAX_IMAGES)
            made = self.backend.run({"noise": noise[here], "scalars": scalars[here]})
            if made.shape[1] != _N_MAPS:
                raise InputFileError(
                    f"the graph of {self.card.name} gives {made.shape[1]} maps of an image, and {_N_MAPS} are needed "
                    "since the spread of arrival times is learnt; train the generator again"
                )
            found.share[here], found.time_ns[here], found.spreads.concentration[here] = made[:, :3].swapaxes(0, 1)
            found.spreads.pixel_ns[here], found.spreads.electron_ns[here] = made[:, 3:, 0, 0].T
        return found
