"""Open instrument response functions with gammapy, and fit a simulated spectrum with them.

    python -m venv gammapy_env && gammapy_env/bin/pip install gammapy "regions<0.11"
    gammapy_env/bin/python benchmarks/outside/gammapy_irf.py results/lst_stereo/irf/diffuse [--hours 5] [--spectra 50]

It needs an environment of its own: gammapy is not a dependency of lightpool. The argument is a folder that
`lightpool irf` made. Effective area, energy dispersion and point spread are evaluated as gammapy does and compared with
`irf.json`; then spectra of a source with a power law are simulated and fitted, with the responses without and with a
cut in direction. The pulls, (fitted - true) / error, should have mean 0 and width 1.
"""

import argparse
import json
import logging
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from gammapy.data import FixedPointingInfo, Observation
from gammapy.datasets import SpectrumDataset, SpectrumDatasetOnOff
from gammapy.irf import load_irf_dict_from_file
from gammapy.makers import SpectrumDatasetMaker
from gammapy.maps import MapAxis, RegionGeom
from gammapy.modeling import Fit
from gammapy.modeling.models import PowerLawSpectralModel, SkyModel
from regions import CircleSkyRegion, PointSkyRegion

POINTING = SkyCoord(83.63, 22.01, unit="deg")
INDEX, AMPLITUDE = 2.6, 3.8e-11 * u.Unit("cm-2 s-1 TeV-1")  # the Crab nebula, about
OFF_OVER_ON = 5
TABLES = {"aeff", "edisp", "psf", "bkg"}


def energies(irfs: dict) -> tuple[u.Quantity, u.Quantity]:
    """Range of true energies that the effective area covers."""
    axis = irfs["aeff"].axes["energy_true"]
    return axis.edges[0], axis.edges[-1]


def compare(irfs: dict, entries: list[dict]) -> None:
    """Numbers as gammapy interpolates them beside those of irf.json, in the middle of each of its bins."""
    print(
        f"{'TeV':>7}{'deg':>6}{'area m2':>10}{'irf.json':>10}{'bias':>8}{'irf.json':>9}{'68 % deg':>9}{'irf.json':>9}"
    )
    for entry in entries:
        if entry["by"] != "true_energy_tev" or entry["angular_resolution_deg"]["value"] is None:
            continue
        energy = np.sqrt(entry["low"] * entry["high"]) * u.TeV
        offset = (entry["offset_low_deg"] + entry["offset_high_deg"]) / 2 * u.deg
        area = irfs["aeff"].evaluate(energy_true=energy, offset=offset).to_value("m2").item()
        migra = irfs["edisp"].axes["migra"]
        density = irfs["edisp"].evaluate(energy_true=energy, offset=offset, migra=migra.center).to_value("").ravel()
        cumulative = np.cumsum(density * migra.bin_width.value)
        bias = np.interp(0.5 * cumulative[-1], cumulative, migra.edges[1:].value) - 1
        radius = irfs["psf"].containment_radius(0.68, energy_true=energy, offset=offset).to_value("deg").item()
        told = [entry[name]["value"] for name in ("effective_area_m2", "energy_bias", "angular_resolution_deg")]
        told = [np.nan if value is None else value for value in told]
        print(
            f"{energy.value:7.3f}{offset.value:6.2f}{area:10.3g}{told[0]:10.3g}{bias:8.3f}{told[1]:9.3f}{radius:9.3f}"
            f"{told[2]:9.3f}"
        )


