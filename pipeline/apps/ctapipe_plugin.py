"""Trained models inside ctapipe: the reconstructor that its entry point group ``ctapipe_reco`` names.

Every tool of ctapipe imports this module at its start, so what is slow is imported when a reconstructor is made: when a
configuration asks for one.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import astropy.units as u
import numpy as np
from ctapipe.containers import TelescopeReconstructedContainer
from ctapipe.core import Provenance, QualityQuery, traits
from ctapipe.reco import Reconstructor

from pipeline.errors import UserError

if TYPE_CHECKING:
    from ctapipe.containers import ArrayEventContainer
    from ctapipe.core import Container
    from ctapipe.core.container import Map
    from ctapipe.instrument import SubarrayDescription

    from pipeline.camera.dl2 import Output
    from pipeline.camera.event_predictions import EventPredictions
    from pipeline.camera.geometry import Camera
    from pipeline.camera.predictions import CameraModel, ImagePredictions

_NO_TABLES = (
    "LightpoolReconstructor works on camera images, and ctapipe-apply-models on tables of their parameters, with a "
    "pickled reconstructor: run `lightpool predict` on the DL1 file, or ctapipe-process with LightpoolReconstructor "
    "in ShowerProcessor.reconstructor_types"
)


class LightpoolReconstructor(Reconstructor):
    """Apply models trained by lightpool to the DL1 images of each event.

    Values per telescope, and their mean over the telescopes of the event, are those that ``lightpool predict`` gives.
    Cleaning and cuts are the models' own: image parameters and quality criteria of ctapipe are not used.
    """

    bundles = traits.List(
        traits.Unicode(),
        help="Directories made by ``lightpool train``, or names of models that ship with lightpool.",
    ).tag(config=True)

    prefix = traits.Unicode(
        default_value=None,
        allow_none=True,
        help=(
            "Name of the predictions. If there are several, each is named PREFIX_TASK. By default they have the names "
            "of their bundles, as those of ``lightpool predict``."
        ),
    ).tag(config=True)

    def __init__(self, subarray: "SubarrayDescription", atmosphere_profile: Any = None, **kwargs: Any) -> None:
        super().__init__(subarray=subarray, atmosphere_profile=atmosphere_profile, **kwargs)
        # Here and not at the first event: ctapipe-process has not yet made its output file.
        with _config_errors():
            self._models = self._load_models()
            self._cameras = self._served_cameras()
            self._outputs = self._make_outputs()
        # For the table of statistics that ctapipe-process writes at the end: images, and how many got a value.
        names = dict.fromkeys(output.prefix for output in self._outputs if not output.of_events)
        criteria = [(f"{name} has a value", f"{name!r} in predicted") for name in names]
        self.quality_query = QualityQuery(parent=self, quality_criteria=criteria)

    # ---- what is configured ------------------------------------------------------------------------------------------
    def _load_models(self) -> "list[CameraModel]":
        from pipeline.bundle.card import ONNX_FILE, resolve_bundle
        from pipeline.bundle.runtime import Predictor
        from pipeline.camera.predictions import CameraModel, distinct

        if not self.bundles:
            raise UserError("bundles is empty; give directories made by `lightpool train`")
        if self.prefix is not None and not self.prefix.isidentifier():
            raise UserError(f"{self.prefix!r} cannot be the prefix of a column; letters, digits and _ can")
        threads = 1 if self.n_jobs is None else self.n_jobs
        if threads < 1:
            raise UserError(f"n_jobs is {threads}; it must be at least 1")
        models = []
        for bundle in self.bundles:
            # As ctapipe treats its own paths: no shell has done it in a configuration file.
            path = os.path.expandvars(os.path.expanduser(bundle))
            predictor = Predictor.load(path, threads=threads)
            if predictor.card.wing != "camera":
                tasks = ", ".join(predictor.card.tasks)
                raise UserError(f"{bundle} is a model for FITS frames ({tasks}); give models for camera images")
            Provenance().add_input_file(resolve_bundle(path) / ONNX_FILE, role="reconstructor", add_meta=False)
            models.append(CameraModel.of(predictor))
        return distinct(models if self.prefix is None else _renamed(models, self.prefix))

    def _served_cameras(self) -> "dict[int, Camera]":
        """Cameras of all telescopes, of which at least one is served."""
        from pipeline.camera.array_events import camera_of_telescope

        cameras = {}
        for tel_id, telescope in self.subarray.tel.items():
            try:
                cameras[tel_id] = camera_of_telescope(telescope)
            except ValueError as error:
                name = telescope.camera.name
                raise UserError(f"camera {name} of telescope {tel_id} cannot be used: {error}") from error
        served = [any(model.predictor.serves(c.identity) for model in self._models) for c in cameras.values()]
        if not any(served):
            here = ", ".join(sorted({f"{camera.name} ({camera.identity})" for camera in cameras.values()}))
            known = {f"{c.name} ({c.identity})" for model in self._models for c in model.predictor.card.cameras}
            raise UserError(f"no bundle is for a camera of this array: it has {here}; they are for {_listed(known)}")
        self.log.info("%d of %d telescopes are served", sum(served), len(served))
        return cameras

    def _make_outputs(self) -> "list[Output]":
        """What has a place in ctapipe's events."""
        from pipeline.camera.dl2 import outputs_of

        heads = [head for model in self._models for head in model.heads]
        outputs = [o for h in heads for o in outputs_of(h.prefix, h.spec.columns, of_events=h.of_events)]
        placed = [output for output in outputs if output.group in TelescopeReconstructedContainer.fields]
        if not placed:
            names = _listed({head.spec.name for head in heads})
            raise UserError(f"ctapipe has no place for {names}; use `lightpool predict --json` for these models")
        if left_out := {head.prefix for head in heads} - {output.prefix for output in placed}:
            self.log.warning("ctapipe has no place for %s; `lightpool predict --json` gives them", _listed(left_out))
        return placed

    # ---- events ------------------------------------------------------------------------------------------------------
    def __call__(self, event: "ArrayEventContainer") -> None:
        """Fill ``event.dl2`` with the predictions for every telescope that triggered, and for the event.

        Where a model has no value (an image that fails its cuts, a camera that it is not for, an event that is no
        shower), ``is_valid`` is false and the value NaN.

        Raises
        ------
        TraitError
            If the event has no DL1 images.
        """
        from pipeline.camera.array_events import images_of_event, telescopes_with_images
        from pipeline.camera.event_predictions import predict_event

        tel_ids = sorted(map(int, event.trigger.tels_with_trigger))
        with _config_errors():
            with_image = [tel_id for tel_id in telescopes_with_images(event) if tel_id in tel_ids]
            if tel_ids and not with_image:
                raise UserError(
                    f"event {event.index.event_id} has no DL1 images: give a file that has them, as "
                    "ctapipe-process --write-images makes it"
                )
            chunks = images_of_event(event, self.subarray, self._cameras, sorted(with_image))
            of_images, of_event = predict_event(list(chunks), self._models)
            images = {predictions.tel_id: predictions for predictions in of_images}
        for predictions in images.values():
            predicted = {prefix for prefix, (reason,) in predictions.reasons.items() if not reason}
            self.quality_query(predicted=predicted)
        for output in self._outputs:
            if output.of_events:
                _fill_predicted(event.dl2.stereo, output, of_event)
                continue
            for tel_id in tel_ids:
                _fill_telescope(event.dl2.tel[tel_id], output, images.get(tel_id))
            if output.is_averaged:
                _fill_event(event.dl2.stereo, output, images)

    # ---- what cannot be ----------------------------------------------------------------------------------------------
    def predict_table(self, key: Any, table: Any) -> NoReturn:
        """What ctapipe-apply-models asks for: refused."""
        raise traits.TraitError(_NO_TABLES)

    def __getstate__(self) -> NoReturn:
        raise TypeError(_NO_TABLES)


