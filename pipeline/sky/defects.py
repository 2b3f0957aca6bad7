"""What spoils a long exposure: every noise and defect is a class with `sample`, `mean` and `variance`.

`sample(rng, ...)` draws one realisation. `mean(...)` and `variance(...)` are the expectation and the variance of
one of its pixels over realisations, in closed form where there is one; the tests hold samples and moments together.
All charges are electrons of the whole exposure; images are indexed ``[y, x]``.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

#: Charge (in sigma of the frame's noise) from which a pixel counts as spoiled in the truth mask.
FLAG_SIGMA = 2.0

# Silicon: 3.65 eV per electron-hole pair; a relativistic muon's straggling width 0.0178 keV per um and plasma energy
# 31.05 eV (Particle Data Group, Review of Particle Physics 2022, section 34, "Passage of particles through matter").
_EV_PER_PAIR = 3.65
_XI_EV_PER_UM = 17.8
_PLASMA_ENERGY_EV = 31.05
_ELECTRON_MASS_EV = 510_999.0
# Mean and variance of the Moyal distribution in units of its width: Euler's constant + ln 2, and pi^2 / 2.
_MOYAL_MEAN = 0.5772156649 + np.log(2)
_MOYAL_VARIANCE = np.pi**2 / 2


# ---- noise -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ShotNoise:
    """Photon (and dark) statistics: independent Poisson counts."""

    def sample(self, rng: np.random.Generator, expected_e: np.ndarray) -> np.ndarray:
        """Counts around `expected_e`, float64 of the same shape."""
        return rng.poisson(expected_e).astype(float)

    def mean(self, expected_e: np.ndarray) -> np.ndarray:
        """The expectation itself."""
        return np.asarray(expected_e, dtype=float)

    def variance(self, expected_e: np.ndarray) -> np.ndarray:
        """Equal to the mean."""
        return np.asarray(expected_e, dtype=float)


@dataclass(frozen=True)
class ReadNoise:
    """Gaussian noise of the amplifier, independent of the signal."""

    read_noise_e: float

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Noise to add."""
        return rng.normal(0.0, self.read_noise_e, shape)

    def mean(self) -> float:
        """Zero."""
        return 0.0

    def variance(self) -> float:
        """Square of the read noise."""
        return self.read_noise_e**2


@dataclass(frozen=True)
class DarkCurrent:
    """Thermal electrons of the good pixels."""

    rate_e_per_s: float
    exposure_s: float

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Dark electrons to add."""
        return rng.poisson(self.mean(), shape).astype(float)

    def mean(self) -> float:
        """Rate times exposure."""
        return self.rate_e_per_s * self.exposure_s

    def variance(self) -> float:
        """Equal to the mean."""
        return self.mean()


@dataclass(frozen=True)
class Digitisation:
    """Gain, bias level and rounding of the converter; `sample` gives ADU, the moments are those of the rounding [e]."""

    gain_e_per_adu: float
    bias_adu: float
    adc_max_adu: int = 65_535

    def sample(self, charge_e: np.ndarray) -> np.ndarray:
        """Whole ADU, clipped to the converter's range."""
        return np.clip(np.rint(charge_e / self.gain_e_per_adu + self.bias_adu), 0, self.adc_max_adu)

    def mean(self) -> float:
        """Rounding is unbiased while the noise spans a few ADU."""
        return 0.0

    def variance(self) -> float:
        """Uniform within one step."""
        return self.gain_e_per_adu**2 / 12


