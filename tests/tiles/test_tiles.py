import json
import re

import h5py
import numpy as np
import pytest
from pydantic import TypeAdapter
from synthetic_tiles import camera_entry

from pipeline import cli
from pipeline.config import SplitsConfig, load_config, parse_config
from pipeline.errors import InputFileError, UserError
from pipeline.tiles import (
    SPLITS,
    Channel,
    Manifest,
    Shard,
    ShardWriter,
    TileBatch,
    TileReader,
    split_of,
    write_manifest,
)
from pipeline.tiles.cameras import where_camera, where_one_camera, where_served
from pipeline.tiles.raking import equalise
from pipeline.tiles.weighting import Weighting

CHANNELS = [Channel("charge", "p.e."), Channel("peak_time", "ns")]


def make_batch(n, rng, *, first_group=0, per_group=3, primary=0, source="run"):
    group = first_group + np.arange(n) // per_group
    energy = 10 ** rng.uniform(-1, 1, n)
    return TileBatch(
        images=rng.normal(size=(n, 2, 16, 16)).astype(np.float16),
        events={
            "camera": np.zeros(n, np.int16),
            "event_id": np.arange(n, dtype=np.int64) + 1000 * first_group,
            "true_primary_id": np.full(n, primary, np.int32),
            "true_energy_tev": energy * (1 if primary == 0 else 3),
            "hillas_intensity": energy * 800 * rng.lognormal(0, 0.4, n),
        },
        group=group,
        targets={"energy": np.log10(energy)[:, None].astype(np.float32)},
        split=split_of(source, group, SplitsConfig()),
    )


def write_shard(path, batches, source="run", **kwargs):
    kwargs = {"attributes": {"cameras": [camera_entry("abc")]}, "wing": "camera"} | kwargs
    with ShardWriter(path, channels=CHANNELS, tile_shape=(16, 16), source=source, **kwargs) as writer:
        for batch in batches:
            writer.append(batch)
    return path


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    shards = [
        write_shard(tmp_path / f"{i}.tiles.h5", [make_batch(200, rng, primary=p, source=f"run{i}")], source=f"run{i}")
        for i, p in enumerate((0, 0, 101, 101))
    ]
    return write_manifest(
        shards,
        tmp_path / "manifest.json",
        class_column="true_primary_id",
        equalised={"true_energy_tev": 6, "hillas_intensity": 6},
    )


def test_shard_gives_back_what_was_appended(tmp_path):
    rng = np.random.default_rng(1)
    whole = make_batch(150, rng)
    path = write_shard(tmp_path / "a.h5", [whole.select(slice(0, 70)), whole.select(slice(70, None))])
    with Shard(path) as shard:
        assert (shard.n_tiles, shard.n_groups) == (150, 50)
        read = TileBatch.concatenate([shard.tiles(0, 64), shard.tiles(64, 70), shard.tiles(70, 150)])
    np.testing.assert_array_equal(read.images, whole.images)
    np.testing.assert_array_equal(read.group, whole.group)
    np.testing.assert_array_equal(read.split, whole.split)
    np.testing.assert_array_equal(read.targets["energy"], whole.targets["energy"])
    for name, column in whole.events.items():
        np.testing.assert_array_equal(read.events[name], column)


def test_equal_shards_are_equal_bytes(tmp_path):
    paths = [write_shard(tmp_path / f"{i}.h5", [make_batch(100, np.random.default_rng(2))]) for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_empty_shard_is_valid(tmp_path):
    path = write_shard(
        tmp_path / "empty.h5", [], columns={"event_id": np.int64}, targets={"energy": ((1,), np.float32)}
    )
    with Shard(path) as shard:
        assert (shard.n_tiles, shard.n_groups) == (0, 0)
        assert shard.columns == ["event_id"]


def test_group_may_not_come_back(tmp_path):
    batch = make_batch(4, np.random.default_rng(0), per_group=1)
    with pytest.raises(ValueError, match="group 0 reappears"):
        write_shard(tmp_path / "a.h5", [batch, batch.select(slice(0, 1))])


def test_group_goes_on_over_appends(tmp_path):
    batch = make_batch(9, np.random.default_rng(0), per_group=9)
    with Shard(write_shard(tmp_path / "a.h5", [batch.select(slice(i, i + 3)) for i in (0, 3, 6)])) as shard:
        np.testing.assert_array_equal(shard.group_offsets, [0, 9])


def test_batch_refuses_columns_of_other_length():
    batch = make_batch(4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="columns of other lengths"):
        TileBatch(batch.images, {"event_id": np.arange(3)}, batch.group)


def test_batches_of_a_shard_have_the_same_columns(tmp_path):
    rng = np.random.default_rng(0)
    other = make_batch(3, rng, first_group=9)
    other.events["extra"] = np.zeros(3)
    with pytest.raises(ValueError, match="events differ between the batches of a shard: extra"):
        write_shard(tmp_path / "a.h5", [make_batch(3, rng), other])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\nshort"), "is damaged: it cannot be read as HDF5"),
        (lambda p: h5py.File(p, "w").close(), "is not a tile shard"),
    ],
)
def test_what_is_no_shard_is_said_plainly(tmp_path, make, match):
    make(tmp_path / "x.h5")
    with pytest.raises(InputFileError, match=match):
        Shard(tmp_path / "x.h5")