def pulls(irfs: dict, hours: float, n_spectra: int, offset: u.Quantity, radius: u.Quantity) -> np.ndarray:
    """Pulls of index and amplitude of fits to simulated spectra, shape (n_spectra, 2)."""
    low, high = energies(irfs)
    reco = MapAxis.from_energy_bounds(max(low, 0.05 * u.TeV), min(high, 3 * u.TeV), 12, name="energy")
    true = MapAxis.from_energy_bounds(low, high, 60, name="energy_true")
    source = POINTING.directional_offset_by(0 * u.deg, offset)
    is_point_like = "rad_max" in irfs
    region = PointSkyRegion(source) if is_point_like else CircleSkyRegion(source, radius)
    observation = Observation.create(
        pointing=FixedPointingInfo(fixed_icrs=POINTING), livetime=hours * u.h, irfs=irfs
    )  # fmt: skip
    empty = SpectrumDataset.create(geom=RegionGeom.create(region, axes=[reco]), energy_axis_true=true)
    maker = SpectrumDatasetMaker(
        selection=["exposure", "edisp", "background"],
        containment_correction=not is_point_like,
        use_region_center=True,
    )
    if is_point_like:
        maker.selection.remove("background")
    dataset = maker.run(empty, observation)
    if is_point_like:  # gammapy has no region to integrate it over: in the radius for all energies
        whole = SpectrumDataset.create(
            geom=RegionGeom.create(CircleSkyRegion(source, radius), axes=[reco]), energy_axis_true=true
        )
        other = SpectrumDatasetMaker(selection=["background"]).run(whole, observation)
        dataset.background = dataset.counts.copy(data=other.background.data)
    truth = SkyModel(spectral_model=PowerLawSpectralModel(index=INDEX, amplitude=AMPLITUDE), name="source")
    dataset.models = [truth]
    found = []
    for seed in range(n_spectra):
        on_off = SpectrumDatasetOnOff.from_spectrum_dataset(dataset=dataset, acceptance=1, acceptance_off=OFF_OVER_ON)
        on_off.models = [truth]
        on_off.fake(npred_background=dataset.npred_background(), random_state=seed)
        model = SkyModel(spectral_model=PowerLawSpectralModel(index=2.0, amplitude=AMPLITUDE / 3), name="fit")
        on_off.models = [model]
        result = Fit().run([on_off])
        if not result.success:
            continue
        parameters = model.spectral_model
        found.append(
            [
                (parameters.index.value - INDEX) / parameters.index.error,
                (parameters.amplitude.value - AMPLITUDE.value) / parameters.amplitude.error,
            ]
        )
        if seed == 0:
            print(
                f"  first spectrum: {on_off.counts.data.sum():.0f} counts, {on_off.excess.data.sum():.0f} in excess, "
                f"index {parameters.index.value:.3f} +- {parameters.index.error:.3f} (true {INDEX}), amplitude "
                f"{parameters.amplitude.value:.3g} +- {parameters.amplitude.error:.2g} (true {AMPLITUDE.value:.3g})"
            )
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="point_source or diffuse in the product of `lightpool irf`")
    parser.add_argument("--hours", type=float, default=5.0)
    parser.add_argument("--spectra", type=int, default=50)
    parser.add_argument("--offset", type=float, default=0.5, help="of the source from the pointing [deg]")
    parser.add_argument("--radius", type=float, default=0.2, help="of the region around the source [deg]")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    content = json.loads((arguments.folder.parent / "irf.json").read_text())
    for name in ("irf.fits", "irf_point_like.fits"):
        irfs = load_irf_dict_from_file(arguments.folder / name)
        missing = TABLES - irfs.keys()
        print(f"{name}: {', '.join(sorted(irfs))}" + (f"; missing: {', '.join(missing)}" if missing else ""))
        if name == "irf.fits":
            compare(irfs, content["kinds"][arguments.folder.name]["bins"])
        found = pulls(irfs, arguments.hours, arguments.spectra, arguments.offset * u.deg, arguments.radius * u.deg)
        for parameter, values in zip(("index", "amplitude"), found.T, strict=True):
            print(
                f"  {parameter}: {len(values)} of {arguments.spectra} fits, pulls {values.mean():+.2f} +- "
                f"{values.std() / np.sqrt(len(values)):.2f}, width {values.std(ddof=1):.2f}"
            )


if __name__ == "__main__":
    main()
