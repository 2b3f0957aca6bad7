"""Bias, dark and flat correction, where configured. Every step checks what it did.

Signal and noise through the steps follow Newberry (1991), PASP 103, 122.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError, UserError
from pipeline.sky.background import robust_background
from pipeline.sky.dq import DQ, flag
from pipeline.sky.frames import Frame
from pipeline.sky.frames.uncertainty import checked_uncertainty
from pipeline.sky.headers import Cards, find_section
from pipeline.sky.master_choice import Target, choose
from pipeline.sky.masters import Master, Recipe, build, exposure_s, rms_of_neighbours, sample, subtracted_before
from pipeline.sky.remarks import Remarks

# A background this many times the pixel noise below zero: more was subtracted than the frame holds.
_FAR_BELOW_SIGMA = 5.0
# Ratio of two exposure times from which a scaled dark is mostly noise, or of another regime of the detector.
_MAX_SCALE = 10.0
# Exposure times that differ by less are equal: headers round them.
_SAME_EXPOSURE = 0.01
# A flat should take structure out of a frame. More by this factor, and by this share of the level, is the flat's own.
_MAX_GROWTH, _MIN_STRUCTURE = 1.2, 0.005
# Boxes along each side in which the structure of the background is measured.
_BOXES = 16
# Pixels of each box that are looked at.
_BOX_SAMPLE = 2000


def calibrate(frame: Frame, cfg: SkyIngestConfig) -> Frame:
    """Subtract bias and dark (scaled by exposure time) and divide by the flat.

    Several files of a kind are combined by their median, see `pipeline.sky.masters`. A pixel that a master does not
    know keeps its value but for the master's level, and is flagged as bad.

    Returns
    -------
    Frame
        `err` includes the noise of the masters; `level` and `noise` are still those before.

    Raises
    ------
    UserError
        If a calibration file is missing, does not fit the frame, or cannot be what it is configured as.
    InputFileError
        If the frame is not in ADU, has no exposure time although a dark is configured, or lies far below zero after a
        subtraction.
    """
    if frame.stored_unit != "adu":
        raise InputFileError(
            f"{frame.path} is in {frame.stored_unit}; bias, dark and flat apply to frames in ADU: remove them from "
            "ingest.sky for this frame"
        )
    work = _Work.of(frame, cfg)
    if cfg.bias:
        _subtract_bias(work)
    if cfg.dark:
        _subtract_dark(work)
    if cfg.flat:
        _divide_by_flat(work)
    return work.finished()


@dataclass
class _Work:
    """A frame on its way through the steps, in ADU.

    Attributes
    ----------
    pixels : ndarray of float32, shape (H, W)
        Without what has been subtracted so far; `offset` of it is still bias.
    added_variance : ndarray or float
        Of the masters [adu^2].
    bad : ndarray of bool, shape (H, W)
    err : ndarray of float32, shape (H, W)
        Of what was read out, in the frame's unit.
    subtracted : float
        Level of what was subtracted.
    """

    frame: Frame
    cfg: SkyIngestConfig
    target: Target
    pixels: np.ndarray
    offset: float
    zero_known: bool
    bad: np.ndarray
    err: np.ndarray
    bias: Recipe | None = None
    response: np.ndarray | None = None
    added_variance: np.ndarray | float = 0.0
    subtracted: float = 0.0
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, frame: Frame, cfg: SkyIngestConfig) -> "_Work":
        gain = frame.gain_e_per_adu
        target = Target.of(frame.path, frame.science_hdu, frame.shape, frame.section, gain, cfg)
        pixels = frame.to_stored(frame.sci)
        bad = np.zeros(frame.shape, bool)
        return cls(frame, cfg, target, pixels, frame.bias_level, frame.zero_known, bad, frame.err)

    def master(self, kind: str) -> Master:
        """Chosen for the frame, combined and checked."""
        master = build(self.recipe(kind))
        self.warnings += master.warnings
        self.bad |= master.bad
        return master

    def recipe(self, kind: str) -> Recipe:
        images, texts = choose(kind, getattr(self.cfg, kind), self.target)
        self.warnings += texts
        return Recipe(kind, images, self.bias, self.frame.section, self.frame.gain_e_per_adu)

    def background(self) -> tuple[float, float]:
        """Median of the exposed pixels without a flag, and the noise of a pixel [adu]."""
        part = self.frame.exposed
        known = np.where(self.frame.dq[part] == 0, self.pixels[part] - np.float32(self.offset), np.nan)
        values = sample(known)
        return float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0, rms_of_neighbours(known)

    def check_above_zero(self, kind: str, subtracted: float) -> None:
        """Refuse a background far below zero, and warn of one below it."""
        level, noise = self.background()
        if level < -_FAR_BELOW_SIGMA * max(noise, 1e-3):
            raise InputFileError(
                f"{self.frame.path}: less the {kind} ({subtracted:.5g} ADU) its background is {level:.4g} ADU, with a "
                f"pixel noise of {noise:.3g}; the {kind} is not of this camera and read-out, or was subtracted before: "
                f"correct ingest.sky.{kind}"
            )
        if level < -noise:
            self.warnings.append(
                f"the background is {level:.3g} ADU less the {kind}, below zero by more than the pixel noise "
                f"({noise:.3g} ADU): the {kind} is too high for this frame, and photometry of its sky is biased"
            )

    def finished(self) -> Frame:
        """In the frame's unit; what became infinite keeps its value."""
        frame = self.frame
        factor, response = np.float32(frame.factor), np.float32(1) if self.response is None else self.response
        sci = (self.pixels - np.float32(self.offset)) * factor
        err = np.sqrt(np.square(self.err) + self.added_variance * factor**2) / response
        lost = ~(np.isfinite(sci) & np.isfinite(err)) & np.isfinite(frame.sci) & np.isfinite(frame.err)
        sci[lost], err[lost] = frame.sci[lost], frame.err[lost]
        dq = frame.dq.copy()
        flag(dq, self.bad | lost, DQ.BAD)
        if n_bad := np.count_nonzero(self.bad | lost):
            self.notes.append(f"{n_bad} pixels that the calibration frames do not know are flagged as bad")
        return replace(
            frame,
            sci=sci.astype(np.float32),
            err=err.astype(np.float32),
            dq=dq,
            bias_level=self.offset,
            zero_known=self.zero_known,
            saturation=None if frame.saturation is None else frame.saturation - self.subtracted,
            notes=(*frame.notes, *self.notes),
            warnings=tuple(dict.fromkeys((*frame.warnings, *self.warnings))),
        )


