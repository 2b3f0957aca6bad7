"""Training from another bundle's weights, frozen parts, SGD, and auxiliary outputs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from synthetic_tiles import camera_batch, sky_batch, write_tiles

from pipeline.bundle.card import load_bundle_card
from pipeline.config import Config, parse_config
from pipeline.errors import InputFileError, UserError
from pipeline.provenance import sha256_file
from pipeline.stages.train import train

MODEL = {"name": "resnet18", "kwargs": {"width": 4, "stem": "stride2", "depths": [1, 1]}}
STANDING_STILL = {"learning_rate": 1e-30, "weight_decay": 0.0, "epochs": 1}


@pytest.fixture(scope="module", autouse=True)
def without_onnx():
    """Only weights are looked at here, and the graphs of thirty bundles would cost minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pipeline.bundle.export.export_graphs", lambda network, card, path: (path / "model.onnx").write_bytes(b"")
        )
        patch.setattr("pipeline.bundle.export.check_graphs", lambda *_: None)
        yield


def config(task: str = "energy", **changes) -> Config:
    section = {"model": MODEL, "scalars": ["log10_hillas_intensity"], "epochs": 2, "batch_size": 16} | changes
    return parse_config(
        {"seed": 5, "threads": 1, "device": "cpu", "networks": {task: section | {"precision": "float32"}}}
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_tiles(tmp_path_factory.mktemp("tiles"), camera_batch(160), equalised={"true_energy_tev": 3}).path


@pytest.fixture(scope="module")
def origin(manifest, tmp_path_factory) -> Path:
    """A bundle for gammaness."""
    return train(config("gammaness"), "gammaness", [manifest], tmp_path_factory.mktemp("origin") / "gammaness")


def weights_of(bundle: Path) -> dict[str, torch.Tensor]:
    return load_file(bundle / "weights.safetensors")


def changed(bundle: Path, origin: Path) -> set[str]:
    """Top-level parts, and stages, of which some weight or statistic is another."""
    new, old = weights_of(bundle), weights_of(origin)
    return {
        ".".join(name.split(".")[: 2 if name.startswith("stages") else 1])
        for name in new
        if name not in old or new[name].shape != old[name].shape or (new[name] - old[name]).abs().max() > 1e-20
    }


# ---- start_from ------------------------------------------------------------------------------------------------------
def test_weights_are_those_of_the_bundle(manifest, origin, tmp_path):
    cfg = config("gammaness", start_from=str(origin), freeze="features", **STANDING_STILL)
    bundle = train(cfg, "gammaness", [manifest], tmp_path / "again")
    assert changed(bundle, origin) == set()
    card = load_bundle_card(bundle)
    assert card.training.origins[0].sha256 == load_bundle_card(origin).bundle_sha256
    words = (bundle / "MODEL_CARD.md").read_text()
    assert "Started from the weights of default_gammaness" in words
    assert "Each pixel's place along the image's long axis" in words


def test_weights_of_another_bundle_are_not_started_from(manifest, origin, tmp_path):
    exchanged = shutil.copytree(origin, tmp_path / "exchanged")
    weights = weights_of(origin)
    save_file({name: tensor + 1 for name, tensor in weights.items()}, exchanged / "weights.safetensors")
    cfg = config("gammaness", start_from=str(exchanged))
    with pytest.raises(InputFileError, match="are not those that its card was written for; copy it again"):
        train(cfg, "gammaness", [manifest], tmp_path / "again")


def test_only_the_last_layer_is_new_for_another_target(manifest, origin, tmp_path):
    cfg = config("energy", start_from=str(origin), freeze="features", **STANDING_STILL)
    bundle = train(cfg, "energy", [manifest], tmp_path / "energy")
    new, old = weights_of(bundle), weights_of(origin)
    assert {name for name in new if not torch.equal(new[name], old[name])} == {"head.output.weight", "head.output.bias"}
    assert len(new["head.output.bias"]) == 2


def test_the_head_is_new_for_other_scalars(manifest, origin, tmp_path):
    cfg = config("gammaness", scalars=["hillas_length"], start_from=str(origin), freeze="features", **STANDING_STILL)
    assert changed(train(cfg, "gammaness", [manifest], tmp_path / "out"), origin) == {"head"}


def test_scalars_keep_the_scale_that_their_weights_learned(origin, tmp_path):
    """Tiles of other energies have other means; the head that is kept knows those of its own training."""
    batch = camera_batch(160, seed=8)
    batch.events["hillas_intensity"] = 10 * batch.events["hillas_intensity"]
    tiles = [write_tiles(tmp_path, batch, equalised={"true_energy_tev": 3}).path]

    def statistics(bundle):
        return load_bundle_card(bundle).input.preparation.scalar_statistics

    cfg = config("gammaness", start_from=str(origin), **STANDING_STILL)
    assert statistics(train(cfg, "gammaness", tiles, tmp_path / "tuned")) == statistics(origin)
    cfg = config("gammaness", **STANDING_STILL)
    (fresh,) = statistics(train(cfg, "gammaness", tiles, tmp_path / "fresh"))
    assert fresh.mean > statistics(origin)[0].mean + 0.5
    cfg = config("gammaness", start_from=str(origin), scalars=["log10_hillas_intensity", "hillas_length"],
                 **STANDING_STILL)  # fmt: skip
    assert statistics(train(cfg, "gammaness", tiles, tmp_path / "more"))[0] == fresh  # with a new head


def test_a_denoiser_can_be_refined(tmp_path):
    manifest = write_tiles(tmp_path, sky_batch(40)).path
    section = {"model": {"name": "conv_autoencoder", "kwargs": {"width": 4, "depth": 1}}, "epochs": 1}
    first = train(config("denoise", scalars=[], **section), "denoise", [manifest], tmp_path / "first")
    cfg = config("denoise", scalars=[], start_from=str(first), freeze=1, **section)
    bundle = train(cfg, "denoise", [manifest], tmp_path / "second")
    assert changed(bundle, first) == {"decoder", "encoder", "expand", "reduce", "head"}
    new, old = weights_of(bundle), weights_of(first)
    # The first level is the stem and the first encoder, in the order of the work; encoder.1 comes after `reduce`.
    assert torch.equal(new["encoder.0.0.weight"], old["encoder.0.0.weight"])
    assert not torch.equal(new["encoder.1.0.weight"], old["encoder.1.0.weight"])


@pytest.mark.parametrize("scalars", [pytest.param(["log10_hillas_intensity"], marks=pytest.mark.slow), []])
def test_auxiliary_outputs_come_and_go(scalars, manifest, tmp_path):
    """They are trained, and a network with them can start from one without, and the other way round."""

    def model(aux):
        return {"name": "googlenet", "kwargs": {"width": 4, "stem": "small", "aux": aux}}

    plain = train(config("gammaness", model=model(False)), "gammaness", [manifest], tmp_path / "plain")
    cfg = config("gammaness", model=model(True), start_from=str(plain), freeze="features", **STANDING_STILL)
    with_aux = train(cfg, "gammaness", [manifest], tmp_path / "with_aux")
    new, old = weights_of(with_aux), weights_of(plain)
    n_parameters = {load_bundle_card(bundle).model.n_parameters for bundle in (plain, with_aux)}
    assert n_parameters == {sum(weight.numel() for weight in old.values())}  # it has no statistics of normalisation
    assert all(torch.equal(new[name], old[name]) for name in old)
    assert {name.partition(".")[0] for name in new.keys() - old.keys()} == {"auxiliary"}
    cfg = config("gammaness", model=model(False), start_from=str(with_aux), **STANDING_STILL)
    back = weights_of(train(cfg, "gammaness", [manifest], tmp_path / "back"))
    assert back.keys() == old.keys()
    # Another target, or other scalars: auxiliary heads give as many outputs as the main one.
    cfg = config("energy", model=model(True), start_from=str(with_aux), scalars=scalars, epochs=1)
    assert len(weights_of(train(cfg, "energy", [manifest], tmp_path / "energy"))["auxiliary.4a.output.bias"]) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "resnet18", "kwargs": MODEL["kwargs"] | {"width": 8}}},
         r"its stem\.0\.weight is 4 x 5 x 3 x 3, here 8 x 5 x 3 x 3 \(one of \d+ differences\); it is a resnet18"),
        ({"model": {"name": "resnet18", "kwargs": MODEL["kwargs"] | {"depths": [1, 2]}}},
         r"it has no stages\.1\.1\.residual\.0\.weight .*train the same model with the same arguments"),
        ({"axis_maps": False}, r"default_gammaness reads charge, peak_time, mask, along_axis, off_axis, and this "
         r"network charge, peak_time, mask; set networks\.energy\.axis_maps: true"),
        ({"start_from": "no/such"}, "there is no bundle 'no/such'"),
        ({"freeze": 3}, r"freeze 3 is more than the 2 levels .* ResNet has \(stages\.0, stages\.1\); take fewer"),
    ],
)  # fmt: skip
def test_bundles_that_do_not_fit(changes, message, manifest, origin, tmp_path):
    with pytest.raises(UserError, match=message):
        train(config(**({"start_from": str(origin)} | changes)), "energy", [manifest], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_weights(manifest, origin, tmp_path):
    copy = shutil.copytree(origin, tmp_path / "copy")
    (copy / "weights.safetensors").unlink()
    with pytest.raises(InputFileError, match=r"has no weights\.safetensors; copy it again, or train it again"):
        train(config(start_from=str(copy)), "energy", [manifest], tmp_path / "out")


# ---- freeze ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("levels", "parts"), [("features", {"head"}), (2, {"head"}), (1, {"head", "stages.1"}),
                          (0, {"head", "stem", "stages.0", "stages.1"})]
)  # fmt: skip
def test_frozen_parts_keep_weights_and_statistics(levels, parts, manifest, origin, tmp_path):
    cfg = config("gammaness", start_from=str(origin), freeze=levels)
    assert changed(train(cfg, "gammaness", [manifest], tmp_path / "out"), origin) == parts


