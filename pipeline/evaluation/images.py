"""From the tiles of the camera to the samples that are judged: the network's predictions and the forest's."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.camera.baselines import FOREST_COLUMNS, Forest, Sample, train_forest
from pipeline.config import Config
from pipeline.errors import TooFewEventsError, UserError
from pipeline.evaluation.comparison import COMBINED, NETWORK
from pipeline.evaluation.energy import EnergySample, evaluate_energy
from pipeline.evaluation.gammaness import GammanessSample, evaluate_gammaness
from pipeline.evaluation.result import Predicts, Result
from pipeline.tiles.reader import TileReader

if TYPE_CHECKING:
    from astropy.table import Table

GAMMA = 0  # CORSIKA's and ctapipe's number of the primary
FOREST = "forest"
_IDENTITY = ("obs_id", "event_id", "tel_id", "shower_id")
_TRUTH = ("true_energy_tev", "true_primary_id")


def reader_of(task: str, manifests: Sequence[Any], split: str) -> TileReader:
    """Tiles of one split, chosen and weighted as in training: energy sees gammas alone, with their own spectrum.

    Raises
    ------
    UserError
        If the tiles are not of a camera or carry no truth.
    """
    reader = TileReader(manifests, split)
    if reader.wing != "camera":
        raise UserError(f"the manifests hold {reader.wing} tiles, but {task} is judged on camera tiles")
    missing = [name for name in _TRUTH if reader.columns and name not in reader.columns]
    if missing:
        raise UserError(f"the tiles have no truth ({', '.join(missing)}); {task} can be judged on simulated tiles only")
    if task == "energy":
        reader.close()
        return TileReader(manifests, split, where={"true_primary_id": GAMMA}, equalise=False)
    return reader


def evaluate_camera(
    task: Literal["energy", "gammaness"], predictor: Predicts, manifests: Sequence[Any], cfg: Config
) -> Result:
    """Judge a camera network beside the forest on the test split.

    Parameters
    ----------
    task : {"energy", "gammaness"}
    predictor : Predicts
    manifests : sequence of path or Manifest
    cfg : Config

    Raises
    ------
    UserError
        If the tiles carry no truth, or a split has too few images.
    """
    reader = reader_of(task, manifests, "test")
    if reader.n_tiles == 0:
        raise TooFewEventsError("the test split has no image; enlarge tiles.splits.test or simulate more runs")
    predicted = _predict(predictor, reader)
    events = reader.events()
    forest = _forest(task, manifests, cfg)
    baseline = forest.predict(events)
    if task == "energy":
        methods = _joined(np.log10(predicted["reco_energy_tev"]), baseline)
        reco_tev = {method: 10.0**values for method, values in methods.items()}
        sample = EnergySample(
            events["true_energy_tev"], reco_tev, predicted["reco_energy_uncert_tev"], events["weights"], events["group"]
        )
        result = evaluate_energy(sample, cfg.evaluate, seed=cfg.seed)
        columns = {f"reco_energy_tev_{method}": values for method, values in reco_tev.items()}
        columns["reco_energy_uncert_tev_network"] = predicted["reco_energy_uncert_tev"]
    else:
        scores = _joined(predicted["gammaness"], baseline)
        sample = GammanessSample(
            events["true_primary_id"] == GAMMA, scores, events["weights"], events["group"],
            events["true_energy_tev"], events["hillas_intensity"],
        )  # fmt: skip
        result = evaluate_gammaness(sample, cfg.evaluate, seed=cfg.seed)
        columns = {f"gammaness_{method}": values for method, values in scores.items()}
    facts = {"n": reader.n_tiles, "n_weighted": int(np.count_nonzero(events["weights"])), "n_groups": reader.n_groups}
    return Result(
        content=dict(result.content) | {"data": facts},
        bins=result.bins,
        tables=dict(result.tables) | {"predictions": _predictions_table(reader, events, columns)},
        figures=result.figures,
        baseline_settings={FOREST: forest.settings},
    )


def _predict(predictor: Predicts, reader: TileReader) -> dict[str, np.ndarray]:
    """The network's columns for all tiles of `reader`; one chunk of tiles is in memory at a time."""
    parts = [predictor.predict(batch) for batch in reader.sequential()]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _joined(network: np.ndarray, forest: np.ndarray) -> dict[str, np.ndarray]:
    """All methods; the mean of both shows what one knows and the other does not."""
    return {NETWORK: network, FOREST: forest, COMBINED: (network + forest) / 2}


def _forest(task: Literal["energy", "gammaness"], manifests: Sequence[Any], cfg: Config) -> Forest:
    samples = []
    for split in ("train", "validation"):
        with_truth = reader_of(task, manifests, split)
        if with_truth.n_tiles == 0:
            raise TooFewEventsError(f"the {split} split has no image; the forest needs it: see tiles.splits")
        events = with_truth.events([*FOREST_COLUMNS, *_TRUTH])
        with_truth.close()
        keep = _whole_groups(events["group"], cfg.evaluate.max_baseline_images, cfg.seed)
        events = {name: column[keep] for name, column in events.items()}
        energy = task == "energy"
        target = np.log10(events["true_energy_tev"]) if energy else (events["true_primary_id"] == GAMMA).astype(float)
        samples.append(Sample(events, target, events["weights"]))
    return train_forest(task, *samples, n_trees=cfg.evaluate.forest_trees, seed=cfg.seed, threads=cfg.threads)


def _whole_groups(group: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """At most `limit` images, as whole showers drawn at random: a selection (n,) bool."""
    if len(group) <= limit:
        return np.ones(len(group), bool)
    names, sizes = np.unique(group, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.isin(group, names[order[np.cumsum(sizes[order]) <= limit]])


def _predictions_table(
    reader: TileReader, events: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]
) -> "Table":
    """One row per test image: where it comes from, what is true, what each method says."""
    from astropy.table import Table

    source = np.array(reader.sources)[events["source_index"]]
    identity = {name: events[name] for name in _IDENTITY if name in events}
    truth = {name: events[name] for name in _TRUTH}
    return Table(
        {
            "source": source,
            **identity,
            **truth,
            "hillas_intensity": events["hillas_intensity"],
            "weight": events["weights"],
        }
        | columns,
        units=_units(columns),
    )


def _units(columns: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: "TeV" for name in ("true_energy_tev", *columns) if "energy" in name}