# ---- pixels of the detector ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class HotPixels:
    """Pixels whose dark current has a lognormal tail; some are telegraph pixels that are on for a part of the time.

    Parameters
    ----------
    fraction : float
        Share of hot pixels.
    exposure_s : float
        Exposure.
    median_e_per_s, log_sigma : float
        Lognormal distribution of the excess rate (natural logarithm).
    telegraph_fraction : float
        Share of the hot pixels that are on for a uniform part of the exposure.
    """

    fraction: float
    exposure_s: float
    median_e_per_s: float = 0.6
    log_sigma: float = 1.4
    telegraph_fraction: float = 0.15

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Excess charge to add."""
        charge = np.zeros(shape)
        hot = np.flatnonzero(rng.random(shape) < self.fraction)
        rate = self.median_e_per_s * np.exp(rng.normal(0.0, self.log_sigma, hot.size))
        on = np.where(rng.random(hot.size) < self.telegraph_fraction, rng.random(hot.size), 1.0)
        charge.flat[hot] = rng.poisson(rate * on * self.exposure_s)
        return charge

    def mean(self) -> float:
        """Expectation over hot and good pixels."""
        return self.fraction * self._first

    def variance(self) -> float:
        """Poisson of a mixed rate, mixed with the good pixels."""
        second = self._first + self._second
        return self.fraction * second - self.mean() ** 2

    @property
    def _first(self) -> float:
        on = 1 - self.telegraph_fraction / 2
        return on * self.exposure_s * self.median_e_per_s * float(np.exp(self.log_sigma**2 / 2))

    @property
    def _second(self) -> float:
        on = 1 - self.telegraph_fraction * 2 / 3  # the mean of u^2 is 1/3
        return on * (self.exposure_s * self.median_e_per_s) ** 2 * float(np.exp(2 * self.log_sigma**2))


@dataclass(frozen=True)
class DeadPixels:
    """Pixels and columns that collect only a part of their light; `sample` is the response to multiply with.

    A column is bad from a uniform row up to the last one, as a trap on its way to the amplifier makes it.
    """

    fraction: float
    bad_columns: int = 0
    response_max: float = 0.3

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Response, 1 for a good pixel."""
        response = np.ones(shape)
        dead = rng.random(shape) < self.fraction
        response[dead] = rng.uniform(0, self.response_max, int(dead.sum()))
        columns = rng.integers(0, shape[1], self.bad_columns)
        starts = rng.integers(0, shape[0], self.bad_columns)
        for column, start in zip(columns, starts, strict=True):
            response[start:, column] *= rng.uniform(0, self.response_max)
        return response

    def mean(self, shape: tuple[int, int]) -> np.ndarray:
        """Expected response, shape (H, 1): it falls towards the last row when there are bad columns."""
        return self._moment(shape, 1 - self.fraction * (1 - self.response_max / 2), self.response_max / 2)

    def variance(self, shape: tuple[int, int]) -> np.ndarray:
        """Variance of the response, shape (H, 1)."""
        square = self.response_max**2 / 3
        return self._moment(shape, 1 - self.fraction * (1 - square), square) - self.mean(shape) ** 2

    def _moment(self, shape: tuple[int, int], of_pixel: float, of_column: float) -> np.ndarray:
        # Each bad column passes through this pixel's column with 1 / W and begins at or before row y with (y + 1) / H.
        hit = (np.arange(shape[0])[:, None] + 1) / shape[0] / shape[1]
        return of_pixel * (1 - hit * (1 - of_column)) ** self.bad_columns


@dataclass(frozen=True)
class DetectorGap:
    """A band without detector, of a width that makes up `fraction` of the frame; `sample` is True there."""

    fraction: float

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Mask of the missing pixels."""
        missing = np.zeros(shape, dtype=bool)
        axis = int(rng.integers(2))
        # The width is dithered between whole pixels, so that its mean is exact; the band wraps around the frame's edge.
        width = int(self.fraction * shape[axis] + rng.random())
        lines = (rng.integers(shape[axis]) + np.arange(width)) % shape[axis]
        missing[(lines, slice(None)) if axis == 0 else (slice(None), lines)] = True
        return missing

    def mean(self) -> float:
        """Share of missing pixels."""
        return self.fraction

    def variance(self) -> float:
        """Bernoulli."""
        return self.fraction * (1 - self.fraction)


# ---- particles -------------------------------------------------------------------------------------------------------
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
    """Tracks thrown uniformly on the detector: subclasses say what one track is, in `_tracks`."""

    per_mpix: float
    thickness_um: float = 40.0
    pixel_um: float = 15.0
    diffusion_um: float = 5.0
    step_px: float = 0.25
    reach_px: int = 160  # tracks that begin this far outside may still reach into the frame

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Charge to add."""
        height, width = (n + 2 * self.reach_px for n in shape)
        n_tracks = rng.poisson(self.per_mpix * 1e-6 * height * width)
        start_x = rng.uniform(-self.reach_px - 0.5, shape[1] + self.reach_px - 0.5, n_tracks)
        start_y = rng.uniform(-self.reach_px - 0.5, shape[0] + self.reach_px - 0.5, n_tracks)
        steps = self._tracks(rng, n_tracks)
        x, y = start_x[steps.track] + steps.x, start_y[steps.track] + steps.y
        rows, columns, charges = _spread(x, y, steps.charge, steps.sigma_px)
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