@contextmanager
def _config_errors() -> Iterator[None]:
    """Errors that the user can fix, as those that ctapipe's tools print in one line (exit code 2)."""
    try:
        yield
    except UserError as error:
        raise traits.TraitError(f"LightpoolReconstructor: {error}") from error


def _renamed(models: "Sequence[CameraModel]", prefix: str) -> "list[CameraModel]":
    """The same models, their predictions named by `prefix`, and by the task where there are several."""
    single = sum(len(model.heads) for model in models) == 1
    return [
        replace(
            model,
            heads=tuple(replace(h, prefix=prefix if single else f"{prefix}_{h.spec.name}") for h in model.heads),
        )
        for model in models
    ]


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


# ---- containers ------------------------------------------------------------------------------------------------------
def _fill_telescope(dl2: "Container", output: "Output", image: "ImagePredictions | None") -> None:
    """The values for one image; NaN where there is none, or the deciding one is not finite."""
    values = {}
    if image is not None:
        of_image = image.values[output.prefix]
        values = {column.dl2.name: float(of_image[column.name][0]) for column in output.columns}
    valid = bool(np.isfinite(values.get(output.value.dl2.name, np.nan)))
    _fill(dl2[output.group], output, f"{output.prefix}_tel", values if valid else {}, valid)


