"""Which events and images of a source are in its DL2 file, and in which order: found by their keys."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.camera.dl2.contents import TEL_TRIGGER, TRIGGER, index_of, keys_of
from pipeline.camera.keys import unique_index

Ids = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class OfTelescope:
    """Images of one telescope, in the order of their events.

    Attributes
    ----------
    rows : ndarray, shape (n,)
        Place of each among the predicted images of the telescope.
    event : ndarray, shape (n,)
        Place of its event in the file.
    """

    rows: np.ndarray
    event: np.ndarray


@dataclass(frozen=True)
class Selection:
    """Events and images of a DL2 file: those that were predicted.

    Attributes
    ----------
    trigger_rows : ndarray, shape (n_events,)
        Rows of the source's table of events, rising: its order is that of all tables of the DL2 file.
    obs_id, event_id : ndarray, shape (n_events,)
        As the source has them.
    tel_trigger_rows : ndarray, shape (n_images,)
        Rows of the source's table of telescope triggers.
    image_event, image_tel_id : ndarray, shape (n_images,)
        Place of the event, and telescope, of each of these rows.
    telescopes : dict
        Telescope -> its images.
    """

    trigger_rows: np.ndarray
    obs_id: np.ndarray
    event_id: np.ndarray
    tel_trigger_rows: np.ndarray
    image_event: np.ndarray
    image_tel_id: np.ndarray
    telescopes: dict[int, OfTelescope]

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.trigger_rows)

    def with_telescopes(self, telescopes: dict[int, OfTelescope]) -> "Selection":
        """The same events with other images."""
        return replace(self, telescopes=telescopes)


def select(source: Any, predicted: Mapping[int, Ids]) -> Selection:
    """Choose the events and images of an open h5py file that were predicted.

    Parameters
    ----------
    source : h5py.File
    predicted : mapping
        Telescope -> obs_id and event_id of its predicted images, in any order.

    Raises
    ------
    InputFileError
        If an event, an image or a trigger of a telescope stands in the source twice.
    ValueError
        If an image has no trigger: the reader of images tells which have.
    """
    events, triggers = index_of(source, TRIGGER), index_of(source, TEL_TRIGGER, with_telescope=True)
    for tel_id, (obs_id, event_id) in predicted.items():
        table = f"/dl1/event/telescope/images/tel_{tel_id:03d}"
        unique_index({"obs_id": obs_id, "event_id": event_id}, Path(source.filename), table)
    trigger_row, tel_trigger_row = {}, {}
    for tel_id, ids in predicted.items():
        trigger_row[tel_id], has_event = events.find(*ids)
        tel_trigger_row[tel_id], has_trigger = triggers.find(*ids, np.full(len(ids[0]), tel_id))
        if n := np.count_nonzero(~(has_event & has_trigger)):
            raise ValueError(f"{n} predicted images of telescope {tel_id} have no trigger in {source.filename}")
    none = np.empty(0, np.int64)
    trigger_rows = np.unique(np.concatenate([none, *trigger_row.values()]))
    event_of = {tel_id: np.searchsorted(trigger_rows, row) for tel_id, row in trigger_row.items()}
    telescopes = {}
    for tel_id, event in event_of.items():
        order = np.argsort(event, kind="stable")
        telescopes[tel_id] = OfTelescope(order, event[order])
    image_event = np.concatenate([none, *event_of.values()])
    image_row = np.concatenate([none, *tel_trigger_row.values()])
    image_tel_id = np.concatenate([none, *(np.full(len(event), tel_id) for tel_id, event in event_of.items())])
    order = np.lexsort((image_row, image_event))
    ids = keys_of(source, TRIGGER)
    return Selection(
        trigger_rows=trigger_rows,
        obs_id=ids["obs_id"][trigger_rows],
        event_id=ids["event_id"][trigger_rows],
        tel_trigger_rows=image_row[order],
        image_event=image_event[order],
        image_tel_id=image_tel_id[order],
        telescopes=telescopes,
    )
