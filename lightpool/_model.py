"""A trained model, and how one is opened. Nothing heavy is imported before it is needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightpool import _frames, _images
from pipeline.errors import UserError

if TYPE_CHECKING:
    from astropy.nddata import CCDData
    from astropy.units import Quantity
    from ctapipe.containers import ArrayEventContainer
    from ctapipe.instrument import CameraGeometry, SubarrayDescription, TelescopeDescription
    from numpy.typing import ArrayLike

    from lightpool._frames import FramePredictions
    from lightpool._images import EventPredictions, ImagePredictions
    from pipeline.bundle.card import Card
    from pipeline.bundle.runtime import Predictor

    #: What is accepted as the camera of images in memory.
    CameraLike = CameraGeometry | TelescopeDescription | SubarrayDescription


def list_models() -> list[str]:
    """Names of the trained models that ship with lightpool; `load` takes them.

    Examples
    --------
    >>> isinstance(lightpool.list_models(), list)
    True
    """
    from pipeline.bundle.card import list_bundles

    return list_bundles()


def load(
    name_or_path: str | Path,
    threads: int = 2,
    backend: Literal["auto", "onnxruntime", "openvino", "cuda"] = "auto",
) -> "Model":
    """Open a trained model.

    Parameters
    ----------
    name_or_path : str or path
        Name of a model that ships with lightpool (see `list_models`), or a directory that `lightpool train` made.
    threads : int
        Processor threads that prediction uses.
    backend : {"auto", "onnxruntime", "openvino", "cuda"}
        What computes the network. ``auto``: CUDA, if the onnxruntime that is installed has it and finds a device; for
        sky frames else OpenVINO, if it is installed, the processor multiplies bfloat16 and the result is as good; else
        onnxruntime, which alone gives the same bits everywhere.

    Raises
    ------
    UserError
        If no such model exists, it is incomplete, `threads` is not positive, or the backend is not there.

    Examples
    --------
    >>> lightpool.load("bundles/energy")
    <lightpool model tiny_energy: energy, network by_hand, camera Toy, trained on 0 images>
    """
    from pipeline.bundle.runtime import Predictor

    if threads < 1:
        raise UserError(f"threads is {threads}; it must be at least 1")
    return Model(Predictor.load(name_or_path, threads=threads, backend=backend))


class Model:
    """A trained model, made by `lightpool.load`.

    Attributes
    ----------
    card : Card
        Everything known about it: tasks, input, training, validation, limits, licence.
    """

    def __init__(self, predictor: "Predictor") -> None:
        self._predictor = predictor

    @property
    def card(self) -> "Card":
        """Everything that is known of the model; ``model.card.model_dump()`` gives plain dictionaries."""
        return self._predictor.card

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.card.name

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it was trained for, such as energy, gammaness or denoise."""
        return self.card.tasks

    def __repr__(self) -> str:
        card = self.card
        names = list(dict.fromkeys(camera.name or camera.identity for camera in card.cameras))
        cameras = f", camera{'s' * (len(names) > 1)} {', '.join(names)}" if names else ", FITS frames"
        return (
            f"<lightpool model {card.name}: {', '.join(card.tasks)}, network {card.model.name}{cameras}, "
            f"trained on {card.training.n_images:,} images>"
        )

    def predict(
        self,
        data: "str | Path | tuple[ArrayLike, ArrayLike, CameraLike] | ArrayEventContainer | ArrayLike | "
        "Quantity | CCDData",
        out: str | Path | None = None,
        *,
        event_id: int | None = None,
        tel_id: int | None = None,
        subarray: "SubarrayDescription | None" = None,
        gain_e_per_adu: float | None = None,
        read_noise_e: float | None = None,
        saturation: float | None = None,
        overwrite: bool = False,
    ) -> "ImagePredictions | EventPredictions | FramePredictions":
        """Apply the model.

        Parameters
        ----------
        data
            For a model of camera images:

            - path of a simtel, ctapipe DL1 or lstchain DL1 file;
            - ``(image, peak_time, camera)``: charge [p.e.] and peak time [ns, or a Quantity], each of shape
              (n, n_pixels) or (n_pixels,), NaN or masked without a measurement, and the camera of these pixels: a
              ctapipe SubarrayDescription (with `tel_id` where it has several kinds of telescope),
              TelescopeDescription, or CameraGeometry whose frame has the equivalent focal length;
            - a ctapipe ArrayEventContainer with DL1 images, and its `subarray`.

            For a model of events of several telescopes, a file or an ArrayEventContainer.

            For a model of frames:

            - path of a FITS file;
            - a CCDData: its unit, uncertainty, mask (True marks bad pixels, which are restored), WCS and header are
              used, its flags are not;
            - an image of shape (H, W), as a Quantity or an array. An array counts as ADU. NaN and masked pixels are
              restored.
        out : path, optional
            Also write the product, as ``lightpool predict`` does: DL2 HDF5 of a camera file, FITS of a frame. The
            events of `data` in memory are in no file that DL2 could follow: write `ImagePredictions.table`.
        event_id, tel_id : int, optional
            Only images of this event and telescope (camera files and events; for arrays, `tel_id` chooses the camera
            of a subarray).
        subarray : SubarrayDescription, optional
            For an ArrayEventContainer.
        gain_e_per_adu, read_noise_e : float, optional
            Of the frame [electron/adu, electron]; by default the value in its header. With a gain, the model works in
            electrons; without, the uncertainty is the measured background noise. The result is in the frame's own unit
            either way.
        saturation : float, optional
            Level from which a pixel of the frame is saturated, in its own unit; by default the value in its header.
        overwrite : bool
            Replace `out` where it exists; the file `data` is never replaced.

        Returns
        -------
        ImagePredictions, EventPredictions or FramePredictions
            For a model of camera images, of events of several telescopes, or of frames.

        Raises
        ------
        UserError
            If the data cannot be used by this model; the message lists what it takes. UserError is a ValueError.
        TypeError
            If no model takes data of this type.

        Examples
        --------
        Camera images:

        >>> energy = lightpool.load("bundles/energy")
        >>> result = energy.predict("run.dl1.h5", event_id=101)
        >>> len(result)
        2
        >>> result["reco_energy_tev"][0]
        <Quantity 15.62... TeV>

        Frames:

        >>> denoise = lightpool.load("bundles/denoise")
        >>> restored = denoise.predict("frame.fits")
        >>> restored.data.unit
        Unit("electron")
        """
        frame_options = {
            "gain_e_per_adu": gain_e_per_adu, "read_noise_e": read_noise_e, "saturation": saturation,
        }  # fmt: skip
        image_options = {"event_id": event_id, "tel_id": tel_id, "subarray": subarray}
        out = None if out is None else Path(out)
        if self.card.wing == "camera":
            self._refuse(frame_options, "camera images", "frames")
            return _images.predict(self._predictor, data, out, overwrite, **image_options)
        self._refuse(image_options, "frames", "camera images")
        return _frames.predict(self._predictor, data, out, overwrite, **frame_options)

    def _refuse(self, options: dict[str, Any], own: str, others: str) -> None:
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise UserError(f"{', '.join(given)} is for {others}, and {self.name} is a model for {own}; leave it out")
