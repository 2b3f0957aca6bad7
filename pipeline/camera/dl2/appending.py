"""Predictions added to a DL2 file that is there: for its events and images, with everything else as it is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.camera.dl2 import contents
from pipeline.camera.dl2.layout import telescope_attributes, telescope_rows
from pipeline.camera.dl2.selection import OfTelescope, Selection
from pipeline.camera.dl2.tables import create_table
from pipeline.camera.dl2.writer import DL2Writer, telescopes_group
from pipeline.camera.keys import KeyIndex
from pipeline.errors import InputFileError, UserError
from pipeline.hdf5 import open_file, open_hdf5, read_columns

# Energies of one shower in two files: float32 and float64 of the same number.
_SAME = 1e-5


class DL2Appender(DL2Writer):
    """Write a copy of a DL2 file with further predictions.

    Each table has a row for every event, or image of a telescope, of the file, in its order; one that was not
    predicted has no value and is not valid. Predictions for other events and images are left out.

    Parameters
    ----------
    path : path
        The copy to make (under a temporary name: see `pipeline.files.atomic_output`).
    source : path
        The DL2 file, of any program that writes ctapipe's layout.
    outputs : sequence of Output
        Columns by head and group, under prefixes that the file does not have.
    provenance : mapping
        Stored as JSON in the root attribute ``LIGHTPOOL PROVENANCE OF PREFIX``, for the first of the prefixes.

    Raises
    ------
    InputFileError
        If the file has such predictions, or its tables contradict each other.
    UserError
        At the end, if none of the images of the file was predicted.
    """

    def _finish(self) -> None:
        import h5py

        from pipeline.output.hdf5 import new_hdf5
        from pipeline.output.whole import check_whole

        with open_file(self.source) as held:
            everything = selection_of(held)
            tel_ids = contents.telescopes_of(held)
        self.n_events = everything.n_events
        everything, predicted = self._matched(everything)
        if not predicted.telescopes:
            raise UserError(f"{self.source} has none of the images that the models are for; nothing is added")
        self._write_means(predicted, tel_ids)
        self._complete(everything)
        self._rows.close()
        check_whole(self._rows_path)
        with new_hdf5(self.path, self.source, rdcc_nbytes=0) as out:
            self._write_predictions(out, everything)
            text = json.dumps(self.provenance, sort_keys=True, default=str).encode()
            name = f"LIGHTPOOL PROVENANCE OF {self.outputs[0].prefix}"
            out.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", len(text)))

    def _matched(self, selection: Selection) -> tuple[Selection, Selection]:
        """All images of the file with their place among the predicted ones (-1: none), and those that have one."""
        everything, found = {}, {}
        predicted = self._predicted()
        for tel_id, images in selection.telescopes.items():
            rows = np.full(len(images.event), -1)
            if tel_id in predicted:
                keys = selection.obs_id[images.event], selection.event_id[images.event]
                place, is_known = KeyIndex(*predicted[tel_id]).find(*keys)
                rows = np.where(is_known, place, -1)
            everything[tel_id] = OfTelescope(rows, images.event)
            if (known := rows >= 0).any():
                found[tel_id] = OfTelescope(rows[known], images.event[known])
        return selection.with_telescopes(everything), selection.with_telescopes(found)

    def _complete(self, selection: Selection) -> None:
        """An empty table for each telescope that has none yet: its rows in the file are without values."""
        nothing = np.empty(0, np.int64)
        for output in self._of_telescopes:
            group = f"/{telescopes_group(output)}"
            values = {column.name: np.empty(0) for column in output.columns}
            for tel_id in selection.telescopes:
                if f"{group}/tel_{tel_id:03d}" not in self._rows:
                    rows = telescope_rows(output, self._types, tel_id, nothing, nothing, values)
                    create_table(self._rows, group, f"tel_{tel_id:03d}", rows, telescope_attributes(output))


def selection_of(file: Any) -> Selection:
    """All events and images of an open DL2 file (h5py).

    Raises
    ------
    InputFileError
        If an event stands twice, or the two tables of triggers name different images.
    """
    contents.index_of(file, contents.TRIGGER)
    ids = contents.keys_of(file, contents.TRIGGER)
    triggered = contents.keys_of(file, contents.TEL_TRIGGER, with_telescope=True)
    tel_ids = contents.telescopes_of(file)
    event, column = np.nonzero(file[contents.TRIGGER].fields("tels_with_trigger")[:])
    image_tel_id = tel_ids[column]
    index = KeyIndex(triggered["obs_id"], triggered["event_id"], triggered["tel_id"])
    row, is_known = index.find(ids["obs_id"][event], ids["event_id"][event], image_tel_id)
    if len(triggered["tel_id"]) != len(event) or not is_known.all():
        raise InputFileError(
            f"{file.filename}: /{contents.TEL_TRIGGER} and tels_with_trigger in /{contents.TRIGGER} do not name the "
            "same images; write the file again with ctapipe-process"
        )
    places = {int(tel_id): event[image_tel_id == tel_id] for tel_id in np.unique(image_tel_id)}
    return Selection(
        trigger_rows=np.arange(len(ids["event_id"])),
        obs_id=ids["obs_id"],
        event_id=ids["event_id"],
        tel_trigger_rows=row,
        image_event=event,
        image_tel_id=image_tel_id,
        telescopes={tel_id: OfTelescope(np.arange(len(own)), own) for tel_id, own in places.items()},
    )


def check_same_events(dl2: Path, images: Path) -> list[str]:
    """Look whether the events of a DL2 file are those of a file with images, before anything is predicted.

    Returns
    -------
    list of str
        A warning if the second file has some of them only.

    Raises
    ------
    UserError
        If it has none of them, or events of the same ids with other true energies, or telescopes that the first lacks.
    """
    with open_hdf5(dl2) as held, open_hdf5(images) as given:
        for file in (held, given):
            if contents.TRIGGER not in file:
                raise InputFileError(f"{file.filename} has no table /{contents.TRIGGER}, by which events are joined")
        ids, others = (contents.keys_of(file, contents.TRIGGER) for file in (held, given))
        _, is_known = KeyIndex(*others.values()).find(*ids.values())
        if not len(is_known):
            raise UserError(f"{dl2} has no events, which predictions could be added to")
        if not is_known.any():
            raise UserError(
                f"{dl2} has none of the events of the file with images: it has {_runs(ids)}, and the images are of "
                f"{_runs(others)}; give the file that it was made from"
            )
        _check_energies(dl2, *(_energies(file) for file in (held, given)))
        if unknown := sorted(set(contents.telescopes_of(given)) - set(contents.telescopes_of(held))):
            raise UserError(
                f"{dl2} has no telescope {unknown[0]}, and the file with images has; they do not belong together"
            )
    if is_known.all():
        return []
    return [f"{np.count_nonzero(~is_known)} of {len(is_known)} events of the DL2 file are not in the file with images"]


def _runs(ids: Mapping[str, np.ndarray]) -> str:
    runs = np.unique(ids["obs_id"]).tolist()
    return (
        f"run {runs[0]}" if len(runs) == 1 else f"{len(runs)} runs from {runs[0]} to {runs[-1]}" if runs else "no run"
    )


def _energies(file: Any) -> tuple[Sequence[np.ndarray], np.ndarray] | None:
    """Keys and true energies of the showers of a simulation."""
    if contents.SHOWER not in file:
        return None
    keys = contents.keys_of(file, contents.SHOWER)
    return tuple(keys.values()), read_columns(file, contents.SHOWER, {"true_energy": "number"})["true_energy"]


def _check_energies(dl2: Path, held: Any, given: Any) -> None:
    """Two simulations may both be run 1."""
    if held is None or given is None:
        return
    row, is_known = KeyIndex(*given[0]).find(*held[0])
    energies = given[1][row] if len(given[1]) else 0.0
    differs = is_known & ~np.isclose(held[1], energies, rtol=_SAME, atol=0.0, equal_nan=True)
    if n := np.count_nonzero(differs):
        first = np.flatnonzero(differs)[0]
        run, event = (int(column[first]) for column in held[0])
        raise UserError(
            f"{dl2}: run {run}, event {event} is of {held[1][first]:.4g} TeV, and in the file with images of "
            f"{given[1][row[first]]:.4g} TeV ({n} events differ): these are other showers of the same ids; give the "
            "file that it was made from"
        )
