"""Section `irf`: from which showers, networks and bins instrument response functions are made."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section
from pipeline.config.showers import ShowerClass, ShowersConfig

#: Directions by ctapipe, from the image parameters of several telescopes.
HILLAS_RECONSTRUCTOR = "HillasReconstructor"

#: What a class of showers is for in responses.
_ROLES = {"gamma": "gammas", "proton": "protons", "electron": "electrons"}


class IrfShowers(ShowersConfig):
    """The showers of the section `irf`, seen by the telescopes of the section `showers`.

    A shower is drawn from (seed, run, its number in the run), so runs of these numbers are other showers than those
    that networks are trained on.
    """

    first_run: ClassVar[int] = 10_001


class IrfConfig(Section):
    """`lightpool irf`."""

    classes: tuple[ShowerClass, ...] = Field(
        (),
        description="Showers for the responses, with the telescopes of the section showers: gammas of a point source, "
        "diffuse gammas or both, protons, and perhaps electrons; one class of each. Their runs are numbered from "
        "10001 and never become training tiles. Empty: no responses are made.",
    )
    scale: int = Field(
        1,
        ge=1,
        description="How many times the list of classes is simulated; runs of a smaller scale keep their numbers.",
    )
    energy: str = Field(
        "",
        description="What gives the energies: a network of this experiment, the path of a bundle, or the name of one "
        "that ships.",
    )
    gammaness: str = Field("", description="What gives the gammaness, in the same way.")
    direction: str = Field(
        HILLAS_RECONSTRUCTOR,
        description="What gives the directions, in the same way, or HillasReconstructor: that of ctapipe.",
    )
    baseline: Literal["forest"] | None = Field(
        None,
        description="forest: the responses of forests on the image parameters of several telescopes are made as well, "
        "from the same events; they learn from the camera tiles, as in evaluate. null: only those of the networks.",
    )
    min_telescopes: int = Field(
        2, ge=1, description="Number of telescopes that each of an event's values must come from."
    )
    observation_h: float = Field(
        50.0, gt=0, description="Observation time for which sensitivity is computed and cuts are optimised [h]."
    )
    energy_min_tev: float | None = Field(
        None, gt=0, description="Lower end of the energy bins [TeV]. null: that of the gammas' spectrum."
    )
    energy_max_tev: float | None = Field(
        None, gt=0, description="Upper end of the energy bins [TeV]. null: that of the gammas' spectrum."
    )
    true_bins_per_decade: int = Field(10, ge=1, le=100, description="Number of bins per decade of true energy.")
    reco_bins_per_decade: int = Field(
        5, ge=1, le=100, description="Number of bins per decade of reconstructed energy: background and sensitivity."
    )
    # The bins end at the view cone: ctapipe's weights are wrong for any other end.
    offset_bins: int = Field(
        5,
        ge=1,
        le=100,
        description="Number of bins from the pointing to the edge of the diffuse gammas' view cone. A point source has "
        "one bin, with the source in its middle.",
    )
    optimiser: Literal["sensitivity", "percentile"] = Field(
        "sensitivity",
        description="How the cut in gammaness is found in each energy bin. sensitivity: for the best sensitivity; "
        "needs protons in all bins. percentile: gamma_percent of the gammas are kept.",
    )
    gamma_percent: int = Field(80, ge=1, le=99, description="percentile: share of the gammas that are kept [%].")
    containment_percent: int = Field(
        68, ge=1, le=99, description="Share of the gammas within the cut in direction, in each energy bin [%]."
    )

    @property
    def n_runs(self) -> int:
        """Total number of runs over all classes."""
        return self.showers(ShowersConfig()).n_runs

    @property
    def runs(self) -> range:
        """Numbers of the runs."""
        return range(IrfShowers.first_run, IrfShowers.first_run + self.n_runs)

    def showers(self, base: ShowersConfig) -> IrfShowers:
        """These showers, with the telescopes and the site of `base`."""
        fields = {name: getattr(base, name) for name in ShowersConfig.model_fields}
        return IrfShowers(**fields | {"classes": self.classes, "scale": self.scale})

    @model_validator(mode="after")
    def _can_be_made(self) -> "IrfConfig":
        for problem in self._problems() if self.classes else ():
            raise ValueError(problem)
        if self.energy_min_tev and self.energy_max_tev and self.energy_min_tev >= self.energy_max_tev:
            raise ValueError(f"energy_min_tev {self.energy_min_tev} is not below energy_max_tev {self.energy_max_tev}")
        return self

    def _problems(self) -> Iterator[str]:
        """What keeps `classes` from becoming responses, each in one sentence."""
        kinds = [(entry.particle, entry.particle == "gamma" and entry.viewcone_deg == 0) for entry in self.classes]
        for entry, kind in zip(self.classes, kinds, strict=True):
            if entry.particle not in _ROLES:
                yield f"classes has particle {entry.particle!r}; accepted: {', '.join(_ROLES)}"
            if kinds.count(kind) > 1:
                what = "point source" if kind[1] else "diffuse" if entry.particle == "gamma" else "of all"
                yield f"classes has several entries of {_ROLES[entry.particle]} ({what}); give one, with more runs"
            if entry.start_height_m is not None:
                yield "classes: start_height_m is for muon rings; responses need showers from the top of the atmosphere"
            if not kind[1] and not entry.viewcone_deg:
                yield f"classes: {_ROLES[entry.particle]} come from all directions; give them a viewcone_deg above 0"
            if not kind[1] and entry.offset_deg:
                yield "classes: offset_deg is for the gammas of a point source; a view cone is around the pointing"
        gammas = [entry for entry in self.classes if entry.particle == "gamma"]
        if not gammas:
            yield "classes has no gammas; add a class with particle: gamma"
        for gamma in gammas:
            yield from self._problems_of_bins(gamma)

    def _problems_of_bins(self, gamma: ShowerClass) -> Iterator[str]:
        limits = (("energy_min_tev", self.energy_min_tev), ("energy_max_tev", self.energy_max_tev))
        for name, value in limits:
            if value is not None and not gamma.energy_min_tev <= value <= gamma.energy_max_tev:
                yield (
                    f"{name} {value:g} is outside the gammas' spectrum, {gamma.energy_min_tev:g} to "
                    f"{gamma.energy_max_tev:g} TeV; no gammas are thrown there"
                )
        largest = offset_range_deg(gamma.viewcone_deg, gamma.offset_deg)
        for entry in self.classes:
            if entry.particle != "gamma" and entry.viewcone_deg < largest:
                yield (
                    f"classes: {_ROLES[entry.particle]} have viewcone_deg {entry.viewcone_deg:g}, and the offset bins "
                    f"end at {largest:g} deg; the background beyond would be missing: give at least that"
                )


def offset_range_deg(viewcone_deg: float, offset_deg: float) -> float:
    """Where the offset bins of gammas end [deg].

    For diffuse gammas at their view cone: with wider bins, ctapipe spreads the gammas over more solid angle than they
    were thrown in, and with narrower ones it gives those outside the weight 1. For a point source so that it is in the
    middle of its one bin; one on the pointing gets a bin to 1 deg.
    """
    return viewcone_deg or 2 * offset_deg or 1.0
