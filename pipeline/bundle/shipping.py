"""Make the models that ship with lightpool from trained and evaluated bundles: `make pretrained`.

What ships under which name, and from which configuration it is made, stands in `pipeline/data/bundles/shipped.yaml`.
A model that ships has what prediction, `train` with `start_from` and `bundles show` need: its card, graphs and weights;
the weights only if its graph does not hold them as they are. Its networks for single images have no weights, which
nothing reads. Its card has the results of an evaluation, and what the model is for and where it fails.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.bundle.card import (
    CARD_FILE,
    MONO_FOLDER,
    ONNX_FILE,
    README_FILE,
    WEIGHTS_FILE,
    Card,
    EvaluationSection,
    bundles_directory,
    load_bundle_card,
)
from pipeline.bundle.files import check_bundle, graph_files, weights_of_graph
from pipeline.bundle.model_card import card_markdown
from pipeline.config import load_config
from pipeline.documents import read_json, read_yaml
from pipeline.errors import InputFileError, UserError
from pipeline.files import temporary_folder
from pipeline.inputs import Input
from pipeline.inputs.image import ImageInput, population_of
from pipeline.inputs.shower import ShowerInput
from pipeline.provenance import sha256_file
from pipeline.tiles.manifest import Manifest, load_manifests
from pipeline.tiles.reader import TileReader

LIST_FILE = "shipped.yaml"
_MEASURED = ("value", "low", "high")


class ShippedModel(BaseModel):
    """A model that ships: the network of a configuration, what it is for, and where it is known to fail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: str
    network: str
    purpose: str
    failures: tuple[str, ...]


class Target(NamedTuple):
    """Where `make run` leaves a model that ships, in the folder of the results."""

    config: str
    bundle: Path
    evaluation: Path


def shipped_models() -> dict[str, ShippedModel]:
    """The models that ship or will, by name.

    Raises
    ------
    InputFileError
        If the list cannot be read.
    """
    path = bundles_directory() / LIST_FILE
    try:
        return {name: ShippedModel.model_validate(entry) for name, entry in read_yaml(path, "a list of models").items()}
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise InputFileError(f"{path} is not a list of models ({where}: {problem['msg']})") from error


def shipped_model(name: str) -> ShippedModel:
    """The entry of one model.

    Raises
    ------
    UserError
        If it is not in the list.
    """
    models = shipped_models()
    if name not in models:
        raise UserError(f"no model that ships is named {name!r}; {LIST_FILE} has {', '.join(models)}")
    return models[name]


def target_of(model: ShippedModel, results: Path) -> Target:
    """Where the bundle and its evaluation are after `make run` with the model's configuration."""
    run = results / load_config(model.config).name
    return Target(model.config, run / "bundles" / model.network, run / "evaluation" / model.network)