@pytest.mark.parametrize(("version", "advice"), [(1, "remake it with `lightpool tiles`"), (99, "update lightpool")])
def test_shards_of_another_version_are_refused(tmp_path, version, advice):
    path = write_shard(tmp_path / "a.h5", [])
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = version
    with pytest.raises(InputFileError, match=rf"format version {version}; this lightpool reads version 3: {advice}"):
        Shard(path)


def test_masks_keep_sixteen_bits(tmp_path):
    batch = make_batch(3, np.random.default_rng(0))
    batch.masks = np.full((3, 16, 16), 1 << 15 | 1, np.uint16)
    with Shard(write_shard(tmp_path / "a.h5", [batch], masks=True)) as shard:
        masks = shard.tiles(0, 3).masks
    assert masks.dtype == np.uint16
    np.testing.assert_array_equal(masks, batch.masks)
    batch.masks = batch.masks.astype(np.uint32)
    with pytest.raises(ValueError, match="masks of uint32 could lose bits; give them as uint16"):
        write_shard(tmp_path / "b.h5", [batch], masks=True)


def test_split_is_a_matter_of_source_and_group_alone():
    groups = np.repeat(np.arange(4000), 3)
    split = split_of("run1", groups, SplitsConfig())
    shuffled = np.random.default_rng(0).permutation(len(groups))
    np.testing.assert_array_equal(split_of("run1", groups[shuffled], SplitsConfig()), split[shuffled])
    np.testing.assert_array_equal(split[::3], split[2::3])
    assert not np.array_equal(split, split_of("run2", groups, SplitsConfig()))
    assert not np.array_equal(split, split_of("run1", groups, SplitsConfig(), seed=1))
    shares = np.bincount(split[::3], minlength=3) / 4000
    np.testing.assert_allclose(shares, [0.6, 0.15, 0.25], atol=5 * np.sqrt(0.25 / 4000))


def test_reader_partitions_the_tiles(manifest):
    seen = []
    for split in SPLITS:
        reader = TileReader([manifest], split)
        ids = np.concatenate([b.images[:, 0, 0, 0] for b in reader.sequential()])
        assert len(ids) == reader.n_tiles == sum(manifest.counts[split].values())
        seen.append(ids)
        reader.close()
    everything = TileReader([manifest], "all")
    whole = np.concatenate([b.images[:, 0, 0, 0] for b in everything.sequential()])
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.sort(whole))
    assert len(whole) == 800
    everything.close()


def test_no_group_is_in_two_splits(manifest):
    groups = [set(TileReader([manifest], split).events([])["group"].tolist()) for split in SPLITS]
    assert sum(len(g) for g in groups) == len(set.union(*groups))


def test_shuffled_is_keyed_by_seed_and_epoch(manifest):
    reader = TileReader([manifest], "train")

    def order(seed, epoch):
        batches = list(reader.shuffled(seed, epoch, 32, buffer_blocks=3))
        assert len(batches) == reader.n_batches(32)
        assert {len(b) for b in batches} == {32}
        return np.concatenate([b.images[:, 0, 0, 0] for b in batches])

    first = order(1, 0)
    np.testing.assert_array_equal(first, order(1, 0))
    assert not np.array_equal(first, order(1, 1))
    assert not np.array_equal(first, order(2, 0))
    assert len(np.unique(first)) == len(first) or len(first) - len(np.unique(first)) < 20  # float16 values may coincide


def test_small_split_gives_one_partial_batch(manifest):
    reader = TileReader([manifest], "train")
    assert [len(b) for b in reader.shuffled(0, 0, 10_000)] == [reader.n_tiles]


def test_where_selects_a_class(manifest):
    reader = TileReader([manifest], "train", where={"true_primary_id": 0}, equalise=False)
    assert reader.n_tiles == manifest.counts["train"]["0"]
    events = reader.events(["true_primary_id"])
    assert set(events["true_primary_id"].tolist()) == {0}
    np.testing.assert_array_equal(events["weights"], 1)


def test_events_and_sequential_agree(manifest):
    reader = TileReader([manifest], "validation")
    batches = TileBatch.concatenate(list(reader.sequential()))
    events = reader.events()
    for name in reader.columns:
        np.testing.assert_array_equal(batches.events[name], events[name])
    np.testing.assert_allclose(batches.weights, events["weights"], rtol=1e-6)
    np.testing.assert_array_equal(batches.group, events["group"])


def test_unknown_split_is_refused(manifest):
    with pytest.raises(UserError, match="unknown split 'dev'; accepted: train, validation, test, all"):
        TileReader([manifest], "dev")


