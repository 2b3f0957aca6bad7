"""Trained networks for Cherenkov-camera images and FITS frames, from Python. No torch is needed to use them.

>>> import lightpool
>>> model = lightpool.load("bundles/energy")  # a directory that `lightpool train` made, or a name of list_models()
>>> result = model.predict("run.dl1.h5")
>>> result["reco_energy_tev"][1:3]
<Quantity [15.62..., 17.39...] TeV>
>>> result.table.colnames
['obs_id', 'event_id', 'tel_id', 'reco_energy_tev', 'reco_energy_uncert_tev', 'valid', 'reason']

>>> restored = lightpool.load("bundles/denoise").predict("frame.fits")
>>> restored.data[0, :2]
<Quantity [205.18..., 212.32...] electron>
>>> restored.write("restored.fits").name
'restored.fits'

The names in ``__all__`` are public, with their arguments, attributes and units. Everything else, in this package and
in `pipeline` and `models`, is private and may change with any version.
"""

from lightpool._frames import FramePredictions, aperture_error
from lightpool._images import EventPredictions, ImagePredictions
from lightpool._model import Model, list_models, load
from pipeline import __version__
from pipeline.errors import UserError

__all__ = [
    "EventPredictions",
    "FramePredictions",
    "ImagePredictions",
    "Model",
    "UserError",
    "__version__",
    "aperture_error",
    "list_models",
    "load",
]
