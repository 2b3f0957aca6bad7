"""The uncertainty of a frame: from its file or from a model, as far as the noise of its pixels agrees.

The noise that a header or a plane predicts is compared with the measured one in boxes all over the frame, in both
directions. Where they disagree, the pixels are right.
"""

from dataclasses import replace

import numpy as np

from pipeline.sky.background import BoxNoise, box_noise
from pipeline.sky.frames.frame import Frame
from pipeline.sky.frames.scale import LEAST_NOISE_E, LEVEL_SIGMA, MODEL_FACTOR
from pipeline.sky.headers import find_exposure, find_gain, parsed_unit
from pipeline.sky.remarks import Remarks
from pipeline.sky.strips import Image, LazyImage, computed, constant, nonzero, part_of

# An uncertainty that came with the frame is not believed if the noise of the pixels is larger by the first, or smaller
# by the second: it may include more than noise (flat field, background).
_MORE, _LESS = 1.5, 2.0
_STRICT = 1.25
# Pixels with less noise than this share of the model may be electrons per second: no average is of a hundred frames.
_RATE_SHARE = 0.1


def checked_uncertainty(
    frame: Frame,
    given: Image | None = None,
    source: str = "of the file",
    *,
    strict: bool = False,
    measured: BoxNoise | None = None,
) -> Frame:
    """A frame with an uncertainty that its pixels do not contradict.

    Parameters
    ----------
    frame : Frame
        `level` and `noise` are those of its `sci`; its `err` is not used.
    given : ndarray or LazyImage, shape (H, W), optional
        One sigma, in the frame's unit. It is kept if it is between 1/1.5 and 2 times the noise of the pixels, where
        noise that is correlated between neighbours counts as a whole. Else, and without one, it is modelled.
    source : str
        What `given` is, for the warning: "of the file", "after calibration".
    strict : bool
        Allow a factor of 1.25 only: for a plane that lightpool wrote beside pixels that another program has changed.

    measured : BoxNoise, optional
        Of the exposed part, in the frame's unit; measured here if not given.

    Returns
    -------
    Frame
        With `err`, further `notes` and `warnings`; with `zero_known` false if a known zero point was contradicted. In
        memory if the frame is.
    """
    remarks = Remarks(frame.notes, frame.warnings)
    part = frame.exposed
    if measured is None:
        measured = box_noise(part_of(frame.sci, part), nonzero(part_of(frame.dq, part)))
    zero_known = frame.zero_known
    if given is not None:
        factors = (_STRICT, _STRICT) if strict else (_MORE, _LESS)
        contradiction = _contradicts_plane(part_of(given, part), measured, factors)
        if contradiction is None:
            return replace(frame, err=given)
        remarks.warn(f"the uncertainty {source} is not believed: {contradiction}; another takes its place")
    variance, believed = _modelled_variance(frame, measured, remarks)
    if variance is None:
        err = constant(frame.shape, frame.noise, np.float32)
    else:
        err = computed(lambda v: _root(v, frame.noise), variance, dtype=np.float32)
    return replace(
        frame,
        err=err if isinstance(frame.sci, LazyImage) else np.asarray(err),
        err_modelled=True,
        zero_known=zero_known and believed,
        notes=tuple(remarks.notes),
        warnings=tuple(remarks.warnings),
    )


def _root(variance: np.ndarray, noise: float) -> np.ndarray:
    return np.sqrt(np.where(np.isfinite(variance), variance, np.float32(noise**2))).astype(np.float32)


def _contradicts_plane(given: Image, measured: BoxNoise, factors: tuple[float, float]) -> str | None:
    if not len(measured):
        return None
    expected = measured.medians_of(given)
    too_small = np.quantile(measured.pixel / expected, 0.25) > factors[0]
    too_large = np.median(measured.coarse / expected) * factors[1] < 1
    if not (too_small or too_large):
        return None
    noise = np.median(measured.pixel if too_small else measured.coarse)
    return f"it is {np.median(expected):.3g} in the sky, where the noise of the pixels is {noise:.3g}"


def _modelled_variance(frame: Frame, measured: BoxNoise, remarks: Remarks) -> tuple[LazyImage | None, bool]:
    """Variance of every pixel (None: that of the background), and whether a known zero point agrees with the noise."""
    if frame.unit != "electron":
        return _variance_without_gain(frame, remarks), True
    if not frame.zero_known:
        remarks.note("uncertainty from the measured background noise and the photon statistics above the background")
        return _with_sources(frame, 1.0), True
    read_noise = frame.read_noise_e or 0.0
    if len(measured):
        expected = np.sqrt(np.maximum(measured.level, 0) + read_noise**2)
        if np.median(measured.spread) * MODEL_FACTOR < max(np.median(expected), LEAST_NOISE_E):
            return _variance_of_averages(frame, float(np.median(expected)), remarks), False
        known = frame.read_noise_e is not None
        if known and np.quantile(measured.pixel / np.maximum(expected, 1e-30), 0.25) > MODEL_FACTOR:
            return _variance_above_sky(frame, float(np.median(expected)), remarks), False
    if frame.read_noise_e is None:
        remarks.note("uncertainty from the measured background noise and the photon statistics above the background")
        return _with_sources(frame, 1.0), True
    remarks.note("uncertainty from photon statistics and read noise")
    variance = computed(lambda sci: np.maximum(sci, 0) + np.float32(read_noise**2), frame.sci, dtype=np.float32)
    return variance, True


