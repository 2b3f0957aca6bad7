"""Tracks of particles in the silicon: muons, and Compton electrons from natural radioactivity."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.sky.defects.registry import register_defect

# Silicon: 3.65 eV per electron-hole pair; a relativistic muon's straggling width 0.0178 keV per um and plasma energy
# 31.05 eV (Particle Data Group, Review of Particle Physics 2022, section 34, "Passage of particles through matter").
_EV_PER_PAIR = 3.65
_XI_EV_PER_UM = 17.8
_PLASMA_ENERGY_EV = 31.05
_ELECTRON_MASS_EV = 510_999.0
# Mean and variance of the Moyal distribution in units of its width: Euler's constant + ln 2, and pi^2 / 2.
_MOYAL_MEAN = 0.5772156649 + np.log(2)
_MOYAL_VARIANCE = np.pi**2 / 2


def _most_probable_loss_ev(step_um: float) -> float:
    """Most probable energy loss of a relativistic muon in `step_um` of silicon, density effect included (PDG 34.12)."""
    xi_ev = _XI_EV_PER_UM * step_um
    return xi_ev * (np.log(2 * _ELECTRON_MASS_EV * xi_ev / _PLASMA_ENERGY_EV**2) + 0.2)


def _moyal(rng: np.random.Generator, size: int) -> np.ndarray:
    # If z is standard normal, -ln(z^2) follows the Moyal distribution (location 0, width 1), much like Landau's.
    return -np.log(rng.standard_normal(size) ** 2)


def _spread(
    x: np.ndarray, y: np.ndarray, charge: np.ndarray, sigma_px: np.ndarray, reach: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spread each charge by a Gaussian that is integrated over the pixels.

    Returns
    -------
    rows, columns, charges : ndarray, shape (n, (2 reach + 1)^2)
        Pixels, which may lie outside any frame, and their share of each charge.
    """
    from scipy.special import ndtr

    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    edges = np.arange(-reach, reach + 2) - 0.5  # of the pixels around the nearest one's centre
    share_x = np.diff(ndtr((edges + (column - x)[:, None]) / sigma_px[:, None]), axis=1)
    share_y = np.diff(ndtr((edges + (row - y)[:, None]) / sigma_px[:, None]), axis=1)
    charges = charge[:, None, None] * share_y[:, :, None] * share_x[:, None, :]
    steps = np.arange(-reach, reach + 1)
    rows = np.broadcast_to((row[:, None] + steps)[:, :, None], charges.shape)
    columns = np.broadcast_to((column[:, None] + steps)[:, None, :], charges.shape)
    size = charge.size
    return rows.reshape(size, -1), columns.reshape(size, -1), charges.reshape(size, -1)


@dataclass(frozen=True)
class _Steps:
    """Energy deposits of many particles, cut into steps: position [px], charge [e], diffusion [px], track number."""

    x: np.ndarray
    y: np.ndarray
    charge: np.ndarray
    sigma_px: np.ndarray
    track: np.ndarray


