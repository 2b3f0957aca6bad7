"""Photo-electrons of a shower in its own frame, and the conditions that a generated image shall meet.

The conditions are the class of the primary, its energy, the impact distance, where the camera's centre lies in the
frame (what of the shower the camera sees), and the photo-electrons in the image. New ones are drawn from those of the
training images, each moved a little: a smoothed bootstrap [1]_. Their density is thus that of images that
triggered, and nothing about it has to be assumed.

References
----------
.. [1] Silverman (1986), "Density estimation for statistics and data analysis", section 6.4.1: a normal kernel of the
   shape of the sample's covariance, and the variance kept (Eq. 6.14).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field

from pipeline.directions import centre_from_source, core_direction_rad
from pipeline.errors import TooFewEventsError, UserError
from pipeline.inputs.base import Input
from pipeline.inputs.image import ImageRecipe, ScalarStatistics
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch

if TYPE_CHECKING:
    from pipeline.config import CameraTilesConfig

#: Conditions besides the class of the primary, in the order of the scalars.
CONDITIONS = ("log10_energy_tev", "impact_m", "centre_along_deg", "centre_across_deg", "log10_true_size_pe")
_COLUMNS = (
    "true_primary_id", "true_energy_tev", "true_impact_m", "true_fov_lon_deg", "true_fov_lat_deg", "true_core_x_m",
    "true_core_y_m", "true_alt_deg", "true_az_deg", "tel_x_m", "tel_y_m", "tel_z_m", "pointing_alt_deg",
    "pointing_az_deg",
)  # fmt: skip
_MOST_ROWS = 5000  # of each class in the sample
_FEWEST_ROWS = 200
_FEWEST_DRAWN = 100  # from a range of energies
# Width of the kernel in standard deviations: no two images share their conditions, and thresholds stay where they are.
_KERNEL = 0.1
_DIGITS = 4


class Spreads(NamedTuple):
    """How light scatters about maps, float32.

    Attributes
    ----------
    concentration : ndarray, shape (N, H, W)
        The light of a pixel follows a gamma distribution whose shape is this times the expected share.
    pixel_ns, electron_ns : ndarray, shape (N,)
        Standard deviations of the mean arrival times of pixels, which add up: of all pixels, and one that falls with
        the square root of the photo-electrons in the pixel.
    """

    concentration: np.ndarray
    pixel_ns: np.ndarray
    electron_ns: np.ndarray


class Maps(NamedTuple):
    """Where the photo-electrons of images are and when they come, in the frame of their shower.

    Attributes
    ----------
    share, time_ns : ndarray, shape (N, H, W)
        How the light is spread over the cells, and its mean arrival time.
    spreads : Spreads, optional
        None: these are maps of images that were measured, in which all has scattered already.
    """

    share: np.ndarray
    time_ns: np.ndarray
    spreads: Spreads | None = None


class ShowerFrameRecipe(ImageRecipe):
    """A recipe of tiles in the frame of the shower (`pipeline.camera.shower_frame`), of images that pass the cuts."""

    frame: Literal["shower"]

    @classmethod
    def of(cls, tiles: "CameraTilesConfig") -> Self:
        """The recipe of a configuration."""
        return cls(**ImageRecipe.of(tiles).model_dump(), frame="shower")


def recipe_of(tiles: "CameraTilesConfig") -> ImageRecipe:
    """The recipe that a configuration asks for."""
    return (ShowerFrameRecipe if tiles.frame == "shower" else ImageRecipe).of(tiles)


def restore_recipe(content: Mapping[str, Any] | None) -> ImageRecipe:
    """The recipe that a shard or a card holds, of either kind."""
    return (ShowerFrameRecipe if "frame" in (content or {}) else ImageRecipe).model_validate(content)


class ShowerFrameInput(Input):
    """Images in the frame of their shower, with their conditions.

    Attributes
    ----------
    classes : tuple of int
        CORSIKA-like ids of the primaries in the training images (0 gamma, 101 proton), rising.
    statistics : tuple of ScalarStatistics
        How the conditions are standardised.
    sample : mapping
        Class (as text) -> conditions of some of its training images, one row of `CONDITIONS` each.
    """

    wing: ClassVar[Literal["camera"]] = "camera"
    takes: ClassVar[Literal["image"]] = "image"
    raw_channels: ClassVar[tuple[str, ...]] = ("true_pe", "peak_time", "timed", "pixel_256s", "pixel_rest")
    generates: ClassVar[bool] = True
    may_move: ClassVar[bool] = False

    kind: str = "shower_frame"
    version: Literal[1] = 1
    classes: tuple[int, ...] = Field(min_length=1)
    statistics: tuple[ScalarStatistics, ...]
    sample: Mapping[str, tuple[tuple[float, ...], ...]]

    @classmethod
    def fit(
        cls,
        reader: TileReader,
        scalars: Sequence[str] = (),
        *,
        axis_maps: bool = False,
        validation: TileReader | None = None,
    ) -> Self:
        """Take classes, statistics and sample from the training split.

        Raises
        ------
        UserError
            If the tiles are not in the frame of the shower, or scalars are asked for.
        TooFewEventsError
            If a class has too few images.
        """
        if scalars:
            raise UserError(f"the input shower_frame has its own conditions: remove the scalars {', '.join(scalars)}")
        cls.check_channels(reader)
        parts = [(batch.events["true_primary_id"], conditions(batch)) for batch in reader.sequential(_COLUMNS)]
        primary, values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        sample = {}
        for number in np.unique(primary).tolist():
            rows = np.flatnonzero((primary == number) & np.isfinite(values).all(axis=1))
            if len(rows) < _FEWEST_ROWS:
                raise TooFewEventsError(
                    f"the training split has {len(rows)} images of the primary {number}; a network that generates "
                    f"images needs at least {_FEWEST_ROWS} of each"
                )
            # Evenly over the order of the shards: all runs take part, and equal tiles give an equal sample.
            rows = rows[np.linspace(0, len(rows) - 1, min(_MOST_ROWS, len(rows))).astype(int)]
            sample[str(number)] = [[float(f"{value:.{_DIGITS}g}") for value in row] for row in values[rows]]
        return cls(
            classes=tuple(int(number) for number in sample),
            statistics=tuple(
                ScalarStatistics(name=name, mean=float(column.mean()), std=float(column.std()) or 1.0)
                for name, column in zip(CONDITIONS, values[np.isfinite(values).all(axis=1)].T, strict=True)
            ),
            sample=sample,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Event columns that the conditions are computed from."""
        return _COLUMNS

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The raw ones: the network prepares them."""
        return self.raw_channels

    @property
    def scalar_names(self) -> tuple[str, ...]:
        """The conditions, and one number for each class if there are several."""
        names = tuple(f"is_{number}" for number in self.classes) if len(self.classes) > 1 else ()
        return (*names, *CONDITIONS)

    def arrays(self, batch: TileBatch, channels: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """`images`, shape (N, 5, H, W), and `scalars`, the standardised conditions, shape (N, S); float32."""
        planes = self.planes(batch.images, channels)
        images = np.stack([planes[name] for name in self.raw_channels], axis=1).astype(np.float32)
        return {"images": images, "scalars": self.scalars(batch.events["true_primary_id"], conditions(batch))}

    def scalars(self, primary_id: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Classes and standardised conditions, shape (N, S), float32.

        Parameters
        ----------
        primary_id : ndarray of int, shape (N,)
        values : ndarray, shape (N, 5)
            `CONDITIONS`.
        """
        means, stds = (np.array([getattr(entry, key) for entry in self.statistics]) for key in ("mean", "std"))
        standardised = (values - means) / stds
        if len(self.classes) > 1:
            standardised = np.hstack([primary_id[:, None] == np.array(self.classes), standardised])
        return standardised.astype(np.float32)

    def _known(self, primary_id: int) -> np.ndarray:
        if primary_id not in self.classes:
            raise UserError(
                f"the model was not trained on the primary {primary_id}; it has {', '.join(map(str, self.classes))}"
            )
        return np.array(self.sample[str(primary_id)])

    def energy_range_tev(self, primary_id: int) -> tuple[float, float]:
        """Lowest and highest energy of the training images of a primary, in the sample."""
        energies = self._known(primary_id)[:, 0].tolist()
        return 10 ** min(energies), 10 ** max(energies)

    def draw(
        self,
        n: int,
        rng: np.random.Generator,
        primary_id: int,
        energy_range_tev: tuple[float | None, float | None] = (None, None),
    ) -> np.ndarray:
        """New conditions of `n` images, shape (n, 5), distributed as those of the training images.

        Raises
        ------
        UserError
            If the training images have no such primary, or too few at these energies.
        """
        rows = self._known(primary_id)
        low, high = (
            np.log10(edge) if edge else default for edge, default in zip(energy_range_tev, (-9, 9), strict=True)
        )
        inside = rows[(rows[:, 0] >= low) & (rows[:, 0] <= high)]
        if len(inside) < _FEWEST_DRAWN:
            raise UserError(
                f"the model knows {len(inside)} training images of the primary {primary_id} from {10**low:.3g} to "
                f"{10**high:.3g} TeV, and needs {_FEWEST_DRAWN}; widen the range"
            )
        centre, spread = inside.mean(axis=0), inside.std(axis=0)
        # Along the directions in which the conditions vary together: size follows energy.
        covariance = np.cov(inside.T) + np.diag(1e-12 * np.maximum(spread, 1e-6) ** 2)
        moved = inside[rng.integers(len(inside), size=n)] + _KERNEL * rng.multivariate_normal(
            np.zeros(len(CONDITIONS)), covariance, n
        )
        drawn = centre + (moved - centre) / np.sqrt(1 + _KERNEL**2)
        drawn[:, 1], drawn[:, 3] = np.abs(drawn[:, 1]), np.abs(drawn[:, 3])  # distances
        drawn[:, 0] = np.clip(drawn[:, 0], max(low, rows[:, 0].min()), min(high, rows[:, 0].max()))
        drawn[:, 4] = np.maximum(drawn[:, 4], rows[:, 4].min())
        return drawn


def conditions(batch: TileBatch) -> np.ndarray:
    """`CONDITIONS` of tiles in the frame of their showers, shape (N, 5), float64; NaN where something is unknown."""
    events = batch.events
    source = events["true_fov_lon_deg"], events["true_fov_lat_deg"]
    along, across = centre_from_source(*source, core_direction_rad(events))
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = np.log10(events["true_energy_tev"])
    # All the light of a few images is beside their tile.
    size = np.log10(np.maximum(batch.images[:, 0].sum((1, 2), dtype=np.float64), 1.0))
    return np.column_stack([energy, events["true_impact_m"], along, np.abs(across), size])


INPUT = ShowerFrameInput