# ---- the steps -------------------------------------------------------------------------------------------------------
def _subtract_bias(work: _Work) -> None:
    work.bias = work.recipe("bias")  # what darks and flats are freed of, whatever the frame's own state
    bias = build(work.bias)
    done = subtracted_before(work.target.headers)
    if done is not None and not bias.subtracted_before and abs(bias.level) > max(rms_of_neighbours(bias.pixels), 1.0):
        work.warnings.append(
            f"the bias frames are not used: the card {done} says that the bias is subtracted already, and their level "
            f"is {bias.level:.5g} ADU"
        )
        return
    work.warnings += bias.warnings
    work.bad |= bias.bad
    work.pixels = work.pixels - bias.pixels
    work.offset, work.zero_known, work.subtracted = 0.0, True, bias.level
    work.added_variance = work.added_variance + bias.noise**2
    work.check_above_zero("bias", bias.level)
    _check_overscan(work)
    _model_again(work)
    work.notes.append(f"bias subtracted: median of {bias.n_files}")


def _model_again(work: _Work) -> None:
    """The uncertainty, if it was modelled: now that zero means no light, photon statistics give it.

    It is that of the frame with its dark, whose photons make noise though their mean is subtracted.
    """
    frame = work.frame
    if not frame.err_modelled:
        return
    part = frame.exposed
    sci = work.pixels * np.float32(frame.factor)
    level, noise = robust_background(sci[part], frame.dq[part] != 0, work.cfg.background_box_px)
    if noise > 0:
        modelled = checked_uncertainty(replace(frame, sci=sci, level=level, noise=noise, zero_known=True))
        work.err = modelled.err
        work.notes += [f"with the bias subtracted, {note}" for note in modelled.notes if note not in frame.notes]
        work.warnings += [text for text in modelled.warnings if text not in frame.warnings]
        work.zero_known = modelled.zero_known