def ship(
    name: str,
    model: ShippedModel,
    bundle: Path,
    evaluation: Path,
    folder: Path | None = None,
    tiles: Sequence[Manifest] = (),
) -> Path:
    """Make the model `name` that ships, in place of an earlier one.

    Parameters
    ----------
    name : str
    model : ShippedModel
    bundle : path
        Trained with the model's configuration.
    evaluation : path
        What `lightpool evaluate` wrote about it.
    folder : path, optional
        Where the models are; default: those of this checkout.
    tiles : sequence of Manifest, optional
        Tiles of the training, or a part of them, for a bundle that does not say what its images of training were like.

    Returns
    -------
    Path
        The bundle.

    Raises
    ------
    InputFileError
        If the bundle is not whole, is of another network or settings than those of the configuration, or the
        evaluation is of another bundle.
    """
    card = load_bundle_card(bundle)
    check_bundle(bundle, card)
    _check_settings(card, model, bundle)
    origin = f"`make pretrained MODEL={name}` makes it from {model.config}, network {model.network}."
    changes = {
        "name": name,
        "purpose": f"{model.purpose} {origin}",
        "failures": model.failures,
        "evaluations": tuple(_evaluated(card, task, evaluation) for task in card.tasks),
    }
    target = (folder or bundles_directory()) / name
    with temporary_folder() as scratch:
        made = scratch / name
        _write(bundle, made, card, changes, tiles=tiles)
        (made / README_FILE).write_text(card_markdown(load_bundle_card(made)), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(made, target)
    return target


def _write(
    bundle: Path,
    made: Path,
    card: Card,
    changes: Mapping[str, Any],
    *,
    weights: bool = True,
    tiles: Sequence[Manifest] = (),
) -> None:
    """What ships of a bundle: its files without curves and logs, and those of its networks for single images."""
    made.mkdir(parents=True)
    for file in graph_files(card):
        shutil.copyfile(bundle / file, made / file)
    digest = card.weights_sha256 or sha256_file(bundle / WEIGHTS_FILE)
    if weights and weights_of_graph(bundle / ONNX_FILE, digest) is None:
        shutil.copyfile(bundle / WEIGHTS_FILE, made / WEIGHTS_FILE)
    else:
        changes = {**changes, "weights_sha256": digest}
    given = card.input.model_copy(update={"preparation": with_population(card, tiles)})
    content = card.model_copy(update={**changes, "input": given}).model_dump(mode="json")
    cleaned = Card.model_validate(without_places(content))
    (made / CARD_FILE).write_text(cleaned.model_dump_json(indent=2) + "\n", encoding="utf-8")
    check_bundle(made, cleaned)
    for number in range(len(card.mono)):
        inner = MONO_FOLDER.format(number=number)
        _write(bundle / inner, made / inner, load_bundle_card(bundle / inner), {}, weights=False, tiles=tiles)


def with_population(card: Card, tiles: Sequence[Manifest]) -> Input:
    """A card's input of camera images, with what those of training were like, if it does not say it yet."""
    given = card.input.preparation
    if not tiles or given.wing != "camera":
        return given
    splits = [TileReader(tiles, split) for split in ("train", "validation")]
    numbers = {camera.identity: number for number, camera in enumerate(splits[0].cameras)}

    def completed(own: ImageInput, number: int) -> ImageInput:
        return own if own.population else own.model_copy(update={"population": population_of(*splits, number)})

    if isinstance(given, ShowerInput):
        cameras = {identity: completed(own, numbers[identity]) for identity, own in given.cameras.items()}
        return given.model_copy(update={"cameras": cameras})
    assert isinstance(given, ImageInput)
    return completed(given, numbers[card.cameras[0].identity])


def without_places(value: Any) -> Any:
    """The same content, where of each absolute path only the last part is left: folders of a machine do not ship."""
    if isinstance(value, Mapping):
        return {key: without_places(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(inner) for inner in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def _check_settings(card: Card, model: ShippedModel, bundle: Path) -> None:
    """Only what the committed configuration makes may ship."""
    cfg = load_config(model.config)
    wanted = cfg.network(model.network).model_dump(mode="json") | {"seed": cfg.seed}
    trained = without_places(card.training.config) | {"seed": card.training.seed}
    if other := [key for key, value in trained.items() if wanted.get(key) != value]:
        raise InputFileError(
            f"{bundle} was trained with {other[0]} {trained[other[0]]}, and {model.network} of {model.config} has "
            f"{wanted.get(other[0])}; train it with this configuration"
        )


def _evaluated(card: Card, task: str, evaluation: Path) -> EvaluationSection:
    path = evaluation / task / "metrics.json"
    content = read_json(path, "metrics of an evaluation")
    if content.get("bundle_sha256") != card.bundle_sha256:
        raise InputFileError(f"{path} is of another bundle than {card.name}; evaluate this one")
    try:
        data, pulls = content["data"], content.get("calibration") or {}
        return EvaluationSection(
            task=task,
            manifests=tuple(PurePath(name).name for name in data["manifests"]),
            n=data["n"],
            n_groups=data["n_groups"],
            metrics=_measured(content["metrics"]),
            baselines={name: _measured(values) for name, values in content["baselines"].items()},
            differences={name: _measured(values) for name, values in content["differences"].items()},
            pull_median=pulls.get("pull_median"),
            pull_width=pulls.get("pull_width"),
        )
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise InputFileError(f"{path} is not what `lightpool evaluate` writes; evaluate the bundle again") from error


def _measured(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: {key: entry.get(key) for key in _MEASURED} for name, entry in values.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """What `make pretrained` calls."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.bundle.shipping", description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="*", help=f"models of {LIST_FILE}; default: all")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the runs (default: results)")
    parser.add_argument("--plan", action="store_true", help="print name, configuration and evaluation to be made")
    parser.add_argument("--bundle", type=Path, help="of one model, if it is elsewhere")
    parser.add_argument("--evaluation", type=Path, help="of one model, if it is elsewhere")
    parser.add_argument(
        "--tiles",
        type=Path,
        help="training tiles, for a bundle that does not say what its images were like",
    )
    given = parser.parse_args(argv)
    try:
        for name in given.name or shipped_models():
            model = shipped_model(name)
            target = target_of(model, given.results)
            if given.plan:
                print(name, target.config, target.evaluation)
            else:
                tiles = load_manifests([given.tiles], shards_outside=True) if given.tiles else ()
                bundle, evaluation = given.bundle or target.bundle, given.evaluation or target.evaluation
                print(ship(name, model, bundle, evaluation, tiles=tiles))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
