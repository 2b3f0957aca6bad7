"""Images in an LST: size against energy, Hillas parameters, time gradient, and their separation by a forest.

Compared with those of prod3b, the third production of the Cherenkov Telescope Array: a table of image parameters
without images. Its telescopes detect more of the light (mirrors as new), so sizes are compared, not energies.
"""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline import statistics
from pipeline.camera.baselines import FOREST_COLUMNS, Sample, train_forest
from pipeline.camera.showers.generate import BlockMaker, showers_per_block
from pipeline.camera.showers.optics import horizontal_basis
from pipeline.camera.showers.primaries import pointing
from pipeline.camera.showers.validation.rows import Reference, Row, compared
from pipeline.config import CleaningConfig, ShowerClass, ShowersConfig
from pipeline.errors import InputFileError
from pipeline.tiles.raking import equalise

TABLE_FILE = "camera/tables/lste_ctapipe_diffuse_dl2_tiny.h5"
TABLE_DEG_PER_M = math.degrees(1 / 28.0)
SITE = {"zenith_deg": 20.0, "azimuth_deg": 0.0, "positions_per_shower": 10}
SPECTRAL_INDEX = -1.8  # flatter than the table's -2: more of the rare bright showers
GAMMAS = ShowerClass(
    particle="gamma", runs=1, energy_min_tev=0.03, energy_max_tev=8.0, spectral_index=SPECTRAL_INDEX,
    scatter_radius_m=250.0, viewcone_deg=3.0,
)  # fmt: skip
PROTONS = GAMMAS.model_copy(update={"particle": "proton", "energy_max_tev": 15.0})
SIZE_EDGES_PE = np.array([50, 100, 200, 400, 800, 1600, 3200, 6400.0])
MIDDLE_SIZES_PE = (500, 1600)
MAX_OFFSET_DEG = 2.0
MAX_LEAKAGE = 0.2
IMPACT_EDGES_M = np.arange(0, 301, 40.0)
ENERGY_EDGES_TEV = np.geomspace(0.02, 8, 11)
SIZE_POWER = (1.0, 1.1)
WIDTH_RATIO = (1.45, 2.0)  # prod3b 1.55
FOREST_AUC = (0.75, 0.90)
FOREST_SIZE_PE = 100
N_BOOTSTRAP = 200
_SHORT = {"n_islands": "morphology_n_islands", "n_pixels": "morphology_n_pixels"}


def simulate_images(shower_class: ShowerClass, n_showers: int, seed: int) -> dict[str, np.ndarray]:
    """Parameters and truth of the images that trigger an LST.

    Returns
    -------
    dict of ndarray, shape (n_images,)
        Columns of `pipeline.camera.hillas.PARAMETERS`, of the truth, and ``true_pe``, ``offset_deg``,
        ``gradient_ns_deg`` (time gradient along the image's axis, away from the source).
    """
    cfg = ShowersConfig(classes=(shower_class.model_copy(update={"showers_per_run": n_showers}),), **SITE)
    maker = BlockMaker(cfg, 1, seed, CleaningConfig())
    parts: list[dict[str, np.ndarray]] = []
    for first in range(1, n_showers + 1, showers_per_block(cfg)):
        block = maker(range(first, min(first + showers_per_block(cfg), n_showers + 1)))
        (chunk,) = block.chunks
        if len(chunk.event_id):
            parts.append({**chunk.parameters, **chunk.truth, "true_pe": chunk.true_image.sum(axis=1)})
    images = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    axis, up, east = horizontal_basis(*pointing(cfg))
    alt, az = np.radians(images["true_alt_deg"]), np.radians(images["true_az_deg"])
    source = np.column_stack([np.cos(alt) * np.cos(az), -np.cos(alt) * np.sin(az), np.sin(alt)])
    along = source @ np.array(axis)
    images["offset_deg"] = np.degrees(np.arccos(np.clip(along, -1, 1)))
    images["gradient_ns_deg"] = outward_gradient(
        images["timing_slope"], np.radians(images["hillas_psi"]),
        images["hillas_fov_lon"] - np.degrees(source @ np.array(east) / along),
        images["hillas_fov_lat"] - np.degrees(source @ np.array(up) / along),
    )  # fmt: skip
    return images


