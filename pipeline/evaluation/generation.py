"""Generated camera images beside simulated ones of the same showers: the sample that a judge looks at.

For each simulated image of the test split, one is generated under the same conditions, lies in the camera in the same
way, and goes through the same electronics and cuts. The baseline does so with the training image whose conditions are
nearest: a generator that is not better than a copy is not worth its training. The photo-electrons of the simulated
images themselves are recorded once more, too: the simulated images are those that triggered and passed the cuts, which
not all do again, so that this is what a perfect generator of these tiles would reach. What a tile cuts off, it does not
have either.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.bundle.generator import ImageGenerator
from pipeline.camera.baselines import FOREST_COLUMNS, forest_features
from pipeline.camera.generated import CameraReadout, Light, Recorded, light_of_maps
from pipeline.camera.shower_frame import Orientation, ShowerFrame, shower_frame
from pipeline.camera.task_tiles import reader_of, whole_groups
from pipeline.camera.telescopes import Telescope, get_telescope
from pipeline.camera.tiling import PARAMETER_COLUMNS, fails_cuts
from pipeline.config import CleaningConfig, Config
from pipeline.errors import TooFewEventsError, UserError
from pipeline.evaluation.comparison import NETWORK
from pipeline.inputs.image import ImageRecipe
from pipeline.inputs.shower_frame import Maps, conditions, restore_recipe
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch

NEAREST, AGAIN = "nearest", "again"
#: No more simulated images are compared, and no more training images are looked through for equal ones.
MOST_IMAGES, MOST_NEIGHBOURS = 10_000, 100_000
_FEWEST_IMAGES = 100
_FAINTEST, _BRIGHTEST = 0.3, 0.98  # of the images that are shown, as ranks of their size
_MOST_ASKED = 1000  # images whose nearest neighbours are looked for
_COARSE = 4  # cells, along each side, that are added up before images are compared for memory


@dataclass(frozen=True)
class GeneratedSample:
    """Simulated images of the test split, and their counterparts by method.

    Attributes
    ----------
    events : mapping
        Columns of the simulated images, shape (N,).
    conditions : ndarray, shape (N, 5)
    simulated : ndarray, shape (N, n_features)
        Image parameters as forests see them.
    generated : mapping
        Method -> the same of its images; NaN in rows of images that do not trigger or fail the cuts.
    drawn : ndarray, shape (N, 5)
        New conditions, as `lightpool simulate images` draws them.
    shown : ndarray of int, shape (n,)
        Some images to look at, from faint to bright.
    images : mapping
        Method -> what its camera recorded of these.
    neighbour_distances : mapping
        Method, and "simulation" for the test images themselves -> distances of some of its images to the most alike of
        the training images, and to the most alike of test images of other showers, shape (2, n).
    telescope : Telescope
    n_groups : int
    n_training : int
        Training images that the nearest ones are chosen from.
    """

    events: Mapping[str, np.ndarray]
    conditions: np.ndarray
    simulated: np.ndarray
    generated: Mapping[str, np.ndarray]
    drawn: np.ndarray
    shown: np.ndarray
    images: Mapping[str, Recorded]
    neighbour_distances: Mapping[str, np.ndarray]
    telescope: Telescope
    n_groups: int
    n_training: int


def generated_sample(
    spec: TaskSpec, predictor: ImageGenerator, manifests: Sequence[Any], cfg: Config, n_shown: int
) -> GeneratedSample:
    """Generate a counterpart of each simulated image of the test split, by the network and by the baseline.

    Raises
    ------
    UserError
        If the tiles carry no truth, or are of another camera than the configured telescope's.
    TooFewEventsError
        If a split has too few images.
    """
    if len(cfg.showers.places) > 1:
        raise UserError("generated images are judged for one telescope; set showers.telescope instead of an array")
    (place,) = cfg.showers.places
    telescope = get_telescope(place.type, cfg.showers.geometry_files.get(place.type))
    predictor.check_serves(telescope.camera.identity, telescope.name)
    test = _held_out(spec, predictor, manifests, cfg)
    recipe = restore_recipe(predictor.card.input.recipe)
    levels = CleaningConfig(
        picture_pe=recipe.picture_pe,
        boundary_pe=recipe.boundary_pe,
        min_picture_neighbors=recipe.min_picture_neighbors,
    )
    readout = CameraReadout(telescope, cfg.showers.camera, 1, cfg.seed, levels)
    orientation, wanted = Orientation.of_events(test.events), conditions(test)
    primary = test.events["true_primary_id"].astype(np.int64)
    size_pe = 10 ** wanted[:, -1]
    rng = np.random.default_rng([cfg.seed, 1])
    training = _Training(spec, predictor, manifests)
    maps = {
        NETWORK: predictor.maps(primary, wanted, rng),
        NEAREST: training.nearest(primary, wanted),
    }
    frame = shower_frame(telescope.camera, predictor.size_px)
    pixels = frame.pixels(orientation)
    shown = np.argsort(size_pe)[(np.linspace(_FAINTEST, _BRIGHTEST, n_shown) * (len(size_pe) - 1)).astype(int)]
    generated, images = {}, {}
    coarse = _coarse(test.images[:, 0])
    neighbours = _Neighbours(training.coarse, coarse, test.group)
    distances = {"simulation": neighbours.distances(coarse)}

    def lights() -> Iterator[tuple[str, Light]]:  # one after the other: each takes as much memory as all tiles
        for method, own in maps.items():
            light = light_of_maps(telescope.camera, own, orientation, size_pe, rng)
            distances[method] = neighbours.distances(_coarse(frame.spread(light.n_pe, pixels)))
            yield method, light
        yield AGAIN, _light_of_tiles(test.images, frame, pixels)

    for method, light in lights():
        generated[method] = _features(readout.record(light, rng), recipe, len(wanted))
        images[method] = readout.record(Light(*(part[shown] for part in light)), np.random.default_rng(cfg.seed))
    return GeneratedSample(
        events=test.events | {"group": test.group},
        conditions=wanted,
        simulated=forest_features(test.events),
        generated=generated,
        drawn=np.concatenate([_drawn(predictor, primary, number, rng) for number in np.unique(primary).tolist()]),
        shown=shown,
        images=images,
        neighbour_distances=distances,
        telescope=telescope,
        n_groups=len(np.unique(test.group)),
        n_training=len(training),
    )


def _light_of_tiles(images: np.ndarray, frame: ShowerFrame, pixels: np.ndarray) -> Light:
    """The photo-electrons of simulated images, as they were."""
    charge, time, timed = (images[:, channel].astype(np.float32) for channel in range(3))
    n_pe = frame.gather(charge, pixels)
    moment = frame.gather(charge * time * timed, pixels)
    return Light(np.rint(n_pe).astype(np.int64), moment / np.maximum(n_pe, 1e-6))


def _drawn(predictor: ImageGenerator, primary: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    return predictor.conditions.draw(int((primary == number).sum()), rng, number)


def _held_out(spec: TaskSpec, predictor: ImageGenerator, manifests: Sequence[Any], cfg: Config) -> TileBatch:
    """Tiles of whole showers of the test split, at most `MOST_IMAGES`."""
    reader = reader_of(spec, manifests, "test", TileReader, predictor.cameras)
    keep = whole_groups(reader.events(["true_primary_id"])["group"], MOST_IMAGES, cfg.seed)
    if keep.sum() < _FEWEST_IMAGES:
        raise TooFewEventsError(
            f"the test split has {keep.sum()} images to compare generated ones with; at least {_FEWEST_IMAGES} are "
            "needed: enlarge tiles.splits.test or simulate more runs"
        )
    columns = dict.fromkeys([*predictor.conditions.columns, *FOREST_COLUMNS])
    parts, start = [], 0
    for batch in reader.sequential(columns):
        parts.append(batch.select(keep[start : start + len(batch)]))
        start += len(batch)
    reader.close()
    return TileBatch.concatenate([part for part in parts if len(part)])


class _Training:
    """The training images: their conditions in memory, their tiles read again when they are needed.

    Attributes
    ----------
    coarse : ndarray, shape (n, K)
        Some of the images, evenly over all; see `_coarse`.
    """

    def __init__(self, spec: TaskSpec, predictor: ImageGenerator, manifests: Sequence[Any]) -> None:
        self._reader = reader_of(spec, manifests, "train", TileReader, predictor.cameras)
        self._columns, self._predictor = predictor.conditions.columns, predictor
        n = len(self._reader)
        compared = np.isin(np.arange(n), np.linspace(0, n - 1, min(n, MOST_NEIGHBOURS)).astype(int))
        parts, start = [], 0
        for batch in self._reader.sequential(self._columns):
            chosen = batch.images[compared[start : start + len(batch)], 0]
            parts.append((batch.events["true_primary_id"], conditions(batch), _coarse(chosen)))
            start += len(batch)
        self._primary, self._conditions, self.coarse = (np.concatenate(columns) for columns in zip(*parts, strict=True))

    def __len__(self) -> int:
        return len(self._primary)

    def nearest(self, primary: np.ndarray, wanted: np.ndarray) -> Maps:
        """Maps of the training images whose conditions are nearest, in standard deviations."""
        from scipy.spatial import cKDTree

        spread = np.array([entry.std for entry in self._predictor.conditions.statistics])
        row = np.empty(len(wanted), np.int64)
        for number in np.unique(primary):
            own, asked = np.flatnonzero(self._primary == number), primary == number
            _, place = cKDTree(self._conditions[own] / spread).query(wanted[asked] / spread)
            row[asked] = own[place]
        tiles = self._tiles(np.unique(row))
        place = np.searchsorted(np.unique(row), row)
        light, time, timed = (tiles[:, channel].astype(np.float32)[place] for channel in range(3))
        return Maps(light / np.maximum(light.sum((1, 2), keepdims=True), 1e-6), time * timed)

    def _tiles(self, rows: np.ndarray) -> np.ndarray:
        parts, start = [], 0
        for batch in self._reader.sequential(()):
            parts.append(batch.images[rows[(rows >= start) & (rows < start + len(batch))] - start])
            start += len(batch)
        return np.concatenate(parts)


class _Neighbours:
    """The training images, and those of the test split that are of the half of its showers that is not asked about.

    Images that were made from what was learnt, and not remembered, are as often nearer to the training images as
    simulated ones are (Meehan, Chaudhuri & Dasgupta 2020, arXiv:2004.05675).
    """

    def __init__(self, training: np.ndarray, test: np.ndarray, group: np.ndarray) -> None:
        asked = np.unique(group, return_inverse=True)[1] % 2 == 0
        self._known = training, test[~asked]
        rows = np.flatnonzero(asked)
        self._asked = rows[np.linspace(0, len(rows) - 1, min(_MOST_ASKED, len(rows))).astype(int)]

    def distances(self, coarse: np.ndarray) -> np.ndarray:
        """Of some of the images to the nearest training and test image, (2, n)."""
        return np.stack([_distances(coarse[self._asked], images) for images in self._known])


def _features(recorded: Recorded, recipe: ImageRecipe, n: int) -> np.ndarray:
    """What forests see of the images that pass the cuts, in the rows of those that they were made for; else NaN."""
    passed = recorded.parameters["morphology_n_pixels"] > 0
    passed &= ~np.any(fails_cuts(recorded.parameters, recipe), axis=0)
    events = {PARAMETER_COLUMNS[name]: column for name, column in recorded.parameters.items()}
    found = forest_features(events)
    features = np.full((n, found.shape[1]), np.nan, np.float32)
    features[recorded.kept[passed]] = found[passed]
    return features


def _coarse(cells: np.ndarray) -> np.ndarray:
    """Images for a comparison pixel by pixel: cells added up, square roots (whose shot noise is equal), (N, K)."""
    n, height, width = cells.shape
    blocks = cells.astype(np.float32).reshape(n, height // _COARSE, _COARSE, width // _COARSE, _COARSE).sum((2, 4))
    return np.sqrt(np.maximum(blocks, 0)).reshape(n, -1)


def _distances(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Euclidean distance of images to the nearest known one, (n,)."""
    squares = (known**2).sum(1)
    blocks = np.array_split(images, max(1, len(images) // 100))
    nearest = [(squares - 2 * block @ known.T).min(1) + (block**2).sum(1) for block in blocks]
    return np.sqrt(np.maximum(np.concatenate(nearest), 0))
