"""Each stage declares the sections of the configuration that it reads: what it really reads is compared.

Snakemake's parameters, provenance and the identity of checkpoints come from these declarations: a key that is read and
not declared would leave stale results without a word.
"""

import warnings
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.config import digest_of, load_config
from pipeline.stages import evaluate, ingest, manifest, predict, simulate_showers, simulate_sky, tiles, train

# What every stage may read: it decides how fast a result comes, what is kept of it meanwhile, in which folder it is,
# and how many runs there are.
FREE = ("name", "device", "threads", "checkpoint_minutes", "showers.scale")


class Recorder:
    """Stands for a section of the configuration and notes which keys are read, with their full names."""

    def __init__(self, section, read, prefix=""):
        self.__dict__.update(_section=section, _read=read, _prefix=prefix)

    def __getattr__(self, key):
        value = getattr(self._section, key)
        if key not in type(self._section).model_fields:
            if callable(value):  # a method of the section: it reads through this recorder, too
                return lambda *args, **kwargs: getattr(type(self._section), key)(self, *args, **kwargs)
            attribute = type(self._section).__dict__[key]
            return attribute.fget(self) if isinstance(attribute, property) else value
        return self._of(value, f"{self._prefix}{key}")

    def _of(self, value, name):
        if isinstance(value, BaseModel):
            return Recorder(value, self._read, f"{name}.")
        if isinstance(value, dict) and value and all(isinstance(entry, BaseModel) for entry in value.values()):
            return {key: Recorder(entry, self._read, f"{name}.{key}.") for key, entry in value.items()}
        self._read.add(name)
        return value

    def model_dump(self, **kwargs):
        """For provenance, which is made of the declaration: that is no reading."""
        return self._section.model_dump(**kwargs)

    def model_copy(self, update):
        update = {key: getattr(value, "_section", value) for key, value in update.items()}
        return Recorder(self._section.model_copy(update=update), self._read, self._prefix)

    def __eq__(self, other):
        return self._section == getattr(other, "_section", other)

    def __hash__(self):
        return hash(self._section)


def undeclared(read, declared):
    """Keys that were read, and are neither declared nor part of a declared section."""
    return sorted(
        key for key in read if key and not any(key == name or key.startswith(f"{name}.") for name in (*declared, *FREE))
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_config_path):
    """A folder with the products of all stages, and the keys that each stage read while it made them."""
    folder = tmp_path_factory.mktemp("declared")
    cfg = load_config(tiny_config_path)
    reads = {}

    def run(name, stage):
        read = reads.setdefault(name, set())
        stage(Recorder(cfg, read))

    shard = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = [folder / f"shower_run_{n:04d}.dl1.h5" for n in (1, 2)]
        for number, path in enumerate(events, 1):
            run("simulate_showers", lambda c, n=number, p=path: simulate_showers.simulate_showers(c, n, p))
        frames = [folder / f"sky_run_{n:04d}.fits" for n in (1, 2, 3, 4)]
        for number, path in enumerate(frames, 1):
            run("simulate_sky", lambda c, n=number, p=path: simulate_sky.simulate_sky(c, n, p))
        run("ingest_sky", lambda c: ingest.ingest(frames, c, folder / "ingested"))
        frames = [folder / "ingested" / path.name for path in frames]
        run("tiles_camera", lambda c: tiles.make_tiles(events, c, folder / "camera"))
        run("tiles_sky", lambda c: tiles.make_tiles(frames, c, folder / "sky"))
        for wing in ("camera", "sky"):
            shard[wing] = sorted((folder / wing).glob("*.h5"))
            run("manifest", lambda c, w=wing: manifest.make_manifest(shard[w], c, folder / f"{w}.json"))
        for network, wing in (("gammaness", "camera"), ("denoise", "sky")):
            described = [folder / f"{wing}.json"]
            bundle = folder / network
            run(f"train_{network}", lambda c, n=network, m=described, b=bundle: train.train(c, n, m, b))
            run("evaluate", lambda c, m=described, b=bundle, n=network: evaluate.evaluate(c, b, m, folder / f"e_{n}"))
        out = folder / "predicted"
        run("predict_camera", lambda c: predict.predict(c, events[:1], [folder / "gammaness"], out / "camera"))
        run("predict_sky", lambda c: predict.predict(c, frames[:1], [folder / "denoise"], out / "sky"))
    return reads


@pytest.mark.parametrize(
    ("stage", "declared"),
    [
        ("simulate_showers", simulate_showers.READS),
        ("simulate_sky", simulate_sky.READS),
        ("ingest_sky", ingest.READS_SKY),
        ("tiles_camera", tiles.READS_CAMERA),
        ("tiles_sky", tiles.READS_SKY),
        ("manifest", manifest.READS),
        ("train_gammaness", train.reads("gammaness")),
        ("train_denoise", train.reads("denoise")),
        ("evaluate", evaluate.READS),
        ("predict_camera", predict.READS_CAMERA),
        ("predict_sky", predict.READS_SKY),
    ],
)
def test_a_stage_reads_what_it_declares(workplace, stage, declared):
    assert undeclared(workplace[stage], declared) == []
    # And declares nothing that it never looks at, so that other keys cause no reruns.
    for name in set(declared) - {"ingest.camera"} if stage == "predict_camera" else declared:  # of simtel files only
        assert any(key == name or key.startswith(f"{name}.") for key in workplace[stage]), name


def test_the_recorder_finds_a_key_that_is_not_declared(tiny_config_path):
    read = set()
    recorder = Recorder(load_config(tiny_config_path), read)
    assert recorder.showers.places
    assert recorder.tiles.camera.cleaning.picture_pe == 6.0
    assert undeclared(read, ("showers",)) == ["tiles.camera.cleaning.picture_pe"]


def test_the_rules_use_the_declarations(checkout):
    text = "".join(path.read_text() for path in (checkout / "workflow/rules").glob("*.smk"))
    assert 'settings("' not in text
    for name in ("simulate_showers.READS", "tiles.READS_CAMERA", "predict.READS_SKY", "evaluate.READS", "train.reads"):
        assert f"settings({name}" in text or f", {name}(" in text or f"settings({name}(" in text, name


def test_a_larger_scale_leaves_the_runs_that_exist(tiny_config_path):
    cfg = load_config(tiny_config_path)
    larger = cfg.model_copy(update={"showers": cfg.showers.model_copy(update={"scale": 3})})
    assert digest_of(larger, simulate_showers.READS) == digest_of(cfg, simulate_showers.READS)
    other = cfg.model_copy(update={"showers": cfg.showers.model_copy(update={"zenith_deg": 40.0})})
    assert digest_of(other, simulate_showers.READS) != digest_of(cfg, simulate_showers.READS)


def test_a_change_of_the_cleaning_concerns_simulation_and_tiles(tiny_config_path, tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text(
        Path(tiny_config_path)
        .read_text()
        .replace("camera: {size: 32}", "camera: {size: 32, cleaning: {picture_pe: 7.0}}")
    )
    before, after = load_config(tiny_config_path), load_config(path)
    changed = {
        name: digest_of(before, declared) != digest_of(after, declared)
        for name, declared in (
            ("simulate_showers", simulate_showers.READS),
            ("tiles_camera", tiles.READS_CAMERA),
            ("tiles_sky", tiles.READS_SKY),
            ("train", train.reads("gammaness")),
            ("evaluate", evaluate.READS),
        )
    }
    assert changed == {
        "simulate_showers": True, "tiles_camera": True, "tiles_sky": False, "train": False, "evaluate": False,
    }  # fmt: skip