def _with_sources(frame: Frame, electrons_per_unit: float) -> LazyImage:
    """The measured background noise, and photon noise of what is above the background."""

    def variance(sci: np.ndarray) -> np.ndarray:
        above = np.maximum(sci - np.float32(frame.level), 0)
        return above / np.float32(electrons_per_unit) + np.float32(frame.noise**2)

    return computed(variance, frame.sci, dtype=np.float32)


def _effective_gain(frame: Frame) -> float | None:
    """Electrons per unit if all of the background's noise is photon noise; None for a background near zero."""
    return frame.level / frame.noise**2 if frame.level > LEVEL_SIGMA * frame.noise else None


def _variance_without_gain(frame: Frame, remarks: Remarks) -> LazyImage | None:
    effective, because = None, ""
    per_second = _electrons_per_second(frame)
    electrons = None if per_second is None else _of_rates(frame, per_second)
    if electrons is not None:
        remarks.note(
            f"uncertainty from the measured background noise, and photon noise of {electrons:.3g} electron per "
            f"{frame.unit} above the background, over the exposure time"
        )
        return _with_sources(frame, electrons)
    if frame.gain_contradicted:
        effective, because = _effective_gain(frame), "the noise of the background gives if zero means no light"
    if frame.gain_contradicted and effective is None:
        gain = None if frame.searched is None else find_gain(frame.searched, Remarks())
        effective = None if gain is None or frame.noise * gain.value > LEAST_NOISE_E else _of_rates(frame, gain.value)
        because = "the gain gives if the pixels are rates per second of exposure"
    if effective is None:
        remarks.note("uncertainty is the measured background noise alone: without a gain, photon noise is not known")
        return None
    remarks.warn(f"photon noise of sources is that of {effective:.3g} electron per {frame.unit}, which {because}")
    return _with_sources(frame, effective)


def _electrons_per_second(frame: Frame) -> float | None:
    """Of one unit of the pixels, if they are rates of electrons, or of counts whose gain is known."""
    from astropy import units

    unit = parsed_unit(frame.unit.lower())  # ELECTRONS/S would be a conductance
    if unit is None or frame.searched is None:
        return None
    if unit.is_equivalent(units.electron / units.s):
        return unit.to(units.electron / units.s)
    gain = find_gain(frame.searched, Remarks()) if unit.is_equivalent(units.adu / units.s) else None
    return None if gain is None else gain.value * unit.to(units.adu / units.s)


def _variance_of_averages(frame: Frame, expected: float, remarks: Remarks) -> LazyImage | None:
    """The pixels have less noise than electrons would have."""
    effective = _effective_gain(frame)
    if effective is None and frame.noise < _RATE_SHARE * expected:
        effective = _of_rates(frame, 1.0)
    remarks.warn(
        f"uncertainty is the measured background noise {frame.noise:.3g}, where photon statistics and read noise give "
        f"{expected:.3g}: the pixels are averaged, resampled or not counts, or their zero point is wrong; photon noise "
        + ("of sources is not included" if effective is None else "of sources is scaled alike")
    )
    return None if effective is None else _with_sources(frame, max(effective, 1.0))


def _of_rates(frame: Frame, gain: float) -> float | None:
    """Electrons per unit, if the pixels can be rates: over the exposure, they have at least half the read noise."""
    exposure = None if frame.searched is None else find_exposure(frame.searched, Remarks())
    if exposure is None or exposure.value <= 1:
        return None
    electrons = gain * exposure.value
    return electrons if frame.noise * electrons >= max(0.5 * (frame.read_noise_e or 0.0), LEAST_NOISE_E) else None


def _variance_above_sky(frame: Frame, expected: float, remarks: Remarks) -> LazyImage:
    """The pixels have more noise than their level explains."""
    remarks.warn(
        f"uncertainty is the measured background noise {frame.noise:.3g} and the photon noise of sources, because "
        f"photon statistics and read noise give only {expected:.3g} in the sky: the sky was subtracted, or the gain is "
        "wrong"
    )
    return _with_sources(frame, 1.0)