def outward_gradient(slope: np.ndarray, psi_rad: np.ndarray, from_source_x: np.ndarray, from_source_y: np.ndarray):
    """The time gradient along the axis of an image, counted away from the source.

    Parameters
    ----------
    slope : ndarray
        Along the direction (cos psi, sin psi).
    from_source_x, from_source_y : ndarray
        Centre of gravity minus source.
    """
    return slope * np.where(np.cos(psi_rad) * from_source_x + np.sin(psi_rad) * from_source_y >= 0, 1.0, -1.0)


def read_table(path: Path) -> dict[str, np.ndarray]:
    """The prod3b table: 10,000 images of one LST, diffuse gammas and protons, in our names and units.

    Raises
    ------
    InputFileError
        If it is not that table.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            columns: dict[str, np.ndarray] = {}
            for block in ("block0", "block1"):
                names = [name.decode() for name in file[f"events/{block}_items"][:]]
                columns |= dict(zip(names, file[f"events/{block}_values"][:].T, strict=True))
        cos_offset = np.sin(columns["mc_alt"]) * np.sin(columns["mc_alt_tel"]) + np.cos(columns["mc_alt"]) * np.cos(
            columns["mc_alt_tel"]
        ) * np.cos(columns["mc_az"] - columns["mc_az_tel"])
        return {
            "hillas_intensity": 10 ** columns["intensity"],
            "hillas_width": columns["width"],
            "hillas_length": columns["length"],
            "r_m": columns["r"],
            "true_energy_tev": 10 ** (columns["mc_energy"] - 3),
            "true_impact_m": columns["mc_core_distance"],
            "offset_deg": np.degrees(np.arccos(np.clip(cos_offset, -1, 1))),
            "gradient_ns_deg": outward_gradient(
                columns["time_gradient"] / TABLE_DEG_PER_M, columns["psi"],
                columns["x"] - columns["src_x"], columns["y"] - columns["src_y"],
            ),
            "is_gamma": columns["mc_type"] == 0,
        }  # fmt: skip
    except (OSError, KeyError) as error:
        raise InputFileError(f"{path} is not the prod3b table of image parameters ({error})") from error


def _take(images: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[chosen] for name, values in images.items()}


def _well_seen(images: dict[str, np.ndarray]) -> np.ndarray:
    """Images in the inner part of the camera."""
    if "r_m" in images:
        inner = images["r_m"] < 0.85
    else:
        inner = (images["hillas_r"] < 0.85 * TABLE_DEG_PER_M) & (images["leakage_intensity_width_2"] < MAX_LEAKAGE)
    return inner & (images["offset_deg"] < MAX_OFFSET_DEG) & np.isfinite(images["hillas_width"])


def quartiles_against(
    images: dict[str, np.ndarray], column: str, against: str, edges: np.ndarray, fewest: int = 12
) -> dict[str, np.ndarray]:
    """Median of a column and its error, and the middle half, in bins of another column; bins with few are skipped.

    Images count with their ``weight``, if that column exists.
    """
    points = []
    weights = images.get("weight", np.ones(len(images[column])))
    for low, high in pairwise(edges):
        chosen = (images[against] >= low) & (images[against] < high) & np.isfinite(images[column]) & (weights > 0)
        values, weight = images[column][chosen], weights[chosen]
        if len(values) >= fewest:
            lower, middle, upper = (float(statistics.quantile(values, share, weight)) for share in (0.25, 0.5, 0.75))
            n_effective = weight.sum() ** 2 / (weight**2).sum()
            error = 1.2533 * (upper - lower) / 1.349 / math.sqrt(n_effective)
            points.append([0.5 * (low + high), middle, error, lower, upper])
    names = ("x", "median", "error", "lower", "upper")
    return dict(zip(names, np.array(points).reshape(-1, 5).T, strict=True))


def energies_alike(images: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> np.ndarray:
    """Weights, shape (n_images,), with which images have the energies of others at every impact.

    The maximum of a more energetic shower is nearer to the ground, which makes its images longer in time.
    """
    edges = (IMPACT_EDGES_M, ENERGY_EDGES_TEV)
    ours, theirs = (
        np.histogram2d(sample["true_impact_m"], sample["true_energy_tev"], bins=edges)[0] for sample in (images, others)
    )
    place = [
        np.searchsorted(edge, images[column], side="right") - 1
        for edge, column in zip(edges, ("true_impact_m", "true_energy_tev"), strict=True)
    ]
    inside = np.all([(i >= 0) & (i < len(edge) - 1) for i, edge in zip(place, edges, strict=True)], axis=0)
    weights = np.zeros(len(inside))
    weights[inside] = (theirs / np.maximum(ours, 1))[place[0][inside], place[1][inside]]
    return weights


def _middle_median(images: dict[str, np.ndarray], column: str) -> tuple[float, float]:
    quartiles = quartiles_against(images, column, "hillas_intensity", np.array(MIDDLE_SIZES_PE, float))
    return (
        (float(quartiles["median"][0]), float(quartiles["error"][0]))
        if len(quartiles["median"])
        else (math.nan, math.nan)
    )


def _bootstrap(images: dict[str, np.ndarray], statistic, seed: int = 0) -> float:
    """Standard deviation of a statistic of the images, whole showers resampled."""
    rng = np.random.default_rng(seed)
    showers, member = np.unique(images["shower_id"], return_inverse=True)
    values = []
    for _ in range(N_BOOTSTRAP):
        weight = np.bincount(rng.integers(len(showers), size=len(showers)), minlength=len(showers))[member]
        values.append(statistic(weight))
    return float(np.nanstd(values, ddof=1))


def size_power(gammas: dict[str, np.ndarray]) -> tuple[float, float, dict[str, np.ndarray]]:
    """The power of the energy that the mean size of gammas follows, at all impacts and from 0.1 TeV on.

    It depends on the impacts that are taken: 1.15 within 120 m, where brighter showers also come deeper.
    """
    near = gammas["offset_deg"] < 1.5
    edges = np.geomspace(0.1, 6.4, 7)
    energy, size = gammas["true_energy_tev"], gammas["true_pe"].astype(float)

    def fit(weight: np.ndarray) -> float:
        x, y, w = [], [], []
        for low, high in pairwise(edges):
            weights = weight * (near & (energy >= low) & (energy < high))
            if weights.sum() > 5:
                # Mean of size / E^1.05: the same in the whole bin for the expected power
                x.append(np.average(np.log(energy), weights=weights))
                y.append(math.log(np.average(size / energy**1.05, weights=weights)) + 1.05 * x[-1])
                w.append(math.sqrt(weights.sum()))
        return float(np.polyfit(x, y, 1, w=w)[0])

    power = fit(np.ones(len(energy)))
    return power, _bootstrap(gammas, fit), {"energy_tev": energy[near], "size_pe": size[near], "power": power}


def train_and_judge(gammas: dict[str, np.ndarray], protons: dict[str, np.ndarray]) -> tuple[float, float, int]:
    """AUC of a forest on Hillas parameters, its error, and the number of test images; classes alike otherwise."""
    columns = [*FOREST_COLUMNS]
    parts = []
    for is_gamma, images in ((1, gammas), (0, protons)):
        good = _well_seen(images) & (images["hillas_intensity"] > FOREST_SIZE_PE)
        chosen = _take(images, good)
        events = {name: chosen[_SHORT.get(name, name)] for name in columns}
        events |= {
            "is_gamma": np.full(good.sum(), is_gamma),
            "log10_energy": np.log10(chosen["true_energy_tev"]),
            "offset": chosen["offset_deg"],
            "log10_size": np.log10(chosen["hillas_intensity"]),
            "shower": 2 * chosen["shower_id"] + is_gamma,
            "split": chosen["shower_id"] % 5,  # whole showers: 3 fifths train, 1 chooses, 1 judges
        }
        parts.append(events)
    events = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    weighting = equalise(events, "is_gamma", {"log10_energy": 10, "offset": 4, "log10_size": 10}, max_weight=10.0)
    weights = weighting.weights(events)

    def sample(chosen: np.ndarray) -> Sample:
        table = {name: events[name][chosen] for name in columns}
        return Sample(table, events["is_gamma"][chosen].astype(float), weights[chosen])

    train, validation = sample(events["split"] < 3), sample(events["split"] == 3)
    test_chosen = events["split"] == 4
    test = sample(test_chosen)
    forest = train_forest(train, validation, classes={1: "gammas", 0: "hadrons"}, n_trees=100)
    score, truth, weight = forest.predict(test.events), test.target == 1, test.weights
    area = float(statistics.auc(score, truth, weight))
    shower = {"shower_id": events["shower"][test_chosen]}
    error = _bootstrap(shower, lambda resampled: float(statistics.auc(score, truth, weight * resampled)))
    return area, error, int(test_chosen.sum())


def check_images(n_showers: int, data: Path | None) -> tuple[list[Row], dict]:
    """All comparisons of images; as many showers of gammas and twice as many of protons."""
    gammas, protons = simulate_images(GAMMAS, n_showers, 1), simulate_images(PROTONS, 2 * n_showers, 2)
    power, error, points = size_power(gammas)
    within = f"within {GAMMAS.scatter_radius_m:g} m of an LST, 0.1-6 TeV"
    rows = [
        Row(
            "size_power", f"gammas {within}: power of the energy that the size follows", "",
            power, error, "size proportional to energy", low=SIZE_POWER[0], high=SIZE_POWER[1],
        )
    ]  # fmt: skip
    ours = {"gamma": _take(gammas, _well_seen(gammas)), "proton": _take(protons, _well_seen(protons))}
    widths = {name: _middle_median(images, "hillas_width") for name, images in ours.items()}
    ratio = widths["proton"][0] / widths["gamma"][0]
    ratio_error = ratio * math.hypot(*(error / value for value, error in widths.values()))
    low, high = MIDDLE_SIZES_PE
    rows.append(
        Row(
            "width_ratio", f"width of proton over gamma images, {low}-{high} p.e.: ratio of medians", "", ratio,
            ratio_error, "1.55 in prod3b, which has a wider field", low=WIDTH_RATIO[0], high=WIDTH_RATIO[1],
        )
    )  # fmt: skip
    samples = {"ours": ours}
    if data is not None:
        table = read_table(data / TABLE_FILE)
        good = _well_seen(table)
        theirs = {"gamma": _take(table, good & table["is_gamma"]), "proton": _take(table, good & ~table["is_gamma"])}
        samples["prod3b"] = theirs
        source = "prod3b, zenith 20 deg, offset below 2 deg"
        for particle, column in (("gamma", "width"), ("gamma", "length"), ("proton", "width"), ("proton", "length")):
            reference = Reference(*_middle_median(theirs[particle], f"hillas_{column}"), source)
            rows.append(
                compared(
                    f"{column}_{particle}", f"{particle} images of {low}-{high} p.e.: median {column}", "deg",
                    reference, _middle_median(ours[particle], f"hillas_{column}"), limit_percent=15.0,
                )
            )  # fmt: skip
        rows.append(_proton_frequency(table, gammas, protons))
    area, error, n_test = train_and_judge(gammas, protons)
    rows.append(
        Row(
            "forest_auc", f"forest on Hillas parameters above {FOREST_SIZE_PE} p.e., {n_test} test images: AUC", "",
            area, error, "classes alike in energy, offset and size", low=FOREST_AUC[0], high=FOREST_AUC[1],
        )
    )  # fmt: skip
    curves = {"size": points, "hillas": {}, "gradient": {}}
    for name, sample in samples.items():
        for particle, images in sample.items():
            for column in ("width", "length"):
                curves["hillas"][f"{name}_{particle}_{column}"] = quartiles_against(
                    images, f"hillas_{column}", "hillas_intensity", SIZE_EDGES_PE
                )
        bright = _take(sample["gamma"], sample["gamma"]["hillas_intensity"] > 200)
        if name == "ours" and "prod3b" in samples:
            others = samples["prod3b"]["gamma"]
            bright["weight"] = energies_alike(bright, _take(others, others["hillas_intensity"] > 200))
        curves["gradient"][name] = quartiles_against(bright, "gradient_ns_deg", "true_impact_m", IMPACT_EDGES_M)
    rows += _gradient_rows(curves["gradient"])
    return rows, curves


def _gradient_rows(gradient: dict[str, dict[str, np.ndarray]]) -> list[Row]:
    """The time gradient grows with the distance from the shower: 50-100 ns/deg per km."""
    ours = gradient["ours"]

    def slope(curve: dict[str, np.ndarray]) -> tuple[float, float]:
        far = (curve["x"] > 60) & (curve["x"] < 250)
        fit, covariance = np.polyfit(curve["x"][far] / 1e3, curve["median"][far], 1, w=1 / curve["error"][far],
                                     cov="unscaled")  # fmt: skip
        return float(fit[0]), float(math.sqrt(covariance[0, 0]))

    words = "gamma images above 200 p.e., 60-250 m: growth of the time gradient with impact"
    if "prod3b" not in gradient:
        return [Row("gradient", words, "ns/deg/km", *slope(ours), "grows with distance", low=0.0)]
    reference = Reference(*slope(gradient["prod3b"]), "prod3b, same energies")
    return [compared("gradient", words, "ns/deg/km", reference, slope(ours), limit_percent=20.0)]


def _proton_frequency(table: dict, gammas: dict, protons: dict) -> Row:
    """Images of protons of 100-300 GeV per one of 300-1000 GeV, above a size: a measure of their light.

    Sizes of the table are brought to ours by gammas of the same energy and impact.
    """
    shifts, weights = [], []
    for low, high in ((0.1, 0.2), (0.2, 0.5), (0.5, 1.0)):
        for near, far in ((0, 70), (70, 120), (120, 180)):
            logs = []
            for images in (_take(table, table["is_gamma"]), gammas):
                chosen = (
                    (images["true_energy_tev"] > low) & (images["true_energy_tev"] < high)
                    & (images["true_impact_m"] > near) & (images["true_impact_m"] < far) & (images["offset_deg"] < 1.5)
                    & (images["hillas_intensity"] > 100)
                )  # fmt: skip
                logs.append(np.log(images["hillas_intensity"][chosen] / images["true_energy_tev"][chosen]))
            if min(map(len, logs)) >= 8:
                shifts.append(np.median(logs[0]) - np.median(logs[1]))
                weights.append(len(logs[0]))
    scale = math.exp(np.average(shifts, weights=weights))
    least_pe = 200.0

    def counts(images: dict, weight: np.ndarray, factor: float) -> tuple[float, float]:
        bright = (images["hillas_intensity"] * factor > least_pe) & (images["offset_deg"] < 3)
        bright &= images["true_impact_m"] < 200
        energy = images["true_energy_tev"]
        return tuple(
            float(weight[bright & (energy > low) & (energy < high)].sum()) for low, high in ((0.1, 0.3), (0.3, 1.0))
        )

    few, many = counts(table, (~table["is_gamma"]).astype(float), 1.0)
    reference = Reference(
        few / many, few / many * math.sqrt(1 / few + 1 / many), f"prod3b, {few:.0f} / {many:.0f} images"
    )
    spectrum = protons["true_energy_tev"] ** (-2.0 - SPECTRAL_INDEX)  # reweighted to the table's power law

    def ratio(resampled: np.ndarray) -> float:
        of_low, of_high = counts(protons, spectrum * resampled, scale)
        return of_low / of_high

    value = (ratio(np.ones(len(spectrum))), _bootstrap(protons, ratio))
    words = f"proton images above {least_pe:.0f} p.e. of prod3b within 200 m: 100-300 GeV per 0.3-1 TeV"
    return compared("proton_frequency", words, "", reference, value)
