"""FITS frames and images in memory: what is accepted, and what comes back."""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightpool._inputs import check_output
from lightpool._memory import TAKES, hdus_of, stripped
from pipeline.errors import UserError
from pipeline.logs import get_logger

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.nddata import CCDData
    from astropy.units import Quantity, UnitBase
    from astropy.wcs import WCS

    from pipeline.bundle.card import Card
    from pipeline.bundle.runtime import Predictor
    from pipeline.config import Config
    from pipeline.sky.frames import Frame, FrameProduct


log = get_logger(__name__)


class FramePredictions:
    """A model's result for a frame, in the frame's own unit.

    A FITS file may hold several science images: then `len` is their number, ``result[0]`` is the result for the
    first, and only such a single result has `data` and the attributes below.

    Attributes
    ----------
    data : Quantity or ndarray, shape (H, W)
        The restored image. An ndarray where an array was given, or where astropy does not know the unit.
    uncertainty : Quantity or ndarray, shape (H, W)
        Its 1 sigma.
    dq : ndarray of uint16, shape (H, W)
        Bits: 1 bad pixel, 2 hot pixel, 4 saturated, 8 cosmic ray, 16 trail, 32 missing data, 64 restored by the model,
        128 low confidence, 256 bleed, 512 ghost.
    planes : dict
        Further planes that the model predicts, by the name of their FITS extension.
    notes : tuple of str
        What was taken from the header or the arguments, and what is unknown.
    warnings : tuple of str
        What was not believed or had to be assumed, so that the numbers mean something else than the file says.
    header : Header
        Of the science image as it came.

    Examples
    --------
    >>> import numpy as np
    >>> model = lightpool.load("bundles/denoise")
    >>> model.predict("frame.fits")
    <FramePredictions by tiny_denoise: 64 x 70 px in electron; 0 pixels restored, 0 saturated, 0 missing>
    >>> image = np.random.default_rng(0).normal(200, 15, (40, 50))
    >>> image[3, 4] = np.nan
    >>> result = model.predict(image, gain_e_per_adu=1.5, read_noise_e=5)
    >>> result
    <FramePredictions by tiny_denoise: 40 x 50 px in adu; 1 pixel restored, 0 saturated, 1 missing>
    >>> bool(np.isfinite(result.data[3, 4])), int(result.dq[3, 4])
    (True, 96)
    """

    def __init__(
        self,
        source: "Path | fits.HDUList",
        images: "Sequence[tuple[Frame, FrameProduct]]",
        card: "Card",
        backend: "Mapping[str, str]",
        cfg: "Config",
        elapsed_s: float,
        *,
        bare: bool = False,
    ) -> None:
        self._source, self._images, self._card, self._backend = source, tuple(images), card, backend
        self._cfg, self._elapsed_s = cfg, elapsed_s
        self._bare = bare  # an array was given, so arrays are returned

    # ---- one or several --------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> "FramePredictions":
        image = self._images[number]
        made_by = self._card, self._backend, self._cfg, self._elapsed_s
        return FramePredictions(self._source, [image], *made_by, bare=self._bare)

    def __iter__(self) -> Iterator["FramePredictions"]:
        return (self[number] for number in range(len(self)))

    def __repr__(self) -> str:
        if len(self) > 1:
            numbers = ", ".join(str(frame.science_hdu) for frame, _ in self._images)
            return f"<FramePredictions by {self._card.name}: {len(self)} science images, in HDUs {numbers}>"
        from pipeline.sky.dq import DQ, has

        frame, _ = self._only
        counts = {bit: int(np.count_nonzero(has(self.dq, bit))) for bit in (DQ.RESTORED, DQ.SATURATED, DQ.MISSING)}
        restored = counts[DQ.RESTORED]
        return (
            f"<FramePredictions by {self._card.name}: {frame.shape[0]} x {frame.shape[1]} px in {frame.stored_unit}; "
            f"{restored} pixel{'s' * (restored != 1)} restored, {counts[DQ.SATURATED]} saturated, "
            f"{counts[DQ.MISSING]} missing>"
        )

    @property
    def _only(self) -> "tuple[Frame, FrameProduct]":
        if len(self) != 1:
            raise UserError(f"the file has {len(self)} science images; take one: result[0] to result[{len(self) - 1}]")
        return self._images[0]

    # ---- planes ----------------------------------------------------------------------------------------------------
    @property
    def data(self) -> "Quantity | np.ndarray":
        """The restored image, shape (H, W)."""
        return self._in_own_unit(self._only[1].sci)

    @property
    def uncertainty(self) -> "Quantity | np.ndarray":
        """1 sigma of `data`, shape (H, W)."""
        return self._in_own_unit(self._only[1].err)

    @property
    def dq(self) -> np.ndarray:
        """Bits, shape (H, W), uint16."""
        return self._only[1].dq

    @property
    def planes(self) -> "dict[str, Quantity | np.ndarray]":
        """Further planes by the name of their FITS extension, shape (H, W)."""
        frame, product = self._only
        return {
            name: self._in_own_unit(plane) if unit == frame.stored_unit else _quantity(plane, _parsed(unit))
            for name, (plane, unit) in product.planes.items()
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken from the header or the arguments, and what is unknown."""
        return self._only[0].notes

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was not believed or had to be assumed, so that the numbers mean something else than the file says."""
        return self._only[1].warnings

    @property
    def header(self) -> "fits.Header":
        """Header of the science image as it came."""
        return self._only[0].header

    def _in_own_unit(self, values: np.ndarray) -> "Quantity | np.ndarray":
        return values if self._bare else _quantity(values, _unit_of(self._only[0]))

    def aperture_error(
        self, x: "float | np.ndarray", y: "float | np.ndarray", radius_px: float
    ) -> "Quantity | np.ndarray":
        """1 sigma of sums of `data` in circles, shape (n,): neighbours' errors go together after a restoration.

        Parameters
        ----------
        x, y : float or ndarray, shape (n,)
            Centres [px], integers at the centres of pixels.
        radius_px : float

        Raises
        ------
        UserError
            If the radius is not positive.

        Examples
        --------
        >>> result = lightpool.load("bundles/denoise").predict("frame.fits")
        >>> result.aperture_error([20, 40], 30, radius_px=3).shape
        (2,)
        """
        _, product = self._only
        header = {keyword: value for keyword, value, _ in product.cards}
        return self._in_own_unit(aperture_error(x, y, radius_px, err=product.err, dq=product.dq, header=header))

    # ---- other forms -----------------------------------------------------------------------------------------------
    def to_ccddata(self) -> "CCDData":
        """The restored image for ccdproc, photutils and their like.

        Returns
        -------
        CCDData
            With `uncertainty` as StdDevUncertainty, the WCS and header, `dq` as flags. The mask is true where the
            image's light is not in the frame (saturated, missing) or the result is of low confidence, whatever was
            restored there. Without a unit, it is ADU.

        Examples
        --------
        >>> ccd = lightpool.load("bundles/denoise").predict("frame.fits").to_ccddata()
        >>> ccd.unit, ccd.shape, int(ccd.mask.sum())
        (Unit("electron"), (64, 70), 0)
        """
        from astropy.nddata import CCDData, StdDevUncertainty

        from pipeline.sky.dq import DQ, LOST, has

        frame, product = self._only
        ccd = CCDData(
            product.sci,
            unit=_unit_of(frame) or "adu",
            uncertainty=StdDevUncertainty(product.err),
            mask=has(product.dq, LOST | DQ.LOW_CONFIDENCE),
            wcs=_wcs(frame.header, self._source),
            meta=stripped(frame.header),
        )
        ccd.flags = product.dq
        return ccd

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write FITS as ``lightpool predict`` does: SCI, ERR, DQ and further planes into a copy of the file.

        All other HDUs, header cards and the WCS are kept; ``PATH.provenance.json`` records how it was made. For
        ``result[n]``, only that image is replaced.

        Returns
        -------
        path
            `path`.

        Raises
        ------
        UserError
            If the name does not end in .fits or .fit (.gz), `path` is the file that was restored, or it exists and
            `overwrite` is false.
        """
        from pipeline.stages.products import write_frames

        path = Path(path)
        source = self._source if isinstance(self._source, Path) else "an image"
        check_output(path, "sky", source, overwrite)
        products = [product for _, product in self._images]
        started = time.monotonic() - self._elapsed_s
        made_by = self._card, self._backend, self._cfg
        write_frames(self._source, path, products, *made_by, started=started, force=overwrite)
        return path


def aperture_error(
    x: "float | np.ndarray",
    y: "float | np.ndarray",
    radius_px: float,
    *,
    err: np.ndarray,
    dq: np.ndarray,
    header: "Mapping[str, Any]",
) -> np.ndarray:
    """1 sigma of sums of a restored image in circles, from a file that ``lightpool predict`` has written.

    Errors of neighbouring pixels go together after a restoration: their squares must not simply be added.

    Parameters
    ----------
    x, y : float or ndarray, shape (n,)
        Centres [px], integers at the centres of pixels.
    radius_px : float
    err, dq : ndarray, shape (H, W)
        Extensions ERR and DQ.
    header : Header
        Of the science image, with the cards LPRMS and LPCOR3 to LPCOR17.

    Returns
    -------
    ndarray, shape (n,)
        In the unit of `err`; NaN of circles outside the image.

    Raises
    ------
    UserError
        If the header is not that of a product, the shapes differ, or the radius is not positive.

    Examples
    --------
    >>> from astropy.io import fits
    >>> product = lightpool.load("bundles/denoise").predict("frame.fits").write("restored.fits", overwrite=True)
    >>> with fits.open(product) as hdus:
    ...     lightpool.aperture_error(20, 30, 3, err=hdus["ERR"].data, dq=hdus["DQ"].data, header=hdus[0].header)
    array([...])
    """
    from pipeline.sky.aperture_errors import aperture_errors

    x, y = np.broadcast_arrays(np.atleast_1d(x), np.atleast_1d(y))
    return aperture_errors(np.asarray(err), np.asarray(dq), header, x, y, radius_px)


def predict(
    predictor: "Predictor",
    data: Any,
    out: Path | None,
    overwrite: bool,
    *,
    gain_e_per_adu: float | None,
    read_noise_e: float | None,
    saturation: float | None,
) -> FramePredictions:
    """`Model.predict` of a model of frames."""
    from pipeline.bundle.backends import facts_of
    from pipeline.config import parse_config
    from pipeline.sky.frame_results import product_of
    from pipeline.sky.frames import read_frames
    from pipeline.sky.restore import restore_frame

    started = time.monotonic()
    name = predictor.card.name
    given = {"gain_e_per_adu": gain_e_per_adu, "read_noise_e": read_noise_e, "saturation_adu": saturation}
    known = {key: value for key, value in given.items() if value is not None}
    cfg = parse_config({"backend": predictor.asked_for, "ingest": {"sky": known}})
    from_file = isinstance(data, str | Path)
    if from_file:
        label = readable = _fits_file(Path(data), name)
        source = label.absolute()  # it is read again when the result is written
    else:
        label, (source, readable) = "an image", hdus_of(data, name)
    check_output(out, "sky", label, overwrite)
    how = cfg.predict.tile_px, cfg.predict.overlap_px, cfg.predict.outside_range, cfg.predict.bayer
    frames = read_frames(readable, cfg.ingest.sky)
    images = [(frame, product_of(frame, restore_frame(frame, predictor, *how))) for frame in frames]
    for text in dict.fromkeys(text for _, product in images for text in product.warnings):
        log.warning("%s: %s", getattr(label, "name", label), text)
    elapsed_s = time.monotonic() - started
    bare = not (from_file or hasattr(data, "unit"))
    made_by = predictor.card, facts_of(predictor.backend), cfg, elapsed_s
    result = FramePredictions(source, images, *made_by, bare=bare)
    if out is not None:
        result.write(out, overwrite=overwrite)
    return result


def _fits_file(path: Path, name: str) -> Path:
    from pipeline.stages.prediction_plan import WING, predictable_kind

    if WING[predictable_kind(path)] != "sky":
        raise UserError(f"{path} holds camera images, and {name} is a model for frames: it takes {TAKES}")
    return path


# ---- units and coordinates -------------------------------------------------------------------------------------------
def _quantity(values: np.ndarray, unit: "UnitBase | None") -> "Quantity | np.ndarray":
    from astropy.units import Quantity

    return values if unit is None else Quantity(values, unit, copy=False)


def _unit_of(frame: "Frame") -> "UnitBase | None":
    """The unit that the pixels came in, as far as astropy knows it; counts and data numbers keep their names."""
    from astropy import units

    if frame.stored_unit == "electron":
        return units.electron
    written = _parsed(frame.searched.text("BUNIT"))
    if frame.stored_unit == "adu":
        return written if written in (units.count, units.DN) else units.adu
    return written


def _parsed(unit: str) -> "UnitBase | None":
    from astropy import units

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spellings that the FITS standard deprecates
        try:
            return units.Unit(unit) if unit.strip() else None
        except ValueError:
            return None


def _wcs(header: "fits.Header", source: "Path | fits.HDUList") -> "WCS | None":
    """The WCS of a science image, with tables of distortions in other HDUs."""
    from astropy.io import fits

    from pipeline.sky.coordinates import wcs_of

    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")  # repairs of old keywords
        return wcs_of(header, stack.enter_context(fits.open(source)) if isinstance(source, Path) else source)