def test_weights_make_the_classes_alike(manifest):
    """Weighted quantiles of energy and size agree between the classes, though energies differ by a factor of 3."""
    events = TileReader([manifest], "all").events()
    gamma = events["true_primary_id"] == 0
    for name in ("true_energy_tev", "hillas_intensity"):
        edges = np.quantile(events[name], np.linspace(0, 1, 7))
        shares = []
        for member in (gamma, ~gamma):
            shares.append(np.histogram(events[name][member], edges, weights=events["weights"][member])[0])
        shares = np.array(shares) / np.sum(shares, axis=1, keepdims=True)
        np.testing.assert_allclose(shares[0], shares[1], atol=0.03)
        plain = np.abs(np.subtract(*(np.histogram(events[name][m], edges)[0] / m.sum() for m in (gamma, ~gamma))))
        if name == "true_energy_tev":
            assert plain.max() > 0.1  # without weights they differ
    np.testing.assert_allclose(events["weights"][gamma].sum(), events["weights"][~gamma].sum(), rtol=0.05)
    assert events["weights"].max() <= 10


# ---- tiles without a value -------------------------------------------------------------------------------------------
EQUALISED = {"true_energy_tev": 6, "hillas_intensity": 6}


def gammas_and_protons(folder, change):
    """Two runs of each; `change` takes the columns of the last one."""
    rng = np.random.default_rng(0)
    paths = []
    for number, primary in enumerate((0, 0, 101, 101)):
        batch = make_batch(200, rng, primary=primary, source=f"run{number}")
        if number == 3:
            change(batch)
        paths.append(write_shard(folder / f"{number}.tiles.h5", [batch], source=f"run{number}"))
    return paths


def weights_of(manifest):
    return TileReader([manifest], "all").events(["true_primary_id"])["weights"]


def test_values_that_are_missing_cost_their_tiles_the_weight_only(tmp_path):
    def change(batch):
        batch.events["true_energy_tev"][:150] = np.nan
        batch.events["hillas_intensity"][150] = np.inf

    paths = gammas_and_protons(tmp_path, change)
    made = write_manifest(paths, tmp_path / "m.json", class_column="true_primary_id", equalised=EQUALISED)
    assert made.provenance["warnings"] == [
        "150 of 800 tiles have no true_energy_tev and weight 0 where classes are equalised",
        "1 of 800 tiles have no hillas_intensity and weight 0 where classes are equalised",
    ]
    weights = weights_of(made)
    assert (weights[600:751] == 0).all()
    assert (weights[751:] > 0).mean() > 0.9
    # The table is the one that the other tiles alone give, to the last bit.
    rest = make_rest(tmp_path, paths)
    assert made.weightings == rest.weightings
    np.testing.assert_array_equal(np.delete(weights, np.s_[600:751]), weights_of(rest))


def make_rest(folder, paths):
    with Shard(paths[3]) as shard:
        batch = shard.tiles(0, shard.n_tiles)
    path = write_shard(folder / "rest.tiles.h5", [batch.select(slice(151, None))], source="run3")
    return write_manifest([*paths[:3], path], folder / "rest.json", class_column="true_primary_id", equalised=EQUALISED)


