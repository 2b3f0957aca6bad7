"""Predictions for camera images and events, one record each."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.camera.event_predictions import EventPredictions
from pipeline.camera.event_types import type_name
from pipeline.camera.predictions import CameraModel, ImagePredictions
from pipeline.records import number


def records_of(
    file: str, predictions: ImagePredictions | EventPredictions, models: Sequence[CameraModel]
) -> Iterator[dict[str, Any]]:
    """One record per image, or per event for models of whole events.

    Each has ids, event type, whether it is valid, the values of these models, and why one has none; of an image the
    camera, of an event (`tel_id` is None) the telescopes used, and `answered_by` mono where that was one.
    `unlikeness` above 1 marks images unlike those of training, and `warnings` say what is. A column that several models
    predict is named PREFIX_COLUMN.
    """
    of_events = isinstance(predictions, EventPredictions)
    own = [model for model in models if model.of_events == of_events]
    names = column_names(own)
    by_mono = predictions.by_mono if of_events else None
    score, unlike = likeness_of(predictions)
    for place, reason in enumerate(predictions.joined_reasons() if own else ()):
        record: dict[str, Any] = {
            "file": file,
            "obs_id": int(predictions.obs_id[place]),
            "event_id": int(predictions.event_id[place]),
        }
        kind = {"event_type": type_name(int(predictions.event_type[place]))}
        if of_events:
            used = np.any([mask[place] for mask in predictions.used.values()], axis=0)
            tel_ids = [tel_id for tel_id, is_used in zip(predictions.tel_ids, used, strict=True) if is_used]
            record |= {"tel_id": None, "tel_ids": tel_ids} | kind
            record["answered_by"] = ("mono" if by_mono[place] else "stereo") if used.any() else None
        else:
            record |= {"tel_id": predictions.tel_id} | kind | {"camera": predictions.camera}
        record["valid"] = not reason
        for (prefix, column), name in names.items():
            record[name] = number(predictions.values[prefix][column][place])
        if score is not None:
            record["unlikeness"] = number(score[place])
        if reason:
            record["reason"] = reason
        if unlike is not None and unlike[place]:
            record["warnings"] = [unlike[place]]
        yield record


def likeness_of(
    predictions: ImagePredictions | EventPredictions,
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Score of each image or event, and what is unlike training."""
    if isinstance(predictions, EventPredictions):
        return predictions.unlikeness, predictions.unlike
    likeness = predictions.likeness
    return (None, None) if likeness is None else (likeness.score, likeness.names())


def column_names(models: Sequence[CameraModel]) -> dict[tuple[str, str], str]:
    """(prefix of a head, column) -> name in records, with the prefix where several heads predict the column."""
    heads = [head for model in models for head in model.heads]
    times = Counter(column for head in heads for column in head.shown)
    return {
        (head.prefix, column): column if times[column] == 1 else f"{head.prefix}_{column}"
        for head in heads
        for column in head.shown
    }
