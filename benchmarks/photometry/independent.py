"""One frame of known truth: what a bundle and its peers make of it, in numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from photometry import pixels
from photometry.methods import NETWORK, RECORDED, Bundle, Method, outside, peers, read, recorded
from photometry.pixels import Count
from photometry.scenes import Scene
from photometry.stars import Stars, limiting_magnitude, measure_stars
from pipeline.sky.frames import Frame

#: Seams are measured where a frame fits into one tile of this side.
_ONE_TILE_PX = 1024
# Side of the tiles that a frame of one tile is cut into, to find their seams.
_SMALL_TILE_PX = 384


@dataclass(frozen=True)
class Judged:
    """Results of one frame: `facts` go into the JSON, the stars are joined with those of other frames."""

    facts: dict[str, Any]
    stars: Stars
    network: Method | None
    frame: Frame


def judge(
    scene: Scene,
    bundle: Bundle | None,
    folder: Path,
    *,
    seams: bool,
    with_peers: bool = True,
    elsewhere: Path | None = None,
) -> Judged:
    """Write a scene as FITS into `folder`, read it as users do, and measure what each method makes of it.

    Results of programs that ran `elsewhere` are in a folder per frame.
    """
    path = scene.write(folder / f"{scene.file_stem}.fits")
    network = None
    if bundle is None:
        (frame,) = read(path)
    else:
        frame, network = bundle.from_file_to_file(path, folder / f"{path.stem}.restored.fits")
    if frame.unit != "electron":
        raise ValueError(f"{path} was read in {frame.unit}, the truth is in electrons")
    facts: dict[str, Any] = {"name": scene.name, "fwhm_px": scene.fwhm_px, "n_px": frame.sci.size}
    todo: dict[str, Callable[[], Method]] = {RECORDED: lambda: recorded(frame)}
    if network is not None:
        todo[NETWORK] = lambda: network
    if with_peers:
        todo |= peers(frame)
        if elsewhere is not None:
            todo |= outside(elsewhere / scene.file_stem, frame)
    facts["methods"], images = {}, {}
    for name, run in todo.items():
        method = run()
        images[name] = method.sci
        facts["methods"][name] = _measures(method, scene, noisy=name == RECORDED)
    facts["limiting_magnitude_without_defects"] = limiting_magnitude(scene.undefected, scene, noisy=True)
    if network is not None:
        facts |= _of_network(network, frame, scene)
        if seams and max(frame.shape) <= _ONE_TILE_PX:
            facts["seam"] = pixels.seam(bundle.restore(frame, _SMALL_TILE_PX), network, frame.noise)
    return Judged(facts, measure_stars(images, scene), network, frame)


def _measures(method: Method, scene: Scene, *, noisy: bool) -> dict[str, Any]:
    """What every method has."""
    facts: dict[str, Any] = {
        "cpu_s": method.cpu_s,
        "rms_on_tracks_e": pixels.rms_on_tracks(method.sci, scene),
        "rms_by_snr": pixels.rms_by_snr(method.sci, scene),
        "sky_noise": pixels.sky_noise(method.sci, scene),
        "limiting_magnitude": limiting_magnitude(method.sci, scene, noisy=noisy),
    }
    excess = scene.excess
    counts = {"bench": Count.bench(excess), "own": Count.own(excess)}
    core = pixels.core_pixels(scene)
    for name, count in counts.items():
        of_cores = count.good & core
        if method.mask is not None:
            rates = dict(zip(("found", "false"), pixels.rates_of(method.mask, count), strict=True))
            rates["false_in_cores"] = float(method.mask[of_cores].mean()) if of_cores.any() else np.nan
            rates["n_core"] = int(of_cores.sum())
            facts[f"mask_{name}"] = rates | {"by_class": _by_class(method.mask, scene, pixels.LEAST[name])}
        if method.score is not None:
            ranked = pixels.found_at(method.score, count)
            facts[f"found_{name}"] = {f"{rate:g}": share for rate, (share, _) in ranked.items()}
            limit = ranked[5e-4][1]
            facts[f"core_false_at_0.05%_{name}"] = float((method.score > limit)[of_cores].mean())
            facts[f"by_class_{name}"] = _by_class(method.score > limit, scene, pixels.LEAST[name])
    return facts


def _by_class(mask: np.ndarray, scene: Scene, least: float) -> dict[str, float]:
    """Share of each class of defects in a mask."""
    hits = {name: np.abs(plane) > least * scene.noise for name, plane in scene.charge.items()}
    return {name: float(mask[hit].mean()) for name, hit in hits.items() if hit.any()}


def _of_network(method: Method, frame: Frame, scene: Scene) -> dict[str, Any]:
    """What only a method with stated errors has."""
    removed = (frame.sci - method.sci) / frame.err
    parts = pixels.strata(scene, method.mask)
    return {
        "pulls": pixels.pulls(method, scene),
        "pulls_recorded": pixels.pulls(Method(frame.sci, np.zeros(frame.shape, bool), frame.err), scene),
        "residual_correlation": {
            name: pixels.residual_correlation(removed, parts[name]) for name in ("sky", "faint", "core", "galaxy")
        },
    }