def test_a_column_that_one_class_has_nowhere_is_not_equalised(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number, primary in enumerate((0, 101)):
        batch = make_batch(200, rng, primary=primary, source=f"run{number}")
        if primary:
            batch.events["true_energy_tev"][:] = np.nan
        paths.append(write_shard(tmp_path / f"{number}.tiles.h5", [batch], source=f"run{number}"))
    made = write_manifest(paths, tmp_path / "m.json", class_column="true_primary_id", equalised=EQUALISED)
    assert made.provenance["warnings"] == [
        "no tile of class 101 has a value of true_energy_tev; the classes are not equalised in it"
    ]
    assert [column.name for column in made.weightings[0].columns] == ["hillas_intensity"]
    assert (weights_of(made) > 0).mean() > 0.8


def write_two_classes(folder, lacking):
    """A shard of gammas and one of protons, both without a column."""
    rng = np.random.default_rng(0)
    paths = []
    for number, primary in enumerate((0, 101)):
        batch = make_batch(200, rng, primary=primary, source=f"run{number}")
        del batch.events[lacking]
        paths.append(write_shard(folder / f"{number}.tiles.h5", [batch], source=f"run{number}"))
    return write_manifest(paths, folder / "m.json", class_column="true_primary_id", equalised=EQUALISED)


def test_a_column_that_no_shard_has_is_not_equalised_and_that_is_said(tmp_path):
    made = write_two_classes(tmp_path, "true_energy_tev")
    assert made.provenance["warnings"] == ["a shard has no column true_energy_tev; the classes are not equalised in it"]
    assert [column.name for column in made.weightings[0].columns] == ["hillas_intensity"]


def test_classes_that_are_not_known_though_their_truth_is(tmp_path):
    made = write_two_classes(tmp_path, "true_primary_id")
    assert made.weightings == ()
    assert made.provenance["warnings"] == [
        "the tiles have true_energy_tev, hillas_intensity, but no true_primary_id; classes are not known and not "
        "equalised"
    ]


def test_unknown_particles_have_no_weight(tmp_path):
    def change(batch):
        batch.events["true_primary_id"][:7] = 32767

    made = write_manifest(
        gammas_and_protons(tmp_path, change), tmp_path / "m.json", class_column="true_primary_id", equalised=EQUALISED
    )
    assert made.provenance["warnings"] == [
        "7 of 800 tiles are of an unknown particle and have weight 0 where classes are equalised"
    ]
    assert list(made.weightings[0].scale) == ["0", "101"]
    weights = weights_of(made)
    assert (weights[600:607] == 0).all()
    assert (weights > 0).mean() > 0.9


def test_shards_without_truth_are_left_out(tmp_path):
    rng = np.random.default_rng(5)
    observed = make_batch(60, rng, source="observed")
    for name in ("true_primary_id", "true_energy_tev"):
        del observed.events[name]
    observed.targets = {}
    empty = write_shard(tmp_path / "empty.tiles.h5", [], columns={"event_id": np.int64}, source="empty")
    paths = gammas_and_protons(tmp_path, lambda batch: None)
    whole = write_manifest(
        [*paths, empty], tmp_path / "whole.json", class_column="true_primary_id", equalised=EQUALISED
    )
    mixed = write_manifest(
        [write_shard(tmp_path / "observed.tiles.h5", [observed], source="observed"), *paths, empty],
        tmp_path / "mixed.json",
        class_column="true_primary_id",
        equalised=EQUALISED,
    )
    assert "warnings" not in whole.provenance
    assert mixed.provenance["warnings"] == [
        "1 of 6 shards (60 tiles) have no true_primary_id and are left out, because the others have it: "
        "observed.tiles.h5"
    ]
    assert (mixed.shards, mixed.counts, mixed.weightings) == (whole.shards, whole.counts, whole.weightings)


def test_a_class_of_few_tiles_that_costs_the_others_their_weights(tmp_path):
    def change(batch):
        batch.events["true_primary_id"][:3] = 402
        batch.events["true_energy_tev"][:3] = 0.5

    made = write_manifest(
        gammas_and_protons(tmp_path, change), tmp_path / "m.json", class_column="true_primary_id", equalised=EQUALISED
    )
    warnings = made.provenance["warnings"]
    assert [text.partition(",")[0] for text in warnings] == [
        "364 of 400 tiles of class 0 have weight 0",
        "395 of 397 tiles of class 101 have weight 0",
        "2 of 3 tiles of class 402 have weight 0",
    ]
    assert "because another class has none with such values of true_energy_tev, hillas_intensity" in warnings[0]


def test_equalise_needs_two_classes():
    events = {"c": np.zeros(10, int), "x": np.arange(10.0)}
    assert equalise(events, "c", {"x": 3}, 10.0) is None


def test_equalise_gives_no_weight_where_a_class_is_missing():
    events = {"c": np.repeat([0, 1], 1000), "x": np.concatenate([np.linspace(0, 1, 1000), np.linspace(0, 0.5, 1000)])}
    weighting = equalise(events, "c", {"x": 10}, 10.0)
    weights = TypeAdapter(Weighting).validate_json(json.dumps(weighting.to_json())).weights(events)
    assert (weights[:1000][events["x"][:1000] > 0.6] == 0).all()
    assert (weights[:1000][events["x"][:1000] < 0.4] > 0).all()


def test_manifest_round_trip(manifest):
    assert Manifest.load(manifest.path) == manifest


def test_manifest_can_move_with_its_shards(manifest, tmp_path):
    (tmp_path.parent / "moved").mkdir(exist_ok=True)
    moved = tmp_path.rename(tmp_path.parent / "moved" / "here")
    assert TileReader([moved / "manifest.json"], "all").n_tiles == 800


# ---- several cameras -------------------------------------------------------------------------------------------------
CAMERAS = (("hexagon-a", "NectarCam", "MST"), ("hexagon-b", "LSTCam", "LST"))


def of_cameras(n, rng, camera, **kwargs):
    batch = make_batch(n, rng, **kwargs)
    batch.events["camera"] = np.resize(camera, n).astype(np.int16)
    return batch


def manifest_of_cameras(folder, batches, names=(CAMERAS, CAMERAS), **kwargs):
    """One shard of each batch."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, (batch, cameras) in enumerate(zip(batches, names, strict=True)):
        attributes = {"cameras": [camera_entry(*camera) for camera in cameras]}
        path = folder / f"{number}.tiles.h5"
        paths.append(write_shard(path, [batch], source=f"run{number}", attributes=attributes))
    return write_manifest(paths, folder / "manifest.json", **kwargs)


@pytest.mark.parametrize(("word", "place"), [("LST", 1), ("LSTCam", 1), ("hexagon-a", 0), ("LSTN-01", 1)])
def test_tiles_of_one_camera(tmp_path, word, place):
    """Its names are those of all shards."""
    rng = np.random.default_rng(0)
    renamed = (CAMERAS[0], ("hexagon-b", "LSTN-01", "LST"))
    batches = [of_cameras(90, rng, [0, 1, 1]), of_cameras(60, rng, [1, 0], primary=101)]
    manifest = manifest_of_cameras(tmp_path, batches, (CAMERAS, renamed))
    assert manifest.cameras == ("hexagon-a", "hexagon-b")
    for select in (where_camera([manifest], [word]), where_one_camera([manifest], word)):
        assert select == {"camera": [place]}
    reader = TileReader([manifest], "all", where={"camera": [place], "true_primary_id": 0})
    assert reader.n_tiles == (60 if place else 30)
    assert [(c.identity, c.name) for c in reader.cameras] == [
        (("hexagon-b", "LSTCam, LSTN-01"), ("hexagon-a", "NectarCam"))[1 - place]
    ]
    assert [c.name for c in TileReader([manifest], "all").cameras] == ["NectarCam", "LSTCam, LSTN-01"]


@pytest.mark.parametrize(
    ("served", "where"),
    [
        (["hexagon-b"], {"camera": [1]}),
        (["square-9", "hexagon-a"], {"camera": [0]}),
        (["hexagon-b", "hexagon-a"], {}),
        ([], {}),  # of the sky, which other checks refuse
    ],
)
def test_tiles_of_the_cameras_that_a_model_serves(tmp_path, served, where):
    manifest = manifest_of_cameras(tmp_path, [of_cameras(9, np.random.default_rng(0), [0, 1])], [CAMERAS])
    assert where_served([manifest], served) == where


def test_all_cameras_need_no_selection(tmp_path):
    rng = np.random.default_rng(0)
    several = manifest_of_cameras(tmp_path / "several", [of_cameras(9, rng, [0, 1])], [CAMERAS])
    one = manifest_of_cameras(tmp_path / "one", [make_batch(9, rng)], [CAMERAS[:1]])
    assert where_camera([several], []) == where_camera([several], ["LST", "hexagon-a"]) == {}
    assert where_one_camera([one], None) == where_one_camera([one], "MST") == {}


def test_a_camera_that_cannot_be_chosen_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    alike = (CAMERAS[0], ("hexagon-c", "FlashCam", "MST"))
    several = manifest_of_cameras(tmp_path / "several", [of_cameras(9, rng, [0, 1])], [CAMERAS])
    of_msts = manifest_of_cameras(tmp_path / "msts", [of_cameras(9, rng, [0, 1])], [alike])
    listed = r"set networks\.NAME\.camera to the name, type or identity of one: NectarCam, MST, hexagon-a; "
    with pytest.raises(UserError, match=rf"the tiles of .*json have no camera 'SST'; {listed}LSTCam, LST, hexagon-b"):
        where_camera([several], ["SST"])
    with pytest.raises(UserError, match=rf"have several cameras 'MST'; {listed}FlashCam, MST, hexagon-c"):
        where_one_camera([of_msts], "MST")
    with pytest.raises(UserError, match=rf"are of 2 cameras, and a network of single images takes one; {listed}LSTCam"):
        where_one_camera([several], None)
    with pytest.raises(UserError, match=r"has attributes .*; train on manifests of one kind"):
        where_camera([several, of_msts], ["LST"])


def test_classes_are_equalised_in_each_camera(tmp_path):
    """The tiles of a camera have the weights that they have in a manifest of their own."""
    rng = np.random.default_rng(0)
    batches = [
        of_cameras(600, rng, [0, 0, 0, 1], primary=0, source="run0"),
        of_cameras(400, rng, [0, 1, 1, 1], primary=101, source="run1"),
    ]
    equalised = {"class_column": "true_primary_id", "equalised": {"true_energy_tev": 4, "hillas_intensity": 4}}
    together = manifest_of_cameras(tmp_path / "together", batches, **equalised)
    assert len(together.weightings) == 2
    events = TileReader([together], "all").events()
    np.testing.assert_array_equal(
        np.concatenate([batch.weights for batch in TileReader([together], "all").sequential(["event_id"])]),
        events["weights"],
    )
    for place, camera in enumerate(CAMERAS):
        own = [batch.select(batch.events["camera"] == place) for batch in batches]
        for batch in own:
            batch.events["camera"][:] = 0
        alone = manifest_of_cameras(tmp_path / camera[2], own, [[camera]] * 2, **equalised)
        assert alone.weightings == (together.weightings[place],)
        here = events["camera"] == place
        np.testing.assert_array_equal(events["weights"][here], TileReader([alone], "all").events()["weights"])
        gamma = events["true_primary_id"][here] == 0
        total = [events["weights"][here][selection].sum() for selection in (gamma, ~gamma)]
        assert total[0] == pytest.approx(total[1], rel=0.02)


def test_a_camera_of_one_class_keeps_its_weights(tmp_path):
    rng = np.random.default_rng(0)
    batches = [of_cameras(200, rng, [0, 1], primary=0), of_cameras(200, rng, [0], primary=101)]
    manifest = manifest_of_cameras(tmp_path, batches, class_column="true_primary_id", equalised={"true_energy_tev": 3})
    assert [table is None for table in manifest.weightings] == [False, True]
    events = TileReader([manifest], "all").events()
    np.testing.assert_array_equal(events["weights"][events["camera"] == 1], 1)
    assert np.ptp(events["weights"][events["camera"] == 0]) > 0
    starved = manifest_of_cameras(
        tmp_path / "starved",
        [of_cameras(200, rng, [0, 1], primary=0), _at_energy(of_cameras(200, rng, [0, 1], primary=101), 9.0)],
        class_column="true_primary_id",
        equalised={"true_energy_tev": 3},
    )
    first, second = starved.provenance["warnings"]
    assert re.match(r"camera hexagon-a: \d+ of 100 tiles of class 0 have weight 0", first)
    assert re.match(r"camera hexagon-b: \d+ of 100 tiles of class 0 have weight 0", second)


def _at_energy(batch, energy_tev):
    batch.events["true_energy_tev"][:] = energy_tev
    return batch


# ---- errors of manifests ---------------------------------------------------------------------------------------------
def test_manifest_errors(tmp_path):
    rng = np.random.default_rng(0)
    a = write_shard(tmp_path / "a.h5", [make_batch(10, rng)])
    b = write_shard(tmp_path / "b.h5", [make_batch(10, rng)], attributes={"cameras": [camera_entry("other")]})
    empty = write_shard(tmp_path / "e.h5", [])
    out = tmp_path / "m.json"
    with pytest.raises(UserError, match="no shard was given"):
        write_manifest([], out)
    with pytest.raises(UserError, match="named twice"):
        write_manifest([a, a], out)
    with pytest.raises(UserError, match=r"has cameras \['other'\], but .* has \['abc'\]; make one"):
        write_manifest([a, b], out)
    with pytest.raises(UserError, match="none of the 1 shards has a tile"):
        write_manifest([empty], out)
    assert not out.exists()
    write_manifest([a, empty], out)
    with pytest.raises(UserError, match=r"m\.json exists; choose another name or add --force"):
        write_manifest([a], out)
    a.unlink()
    with pytest.raises(InputFileError, match=r"names the shard a\.h5, which is not there"):
        Manifest.load(out)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "it is not valid JSON"),
        ("[]", "is not a manifest"),
        (
            '{"format": "lightpool-manifest", "format_version": 1}',
            "manifest version 1; .*: remake it with",
        ),
        ('{"format": "lightpool-manifest", "format_version": 9}', "manifest version 9; .*: update lightpool"),
    ],
)
def test_what_is_no_manifest_is_said_plainly(tmp_path, content, match):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(InputFileError, match=match):
        Manifest.load(tmp_path / "m.json")


def test_configuration_names_the_wrong_key(tmp_path):
    with pytest.raises(UserError, match=r"unknown key 'tiles\.camera\.sice'; did you mean 'size'\? accepted: .*size,"):
        parse_config({"tiles": {"camera": {"sice": 3}}})
    with pytest.raises(UserError, match=r"none\.yaml does not exist"):
        load_config(tmp_path / "none.yaml")


# ---- damaged shards and manifests ------------------------------------------------------------------------------------
def _replace(file, name, data):
    del file[name]
    file[name] = data


def _name_cameras(file, cameras):
    file.attrs["attributes"] = json.dumps({"cameras": cameras})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.attrs.__delitem__("format_version"), "lacks the attribute 'format_version'"),
        (lambda f: f.attrs.__setitem__("format_version", "two"), "'format_version' of / is 'two'; needed: integer"),
        (lambda f: f.attrs.__setitem__("source", 3), "'source' of / is 3; needed: text"),
        (lambda f: f.attrs.__setitem__("wing", "radio"), "its wing is 'radio', neither camera nor sky"),
        (lambda f: f.attrs.__setitem__("attributes", "{"), "its attributes are not JSON"),
        (lambda f: f.attrs.__setitem__("attributes", "[" * 100_000), "its attributes are not JSON"),
        (lambda f: f.attrs.__setitem__("channel_names", "x"), "channel_names is not a list of names"),
        (lambda f: f.attrs.__setitem__("channel_units", ["ns"]), "it names 2 channels and 1 units"),
        (lambda f: f.attrs.__setitem__("channel_names", np.arange(2)), "channel_names is not a list of names"),
        (lambda f: f.__delitem__("images"), "lacks /images"),
        (lambda f: f.__delitem__("events"), "it has no group events"),
        (lambda f: f.__delitem__("groups"), "lacks /groups"),
        (lambda f: f.__delitem__("weights"), "lacks /weights"),
        (lambda f: _replace(f, "images", np.zeros((100, 2, 16))), r"/images has shape .*; 4 dimensions are needed"),
        (
            lambda f: _replace(f, "images", np.zeros((100, 3, 16, 16))),
            "its images are float64 .*, with 2 channels named",
        ),
        (lambda f: _replace(f, "images", np.zeros((100, 2, 16, 16), int)), "its images are int64"),
        (lambda f: _replace(f, "images", np.zeros((9, 2, 16, 16), "f2")), "it has 9 images, but weights is float32 of"),
        (
            lambda f: _replace(f, "events/event_id", np.zeros(99)),
            "it has 100 images, but events/event_id is float64 of",
        ),
        (lambda f: _replace(f, "events/event_id", ["a"] * 100), "but events/event_id is object of shape"),
        (lambda f: f.create_group("events/more"), "/events/more is not a table of numbers"),
        (lambda f: _replace(f, "targets/energy", np.float32(1)), r"but targets/energy is float32 of shape \(\)"),
        (lambda f: _replace(f, "split", np.full(100, 7, np.uint8)), "its splits are not all among 0, 1, 2"),
        (lambda f: f.attrs.__setitem__("attributes", "{}"), "its attribute cameras: Input should be a valid tuple"),
        (lambda f: _name_cameras(f, []), "its attribute cameras: Tuple should have at least 1 item"),
        (lambda f: _name_cameras(f, [{"identity": "a"}]), r"its attribute cameras\.0\.name: Field required"),
        (
            lambda f: _name_cameras(f, [camera_entry("b"), camera_entry("a")]),
            "its cameras are not in the order of their identities: b, a",
        ),
        (lambda f: f.__delitem__("events/camera"), "lacks /events/camera"),
        (lambda f: _replace(f, "events/camera", np.zeros(100)), "/events/camera .* float64"),
        (lambda f: f["events/camera"].__setitem__(3, 1), "its cameras are numbered 0 to 1, and it names 1"),
        (lambda f: f["events/camera"].__setitem__(3, -1), "its cameras are numbered -1 to 0, and it names 1"),
        (lambda f: f["weights"].__setitem__(3, np.nan), "some of its weights are negative or not finite"),
        (lambda f: f["weights"].__setitem__(3, -1), "some of its weights are negative or not finite"),
        (lambda f: f["groups"].__setitem__(0, 5), "its groups do not cover its tiles"),
        (lambda f: f["groups"].__setitem__(2, 0), "its groups do not cover its tiles"),
        (lambda f: _replace(f, "groups", np.arange(10)), "its groups do not cover its tiles"),
        (lambda f: f.__setitem__("masks", np.zeros((100, 16, 16), np.uint32)), "its masks are uint32"),
        (
            lambda f: f.__setitem__("masks", np.zeros((100, 8, 16), np.uint16)),
            r"its masks are uint16 of shape \(100, 8",
        ),
        (lambda f: f["images"].resize(10**12, axis=0), "/images is incomplete: only 2 of its .* pieces were written"),
    ],
)
def test_a_shard_whose_parts_do_not_belong_together_is_refused(tmp_path, change, match):
    path = write_shard(tmp_path / "a.tiles.h5", [make_batch(100, np.random.default_rng(0))])
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InputFileError, match=match):
        Shard(path)


def test_a_flipped_bit_in_a_compressed_chunk_is_noticed(tmp_path):
    path = write_shard(tmp_path / "a.tiles.h5", [make_batch(100, np.random.default_rng(0))])
    with h5py.File(path) as file:
        chunk = file["images"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(content)
    with Shard(path) as shard, pytest.raises(InputFileError, match="is damaged: a part of its data cannot be read"):
        shard.tiles(0, 64)


def test_a_shard_with_a_link_to_another_file_is_refused(tmp_path):
    path, other = (write_shard(tmp_path / name, [make_batch(9, np.random.default_rng(0))]) for name in "ab")
    with h5py.File(path, "a") as file:
        del file["images"]
        file["images"] = h5py.ExternalLink(str(other), "/images")
    with pytest.raises(InputFileError, match="images is a link to another file"):
        Shard(path)


def _edited(manifest, change):
    content = json.loads(manifest.path.read_text())
    change(content)
    path = manifest.path.with_name("edited.json")
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.pop("shards"), "is a damaged manifest: shards: Field required"),
        (lambda c: c.update(shards=[]), "shards: .*at least 1"),
        (lambda c: c.update(shards={}), "shards: .*valid tuple"),
        (lambda c: c.update(surplus=1), "unknown key 'surplus'"),
        (lambda c: c.update(format_version="2"), "format_version: .*2"),
        (lambda c: c.update(wing="radio"), "wing: .*'camera' or 'sky'"),
        (lambda c: c.update(channels=[]), "channels: .*at least 1"),
        (lambda c: c.update(tile_shape=[16]), r"tile_shape\.1: Field required"),
        (lambda c: c.update(tile_shape=[16, -1]), r"tile_shape\.1: .*greater than or equal to 1"),
        (lambda c: c["attributes"].update(cameras="abc"), "its cameras are 'abc', no list of identities"),
        (lambda c: c["attributes"].update(cameras=[1]), "its cameras are .1., no list of identities"),
        (lambda c: c["attributes"].pop("cameras"), "tiles of the camera are of 0 cameras"),
        (lambda c: c.update(wing="sky"), "tiles of the sky are of 1 cameras"),
        (lambda c: c.update(weightings=c["weightings"] * 2), "it has 2 weightings for 1 cameras"),
        (lambda c: c["counts"].update(other={}), "counts.other"),
        (lambda c: c["counts"].pop("test"), "its counts add up to"),
        (lambda c: c["counts"]["train"].update({"0": 1}), "its counts add up to .* tiles, its shards to 800"),
        (lambda c: c["shards"][0].update(n_tiles=10**30), "its counts add up to 800 tiles"),
        (lambda c: c["shards"][0].update(n_tiles=-1), r"shards\.0\.n_tiles: .*greater than or equal to 0"),
        (lambda c: c["shards"][0].update(sha256="x"), r"shards\.0\.sha256: .*pattern"),
        (lambda c: c["shards"][0].update(path=3), r"shards\.0\.path: .*valid string"),
        (lambda c: c["weightings"][0].update(max_weight=-1), "max_weight is -1"),
        (lambda c: c.update(event_weighting=c["weightings"][0] | {"max_weight": 0}), "max_weight is 0"),
        (lambda c: c.pop("event_weighting"), "is a damaged manifest: event_weighting: Field required"),
        (lambda c: c["weightings"][0]["scale"].update(x=1), "the class 'x' has the scale 1"),
        (lambda c: c["weightings"][0]["columns"][0].update(edges=[1, 1]), "the edges of 'true_energy_tev' do not rise"),
        (lambda c: c["weightings"][0]["columns"][0]["factors"].pop("0"), "'true_energy_tev' lacks factors"),
        (lambda c: c["weightings"][0]["columns"][0]["factors"]["0"].append(1), "'true_energy_tev' lacks factors"),
    ],
)
def test_a_damaged_manifest_is_refused(manifest, change, match):
    with pytest.raises(InputFileError, match=match):
        Manifest.load(_edited(manifest, change))


def test_a_manifest_names_shards_in_its_folder_only_unless_asked_for(tmp_path, manifest):
    away = tmp_path / "away"
    away.mkdir()
    shard = away / "0.tiles.h5"
    shard.write_bytes((tmp_path / "0.tiles.h5").read_bytes())
    here = tmp_path / "here"
    here.mkdir()
    for entry in manifest.shards[1:]:
        (here / entry.path).write_bytes((tmp_path / entry.path).read_bytes())
    (here / "link.h5").symlink_to(shard)
    (here / "loop.h5").symlink_to("loop.h5")
    for path in (str(shard), "../away/0.tiles.h5", "link.h5"):
        edited = here / "m.json"
        edited.write_bytes(_edited(manifest, lambda c, p=path: c["shards"][0].update(path=p)).read_bytes())
        with pytest.raises(InputFileError, match=r"lies outside the manifest's folder; .*--shards-outside"):
            Manifest.load(edited)
        assert TileReader([Manifest.load(edited, shards_outside=True)], "all").n_tiles == 800
    for path, match in (("loop.h5", "loop.h5"), ("a\0b", "not a path"), ("none.h5", "which is not there")):
        edited.write_bytes(_edited(manifest, lambda c, p=path: c["shards"][0].update(path=p)).read_bytes())
        with pytest.raises(InputFileError, match=match):
            Manifest.load(edited)


def test_a_manifest_is_written_for_shards_outside_only_if_asked_for(tmp_path):
    shard = write_shard(tmp_path / "a.tiles.h5", [make_batch(9, np.random.default_rng(0))])
    out = tmp_path / "elsewhere" / "m.json"
    with pytest.raises(InputFileError, match=r"names the shard \.\./a\.tiles\.h5, which lies outside"):
        write_manifest([shard], out)
    assert not out.exists()
    assert write_manifest([shard], out, shards_outside=True).shards[0].path == "../a.tiles.h5"


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["shards"][0].update(sha256="0" * 64),
        lambda c: c["shards"][0].update(source="other"),
        lambda c: c["shards"][0].update(n_groups=1),
        lambda c: (
            c["shards"][0].update(n_tiles=199),
            c["counts"]["train"].update({"0": c["counts"]["train"]["0"] - 1}),
        ),
        lambda c: c["shards"][0].update(path="1.tiles.h5"),
        lambda c: c.update(wing="sky", attributes={}),
        lambda c: c.update(tile_shape=[16, 8]),
        lambda c: c["attributes"].update(cameras=["other"]),
    ],
)
def test_a_shard_that_is_not_the_one_of_the_manifest_is_refused(manifest, change):
    with pytest.raises(InputFileError, match=r"tiles\.h5 is not the shard that .*edited\.json was made of"):
        TileReader([_edited(manifest, change)], "train")


def test_a_shard_that_changed_since_is_refused(manifest):
    TileReader([manifest], "all").close()  # its digest is known now
    with h5py.File(manifest.path.parent / manifest.shards[0].path, "a") as file:
        file["events/true_energy_tev"][0] = 5.0
    reader = TileReader([manifest], "all")
    with pytest.raises(InputFileError, match=r"0\.tiles\.h5 is not the shard that"):  # when its tiles are read
        next(reader.sequential())


def test_a_shard_of_another_size_is_refused_at_once(manifest):
    path = manifest.path.parent / manifest.shards[0].path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        InputFileError, match=r"0\.tiles\.h5 is not the shard that .*: it has [\d,]+ bytes, not [\d,]+;"
    ):
        Manifest.load(manifest.path)


def test_the_command_takes_shards_outside_only_if_asked_for(tmp_path, capsys):
    shard = write_shard(tmp_path / "a.tiles.h5", [make_batch(9, np.random.default_rng(0))])
    argv = ["manifest", str(shard), "--out", str(tmp_path / "elsewhere" / "m.json"), "-q"]
    assert cli.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("put the manifest into a folder above its shards, or give --shards-outside")
    assert cli.main([*argv, "--shards-outside"]) == 0
    path = tmp_path / "elsewhere" / "m.json"
    out = ["--bundle", str(tmp_path), "--out", str(tmp_path / "out"), "-q"]
    assert cli.main(["evaluate", str(path), *out]) == 2
    assert "which lies outside the manifest's folder" in capsys.readouterr().err
    assert cli.main(["evaluate", str(path), *out, "--shards-outside"]) == 2
    assert "is not a bundle" in capsys.readouterr().err  # the manifest was accepted