# ---- trails ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Trails:
    """Satellites and aircraft: straight lines as wide as the PSF, some of them blinking (on for half of the time).

    Parameters
    ----------
    per_frame : float
        Mean number of trails (Poisson).
    fwhm_px, beta : float
        The PSF as a Moffat profile; across a line it integrates to a power law of index ``beta - 1/2``.
    median_e_per_px, log_sigma : float
        Lognormal charge per pixel of length.
    """

    per_frame: float
    fwhm_px: float = 3.0
    beta: float = 3.5
    median_e_per_px: float = 400.0
    log_sigma: float = 1.0
    blink_fraction: float = 0.3

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Expected charge of the trails; it is light, so the shot noise is drawn on it with the scene's."""
        light = np.zeros(shape)
        for _ in range(rng.poisson(self.per_frame)):
            light += self._one(rng, shape)
        return light

    def mean(self, shape: tuple[int, int]) -> float:
        """Charge per pixel at the frame's centre, far from the lines' ends.

        Lines are thrown with isotropic direction and a uniform offset within the half-diagonal R of the centre, so a
        point in the frame is hit with the density 1 / 2R per pixel of offset.
        """
        return self.per_frame * self._first / (2 * self._radius(shape))

    def variance(self, shape: tuple[int, int]) -> float:
        """Campbell's theorem with the squared cross-section of a line."""
        offsets = np.linspace(-30, 30, 6001) * self.fwhm_px
        squared = np.sum(self._profile(offsets) ** 2) * (offsets[1] - offsets[0])
        return self.per_frame * self._second * squared / (2 * self._radius(shape))

    @property
    def _duty(self) -> float:
        return 1 - self.blink_fraction / 2

    @property
    def _first(self) -> float:
        return self._duty * self.median_e_per_px * float(np.exp(self.log_sigma**2 / 2))

    @property
    def _second(self) -> float:
        return self._duty * self.median_e_per_px**2 * float(np.exp(2 * self.log_sigma**2))

    @staticmethod
    def _radius(shape: tuple[int, int]) -> float:
        return float(np.hypot(*shape)) / 2

    def _profile(self, offset_px: np.ndarray) -> np.ndarray:
        """Line-spread function of a Moffat PSF, integral 1 [1/px]."""
        from scipy.special import gammaln

        alpha = self.fwhm_px / (2 * np.sqrt(2 ** (1 / self.beta) - 1))
        norm = np.exp(gammaln(self.beta - 0.5) - gammaln(self.beta - 1)) / (np.sqrt(np.pi) * alpha)
        return norm * (1 + (offset_px / alpha) ** 2) ** (0.5 - self.beta)

    def _one(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        radius = self._radius(shape)
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-radius, radius)
        charge = self.median_e_per_px * np.exp(rng.normal(0, self.log_sigma))
        y, x = np.ogrid[: shape[0], : shape[1]]
        x, y = x - (shape[1] - 1) / 2, y - (shape[0] - 1) / 2
        across = x * np.sin(angle) - y * np.cos(angle) - offset
        light = charge * self._profile(across)
        blinks, period, phase = rng.random() < self.blink_fraction, rng.uniform(20, 80), rng.random()
        if blinks:
            along = x * np.cos(angle) + y * np.sin(angle)
            light = light * (np.mod(along / period + phase, 1) < 0.5)
        return light


# ---- saturation ------------------------------------------------------------------------------------------------------
def bloom(charge_e: np.ndarray, full_well_e: float) -> np.ndarray:
    """Spill what a full well cannot hold into its column, half upwards and half downwards.

    Charge is conserved except for what leaves the frame at the column's ends.

    Parameters
    ----------
    charge_e : ndarray, shape (H, W)
        Collected charge.
    full_well_e : float
        What one pixel can hold.
    """
    spilled = charge_e.copy()
    for column in np.flatnonzero((charge_e > full_well_e).any(axis=0)):
        line = spilled[:, column]
        excess = np.maximum(line - full_well_e, 0)
        line = np.minimum(line, full_well_e)
        line = _spill(line, excess / 2, full_well_e)
        spilled[:, column] = _spill(line[::-1], excess[::-1] / 2, full_well_e)[::-1]
    return spilled


def _spill(line: np.ndarray, excess: np.ndarray, full_well_e: float) -> np.ndarray:
    """Carry `excess` along increasing index until there is room for it."""
    line, carried = line.copy(), 0.0
    for index in range(int(np.argmax(excess > 0)), line.size):
        carried += excess[index]
        taken = min(carried, full_well_e - line[index])
        line[index] += taken
        carried -= taken
    return line