def _check_overscan(work: _Work) -> None:
    """The overscan holds nothing but bias, so that nothing may be left of it."""
    overscan = find_section(Cards(*work.target.headers), ("BIASSEC",), work.frame.shape, Remarks())
    if overscan is None or work.frame.section is None:
        return
    left = work.pixels[overscan.slices]
    level, noise = float(np.nanmedian(left)), rms_of_neighbours(left)
    if abs(level) > max(noise, 1.0):
        work.warnings.append(
            f"the overscan is {level:.3g} ADU less the bias frames, and should be 0: the bias level has changed since "
            "they were taken, and the frame's level is wrong by that"
        )


def _subtract_dark(work: _Work) -> None:
    seconds = exposure_s(work.target.headers, str(work.frame.path), InputFileError)
    dark = work.master("dark")
    ratio = seconds / dark.exposure_s
    if work.bias is None:
        # Only what grows with time may be scaled: without a bias the dark must have been exposed as long as the frame.
        if abs(ratio - 1) > _SAME_EXPOSURE:
            raise UserError(
                f"the dark {work.cfg.dark[0]} is exposed for {dark.exposure_s:g} s and {work.frame.path} for "
                f"{seconds:g} s; configure ingest.sky.bias too, so that the dark can be scaled"
            )
        scale = 1.0
        _zero_of_unscaled(work, dark)
    else:
        scale = seconds
        if not 1 / _MAX_SCALE <= ratio <= _MAX_SCALE:
            work.warnings.append(
                f"the dark is exposed for {dark.exposure_s:g} s and the frame for {seconds:g} s: scaled by "
                f"{ratio:.3g}, its noise and hot pixels may not fit; take darks of a similar exposure"
            )
    noise = scale * dark.noise
    work.pixels = work.pixels - np.float32(scale) * dark.pixels
    work.subtracted += scale * dark.level
    work.added_variance = work.added_variance + noise**2
    work.check_above_zero("dark", scale * dark.level)
    if noise > work.background()[1]:
        work.warnings.append(
            f"the noise of the dark, {noise:.3g} ADU in this exposure, is larger than the frame's own: subtracting it "
            "makes the frame worse; combine more or longer darks"
        )
    work.notes.append(f"dark subtracted, scaled by exposure time: median of {dark.n_files}")


def _zero_of_unscaled(work: _Work, dark: Master) -> None:
    """A dark of the frame's exposure time takes the bias with it, unless it has lost its own before."""
    if dark.subtracted_before or dark.level < work.offset / 2:
        return
    work.offset, work.zero_known = 0.0, True


def _divide_by_flat(work: _Work) -> None:
    flat = work.master("flat")
    part = work.frame.exposed
    response = np.ones(work.frame.shape, np.float32)
    response[part] = flat.pixels[part]
    light = work.pixels - np.float32(work.offset)
    before, after = _structure(light, work.frame), _structure(light / response, work.frame)
    if after > _MAX_GROWTH * before + _MIN_STRUCTURE:
        work.warnings.append(
            f"the background varies by {after:.1%} of its level after dividing by the flat, and by {before:.1%} before "
            "it: the flat does not fit this frame (another filter, turned, or with another bias)"
        )
    if flat.noise is None:
        work.notes.append("the noise of the flat is not known and not included in the uncertainty")
    else:
        work.added_variance = work.added_variance + np.square(light * np.float32(flat.noise))
    work.pixels = light / response + np.float32(work.offset)
    work.response = response
    work.notes.append(f"divided by the flat: median of {flat.n_files}")


def _structure(light: np.ndarray, frame: Frame) -> float:
    """Robust spread of the background over the frame, relative to its level; 0 where the noise hides it."""
    part = frame.exposed
    light, excluded = light[part], frame.dq[part] != 0
    height, width = light.shape
    rows, columns = max(height // _BOXES, 8), max(width // _BOXES, 8)
    levels, errors = [], []
    for top in range(0, height - rows + 1, rows):
        for left in range(0, width - columns + 1, columns):
            box = (slice(top, top + rows), slice(left, left + columns))
            values = sample(light[box], _BOX_SAMPLE)
            level, noise = robust_background(values, sample(excluded[box], _BOX_SAMPLE), max(values.shape))
            if np.isfinite(level):
                levels.append(level)
                errors.append(1.25 * noise / np.sqrt(values.size))
    level = float(np.median(levels)) if levels else 0.0
    if len(levels) < 4 or level <= 0:
        return 0.0
    low, high = np.quantile(levels, [0.05, 0.95])
    spread = (high - low) / 2
    return float(np.sqrt(max(spread**2 - 3 * np.median(errors) ** 2, 0.0))) / level