class PulledPlugError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("changes", [{"freeze": 1}, {"optimizer": "sgd", "nesterov": True, "learning_rate": 0.01}])
def test_resuming_gives_the_same_weights(changes, manifest, origin, tmp_path, monkeypatch):
    from pipeline.training.module import TrainingModule

    augmentation = {"rotation": "sixths", "scale": 0.1}
    cfg = config("energy", start_from=str(origin), augmentation=augmentation, **changes)
    undisturbed = train(cfg, "energy", [manifest], tmp_path / "undisturbed")
    unharmed = TrainingModule.training_step

    def stop(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (1, 1):
            raise PulledPlugError
        return unharmed(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", stop)
        with pytest.raises(PulledPlugError):
            train(cfg, "energy", [manifest], tmp_path / "killed")
    resumed = train(cfg, "energy", [manifest], tmp_path / "killed", resume=True)
    for name in ("weights.safetensors", "train_log.csv"):
        assert sha256_file(resumed / name) == sha256_file(undisturbed / name)


def test_checkpoints_belong_to_the_bundle_they_started_from(manifest, origin, tmp_path, monkeypatch):
    copy = tmp_path / "origin"
    shutil.copytree(origin, copy)
    cfg = config("gammaness", start_from=str(copy))
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.stages.train._write", lambda *_: (_ for _ in ()).throw(PulledPlugError))
        with pytest.raises(PulledPlugError):
            train(cfg, "gammaness", [manifest], tmp_path / "out")
    shutil.rmtree(copy)
    train(config("gammaness", epochs=1), "gammaness", [manifest], copy)
    with pytest.raises(UserError, match="another configuration, data or version"):
        train(cfg, "gammaness", [manifest], tmp_path / "out", resume=True)


# ---- what is refused before anything is read -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"freeze": 2},
            r"networks\.energy: freeze 2 would keep weights that were never trained; set start_from as well$",
        ),
        ({"freeze": "head"}, r"networks\.energy\.freeze: Input should be a number of levels .*got 'head'"),
        ({"freeze": -1}, r"networks\.energy\.freeze: Input should be a number of levels .*got -1"),
        ({"nesterov": True, "momentum": 0}, "nesterov needs a momentum above 0"),
        ({"optimizer": "adam"}, r"networks\.energy\.optimizer: Input should be 'adamw' or 'sgd', got 'adam'"),
        ({"augmentation": {"rotation": "thirds"}}, r"rotation: Input should be 'none', 'quarters' or 'sixths'"),
        (
            {"augmentation": {"shift": 1}},
            r"unknown key 'networks\.energy\.augmentation\.shift'; did you mean 'shift_px'",
        ),
    ],
)
def test_settings_that_are_not_accepted(changes, message):
    with pytest.raises(UserError, match=message):
        config(**changes)