def _within_tracks(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Track number and position within its track, for each of ``counts.sum()`` steps."""
    track = np.repeat(np.arange(counts.size), counts)
    return track, np.arange(track.size) - np.repeat(np.cumsum(counts) - counts, counts)


@dataclass(frozen=True)
class _Particles:
    """Tracks thrown uniformly on the detector: subclasses define one track in `_tracks`."""

    per_mpix: float
    thickness_um: float = 40.0
    pixel_um: float = 15.0
    diffusion_um: float = 5.0
    step_px: float = 0.25
    reach_px: int = 160  # tracks that begin this far outside may still reach into the frame

    def sample(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int],
        places: np.ndarray | None = None,
        share: float = 0.0,
    ) -> np.ndarray:
        """Charge to add.

        Parameters
        ----------
        rng : Generator
        shape : tuple of int
        places : ndarray, shape (n, 2), optional
            x, y [px] where a `share` of the tracks within the frame begins, within a pixel or so; anywhere by default,
            and `mean` and `variance` are of that.
        """
        height, width = (n + 2 * self.reach_px for n in shape)
        n_tracks = rng.poisson(self.per_mpix * 1e-6 * height * width)
        start_x = rng.uniform(-self.reach_px - 0.5, shape[1] + self.reach_px - 0.5, n_tracks)
        start_y = rng.uniform(-self.reach_px - 0.5, shape[0] + self.reach_px - 0.5, n_tracks)
        steps = self._tracks(rng, n_tracks)
        if share and places is not None and len(places):
            inside = (np.abs(2 * start_x - shape[1] + 1) < shape[1]) & (np.abs(2 * start_y - shape[0] + 1) < shape[0])
            moved = np.flatnonzero(inside & (rng.random(n_tracks) < share))
            chosen = places[rng.integers(len(places), size=moved.size)] + rng.normal(0, 1, (moved.size, 2))
            start_x[moved], start_y[moved] = chosen.T
        x, y = start_x[steps.track] + steps.x, start_y[steps.track] + steps.y
        reach = max(2, int(np.ceil(2.5 * steps.sigma_px.max(initial=0))))
        rows, columns, charges = _spread(x, y, steps.charge, steps.sigma_px, reach)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        flat = rows[inside] * shape[1] + columns[inside]
        return np.bincount(flat, weights=charges[inside], minlength=shape[0] * shape[1]).reshape(shape)

    def mean(self) -> float:
        """Rate per pixel times the mean charge of a track (Campbell's theorem)."""
        return self.per_mpix * 1e-6 * self._track_moments[0]

    def variance(self) -> float:
        """Rate per pixel times the mean of the summed squares of a track's pixels (Campbell's theorem)."""
        return self.per_mpix * 1e-6 * self._track_moments[1]

    @cached_property
    def _track_moments(self) -> tuple[float, float]:
        """Mean charge [e] and mean sum of squared pixel charges [e^2] of single tracks, over a fixed sample of them."""
        rng = np.random.default_rng(0)
        n_tracks = 3000
        steps = self._tracks(rng, n_tracks)
        x, y = rng.uniform(-0.5, 0.5, (2, n_tracks))
        rows, columns, charges = _spread(
            x[steps.track] + steps.x, y[steps.track] + steps.y, steps.charge, steps.sigma_px
        )
        side = 4 * self.reach_px  # wider than any track: a pixel's number is unique within its track
        pixel = ((steps.track[:, None] * side) + rows + side // 2) * side + columns + side // 2
        _, position = np.unique(pixel, return_inverse=True)
        per_pixel = np.bincount(position.ravel(), weights=charges.ravel())
        return float(steps.charge.sum()) / n_tracks, float((per_pixel**2).sum()) / n_tracks

    def _tracks(self, rng: np.random.Generator, n_tracks: int) -> _Steps:
        raise NotImplementedError

    def _diffusion_px(self, depth: np.ndarray) -> np.ndarray:
        """Diffusion grows with the square root of the drift length; `depth` is its share of the thickness."""
        return np.maximum(self.diffusion_um / self.pixel_um * np.sqrt(depth), 0.05)


@register_defect("muons")
@dataclass(frozen=True)
class Muons(_Particles):
    """Straight tracks of relativistic muons through the silicon, with Landau-like straggling along the path.

    Zenith angles follow the sea-level flux through a horizontal detector, ``cos^3(theta) sin(theta)``; the energy loss
    of each step is drawn from a Moyal distribution at the most probable loss of a relativistic particle in silicon.
    """

    def _tracks(self, rng: np.random.Generator, n_tracks: int) -> _Steps:
        cos_zenith = (1 - rng.random(n_tracks)) ** 0.25
        # cos(theta)^4 is uniform; nearly horizontal tracks are cut where they would cross reach_px.
        tan_zenith = np.sqrt(1 / cos_zenith**2 - 1)
        length_px = np.minimum(self.thickness_um / self.pixel_um * tan_zenith, self.reach_px - 4.0)
        path_um = np.hypot(self.thickness_um, length_px * self.pixel_um)
        azimuth = rng.uniform(0, 2 * np.pi, n_tracks)
        counts = np.ceil(path_um / (self.step_px * self.pixel_um)).astype(int)
        track, index = _within_tracks(counts)
        along = (index + 0.5) / counts[track]
        x = along * (length_px * np.cos(azimuth))[track]
        y = along * (length_px * np.sin(azimuth))[track]
        step_um = path_um[track] / counts[track]
        xi_ev = _XI_EV_PER_UM * step_um
        loss_ev = _most_probable_loss_ev(step_um) + xi_ev * _moyal(rng, track.size)
        return _Steps(x, y, np.maximum(loss_ev, 0) / _EV_PER_PAIR, self._diffusion_px(1 - along), track)


@register_defect("worms")
@dataclass(frozen=True)
class Worms(_Particles):
    """Curved tracks of Compton electrons from natural radioactivity: they scatter all the way and stop inside.

    The charge per length rises towards the end of the track, as the electron slows down.
    """

    mean_length_px: float = 8.0
    turn_rad: float = 0.35

    def _tracks(self, rng: np.random.Generator, n_tracks: int) -> _Steps:
        length_px = np.minimum(1 + rng.exponential(self.mean_length_px, n_tracks), self.reach_px - 4.0)
        counts = np.ceil(length_px / self.step_px).astype(int)
        track, index = _within_tracks(counts)
        heading = self._heading(rng, track, counts)
        x, y = self._walk(np.cos(heading), track), self._walk(np.sin(heading), track)
        left_px = (counts[track] - index) * self.step_px
        # An electron within the last pixels of its range loses several times what a fast one does.
        slowing = 1 + 3 * np.exp(-left_px / 3)
        step_um = np.full(track.size, self.step_px * self.pixel_um)
        xi_ev = _XI_EV_PER_UM * step_um
        loss_ev = slowing * (_most_probable_loss_ev(step_um) + xi_ev * _moyal(rng, track.size))
        depth = rng.random(n_tracks)[track]
        return _Steps(x, y, np.maximum(loss_ev, 0) / _EV_PER_PAIR, self._diffusion_px(depth), track)

    def _heading(self, rng: np.random.Generator, track: np.ndarray, counts: np.ndarray) -> np.ndarray:
        turns = rng.normal(0, self.turn_rad * np.sqrt(self.step_px), track.size)
        turns[np.cumsum(counts) - counts] = rng.uniform(0, 2 * np.pi, counts.size)
        total = np.cumsum(turns)
        before = (total - turns)[np.cumsum(counts) - counts]
        return total - before[track]

    def _walk(self, direction: np.ndarray, track: np.ndarray) -> np.ndarray:
        moved = np.cumsum(direction) * self.step_px
        first = np.searchsorted(track, np.arange(track[-1] + 1 if track.size else 0))
        return moved - moved[first][track]