def _fill_event(dl2: "Container", output: "Output", images: "Mapping[int, ImagePredictions]") -> None:
    """The mean over telescopes, as in the files that ``lightpool predict`` writes."""
    mean = output.combiner(1)
    event = np.zeros(1, np.int64)
    used = []
    for tel_id, image in images.items():
        of_image = image.values[output.prefix]
        values = {column.dl2.name: of_image[column.name] for column in output.columns}
        if mean.add(event, values, image.size_pe).any():
            used.append(tel_id)
    averaged = {name: float(value) for name, (value,) in mean.result().items()}
    valid = bool(np.isfinite(averaged[output.value.dl2.name]))
    _fill(dl2[output.group], output, output.prefix, averaged, valid).telescopes = used


def _fill_predicted(dl2: "Container", output: "Output", predictions: "EventPredictions | None") -> None:
    """What was predicted for the event as a whole."""
    values: dict[str, float] = {}
    used: list[int] = []
    if predictions is not None and len(predictions):
        of_event = predictions.values[output.prefix]
        values = {column.dl2.name: float(of_event[column.name][0]) for column in output.columns}
        mask = predictions.used[output.prefix][0]
        used = [tel_id for tel_id, is_used in zip(predictions.tel_ids, mask, strict=True) if is_used]
    valid = bool(np.isfinite(values.get(output.value.dl2.name, np.nan)))
    _fill(dl2[output.group], output, output.prefix, values if valid else {}, valid).telescopes = used


def _fill(of_group: "Map", output: "Output", prefix: str, values: Mapping[str, float], valid: bool) -> "Container":
    """A new container, in place of what an input file may hold there; NaN where `values` (by column) has none."""
    container = of_group.default_factory()
    # Names of columns that begin with the word for their container (impact_distance): ctapipe has it in the prefix.
    own = f"{container.default_prefix}_"
    has_own = bool(container.default_prefix) and all(q.name.startswith(own) for q in output.quantities)
    container.prefix = f"{prefix}_{container.default_prefix}" if has_own else prefix
    for quantity in output.quantities:
        # Always float64: ctapipe's writer gives a column the type of its first value.
        value = values.get(quantity.name, np.nan)
        field = quantity.name.removeprefix(own) if has_own else quantity.name
        container[field] = u.Quantity(value, quantity.unit) if quantity.unit else value
    if "is_valid" in container.fields:  # those of telescopes alone have none
        container.is_valid = valid
    of_group[output.prefix] = container
    return container