def test_augmentation_can_be_switched_as_a_whole():
    assert not config(augmentation=False).network("energy").augmentation.active
    assert config(augmentation=True) == config()


# ---- frames of the sky -----------------------------------------------------------------------------------------------
def test_a_denoiser_is_trained_further_on_a_single_frame_without_truth(tmp_path, rng):
    """Noise2Void from a bundle that was trained against truth: only what is not frozen moves, and the card says it."""
    from astropy.io import fits

    from pipeline.stages.tiles import make_tiles
    from pipeline.tiles import write_manifest

    model = {"name": "conv_autoencoder", "kwargs": {"width": 4, "depth": 1, "skips": True}}

    def settings(**changes):
        section = {"heads": ["denoise"], "model": model, "epochs": 1, "batch_size": 4, "precision": "float32"}
        sky = {"size": 32, "stride": 32, "target": "noise2void"}
        return parse_config(
            {
                "seed": 5,
                "threads": 1,
                "device": "cpu",
                "tiles": {"sky": sky, "splits": {"train": 0.8, "validation": 0.2, "test": 0.0}},
                "networks": {"denoise": section | changes},
            }
        )

    simulated = write_tiles(tmp_path, sky_batch(40), "simulated").path
    start = train(settings(), "denoise", [simulated], tmp_path / "start")
    frame = fits.PrimaryHDU(rng.normal(300, 12, (160, 192)).astype(np.float32))
    frame.header.update(BUNIT="electron", RDNOISE=5.0)
    frame.writeto(tmp_path / "mine.fits")
    cfg = settings(start_from=str(start), freeze="features", epochs=2)
    assert make_tiles([tmp_path / "mine.fits"], cfg, tmp_path)[0]["n_tiles"] == 30
    mine = write_manifest([tmp_path / "mine.tiles.h5"], tmp_path / "mine.json").path
    tuned = train(cfg, "denoise", [mine], tmp_path / "tuned")
    assert changed(tuned, start) == {"head"}
    card = load_bundle_card(tuned)
    assert [origin.sha256 for origin in card.training.origins] == [load_bundle_card(start).bundle_sha256]
    assert card.validation["loss"] > 0
    again = train(cfg, "denoise", [mine], tmp_path / "again")
    assert sha256_file(again / "weights.safetensors") == sha256_file(tuned / "weights.safetensors")
