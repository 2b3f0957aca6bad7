from dataclasses import asdict

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import rotate
from scipy.ndimage import shift as displace

from pipeline.config import parse_config
from pipeline.errors import InputFileError, TooFewEventsError, UserError
from pipeline.sky.dq import DQ
from pipeline.sky.frame_statistics import measure
from pipeline.sky.frames import read_frame
from pipeline.sky.pairs import difference, tile_pairs
from pipeline.sky.photometry import detect_stars
from pipeline.sky.registration import Placement, place, star_catalogue, static_hot_pixels
from pipeline.sky.tiling import tile_frame, tile_positions, untile
from pipeline.sky.truth import read_truth, truth_path
from pipeline.stages.tiles import make_tiles
from pipeline.tiles.shards import Shard, TileBatch


def all_tiles(path):
    with Shard(path) as shard:
        return shard.tiles(0, shard.n_tiles)


@pytest.mark.parametrize(
    ("length", "size", "stride"), [(384, 64, 64), (100, 64, 64), (64, 64, 64), (200, 64, 32), (50, 64, 64)]
)
def test_positions_cover_the_axis(length, size, stride):
    starts = tile_positions(length, size, stride)
    covered = np.zeros(length, bool)
    for start in starts:
        covered[start : start + size] = True
        assert start + size <= length
    assert covered.all() == (length >= size)


# ---- against the truth -----------------------------------------------------------------------------------------------
def test_tiles_put_together_are_the_frame(ingested, sky_config, tmp_path):
    out = tmp_path / "sky.tiles.h5"
    result = tile_frame(ingested, out, sky_config)
    tiles = all_tiles(out)
    frame, truth = read_frame(ingested), read_truth(truth_path(ingested))
    assert result["n_tiles"] == len(tiles) == 9
    whole = untile(tiles)
    missing = (frame.dq & DQ.MISSING) != 0
    assert np.array_equal(whole["sci"], np.where(missing, np.nan, frame.sci), equal_nan=True)
    assert np.array_equal(whole["err"][~missing], frame.err[~missing])
    assert np.array_equal(whole["clean"], truth.clean_e)
    assert np.array_equal(whole["dq"], frame.dq | truth.dq)
    assert np.array_equal(whole["defect_snr"], truth.defect_snr.astype(np.float16).astype(np.float32))
    assert np.array_equal(whole["defect_bits"], truth.defect_bits)


def test_a_defect_brighter_than_half_precision_holds_stays_finite(ingested, sky_config, tmp_path):
    path = tmp_path / ingested.name
    for source, copy in ((ingested, path), (truth_path(ingested), truth_path(path))):
        copy.write_bytes(source.read_bytes())
    with fits.open(truth_path(path), mode="update") as hdus:
        hdus["DEFECT_SNR"].data[:2, :2] = [[1e6, -1e6], [3.0, 0.0]]
    tile_frame(path, tmp_path / "sky.tiles.h5", sky_config)
    found = all_tiles(tmp_path / "sky.tiles.h5").targets["defect_snr"]
    assert found.dtype == np.float16
    assert found[0, 0, :2, :2].tolist() == [[60000, -60000], [3, 0]]


def test_one_frame_is_in_one_split_and_group(ingested, sky_config, tmp_path):
    result = tile_frame(ingested, tmp_path / "a.tiles.h5", sky_config)
    tiles = all_tiles(tmp_path / "a.tiles.h5")
    assert np.unique(tiles.split).size == np.unique(tiles.group).size == np.unique(tiles.events["field"]).size == 1
    assert result["split"] in ("train", "validation", "test")
    with Shard(tmp_path / "a.tiles.h5") as shard:
        assert shard.source == "sky_run_0001"
        assert [channel.name for channel in shard.channels] == ["sci", "err"]
        assert shard.attributes["unit"] == "electron"
        assert shard.attributes["frame"]["statistics"] == asdict(measure(read_frame(ingested)))
        assert len(shard.attributes["stars"]["x"]) == len(read_truth(truth_path(ingested)).stars["x"])


def test_equal_runs_give_equal_shards(ingested, sky_config, tmp_path):
    for name in ("a", "b"):
        tile_frame(ingested, tmp_path / f"{name}.tiles.h5", sky_config)
    assert (tmp_path / "a.tiles.h5").read_bytes() == (tmp_path / "b.tiles.h5").read_bytes()


def test_a_frame_smaller_than_a_tile_makes_an_empty_shard(ingested, sky_config, tmp_path):
    large = sky_config.tiles.model_copy(
        update={"sky": sky_config.tiles.sky.model_copy(update={"size": 512, "stride": 512})}
    )
    result = tile_frame(ingested, tmp_path / "a.tiles.h5", sky_config.model_copy(update={"tiles": large}))
    assert result["n_tiles"] == 0
    with Shard(tmp_path / "a.tiles.h5") as shard:
        assert (shard.n_tiles, shard.n_groups) == (0, 0)
        assert {"level", "noise", "x0"} <= set(shard.columns)


def test_truth_must_be_there_and_fit(ingested, sky_config, tmp_path, write_fits):
    lonely = tmp_path / "lonely.fits"
    lonely.write_bytes(ingested.read_bytes())
    with pytest.raises(InputFileError, match=r"has no truth .* set tiles.sky.target to noise2noise"):
        tile_frame(lonely, tmp_path / "a.tiles.h5", sky_config)
    (tmp_path / "lonely.truth.fits").write_bytes(b"nonsense")
    with pytest.raises(InputFileError, match="is not the truth of a simulated frame"):
        tile_frame(lonely, tmp_path / "a.tiles.h5", sky_config)
    other = write_fits("other.fits")
    (tmp_path / "other.truth.fits").write_bytes(truth_path(ingested).read_bytes())
    with pytest.raises(InputFileError, match=r"has the shape \(160, 192\), but .* \(80, 100\)"):
        tile_frame(other, tmp_path / "a.tiles.h5", sky_config)


def test_untile_takes_one_frame(ingested, sky_config, tmp_path):
    tile_frame(ingested, tmp_path / "a.tiles.h5", sky_config)
    tiles = all_tiles(tmp_path / "a.tiles.h5")
    tiles.events["frame"] = np.arange(len(tiles))
    with pytest.raises(ValueError, match="the tiles of one frame, got those of 9"):
        untile(tiles)


# ---- exposures of one drifting field ---------------------------------------------------------------------------------
DRIFTS = [(0.0, 0.0), (3.02, -5.0), (7.5, -9.5), (-6.04, 8.03), (12.0, 4.0), (2.0, 11.05), (-9.0, -3.0), (5.06, 6.95)]
HOT = [(20, 30), (90, 100), (70, 64), (33, 140)]


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Eight exposures of a drifting star field, brightening and with growing sky, on a detector with hot pixels."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:180, :200]
    stars = np.zeros((180, 200))
    for _ in range(60):
        flux, x0, y0 = rng.uniform(3e3, 4e4), rng.uniform(5, 195), rng.uniform(5, 175)
        stars += flux * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 2 / 1.4**2) / (2 * np.pi * 1.4**2)
    folder = tmp_path_factory.mktemp("field")
    paths = []
    for number, (dx, dy) in enumerate(DRIFTS):
        moved = displace(stars, (dy, dx), order=3)[20:160, 20:180]
        expected = (1 + 0.03 * number) * np.maximum(moved, 0) + 100 + 10 * number
        image = rng.poisson(expected) + rng.normal(0, 5, expected.shape)
        for row, column in HOT:
            image[row, column] += 30_000
        hdu = fits.PrimaryHDU(image.astype(np.float32))
        hdu.header.update(BUNIT="electron", RDNOISE=5.0)
        paths.append(folder / f"exposure_{number}.fits")
        hdu.writeto(paths[-1])
    return paths


def pair_config(**sky):
    return parse_config(
        {
            "tiles": {
                "sky": {"size": 48, "stride": 48, "target": "noise2noise"} | sky,
                "splits": {"train": 1.0, "validation": 0.0, "test": 0.0},
            }
        }
    )


def test_hot_pixels_are_found(field):
    hot = static_hot_pixels([read_frame(path) for path in field])
    assert {tuple(index) for index in np.argwhere(hot)} == set(HOT)


def test_stars_that_stand_still_are_not_hot(field):
    frame = read_frame(field[0])
    hot = static_hot_pixels([frame] * 3) & (frame.sci > frame.level + 10 * frame.noise)
    inner = hot[4:-4, 4:-4]  # at the edge a star has lost half of its neighbours
    assert {(row + 4, column + 4) for row, column in np.argwhere(inner)} == set(HOT)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_placement_is_exact_to_a_few_hundredths(field, number):
    reference = read_frame(field[0])
    placement = place(read_frame(field[number]), reference, star_catalogue(reference))
    drift = np.array(DRIFTS[0]) - np.array(DRIFTS[number])
    centre = np.array([[80.0, 70.0]])
    assert np.allclose(placement.to_reference(centre) - centre, drift, atol=0.05)
    assert np.allclose(placement.from_reference(placement.to_reference(centre)), centre)
    assert placement.flux_scale == pytest.approx(1 / (1 + 0.03 * number), rel=0.02)
    assert placement.n_stars >= 15


def test_field_rotation_is_followed(field):
    reference = read_frame(field[0])
    turned = rotate(reference.sci - reference.level, 0.5, reshape=False, order=3) + reference.level
    frame = read_frame(field[0])
    frame.sci[:] = turned
    placement = place(frame, reference, star_catalogue(reference))
    angle = np.degrees(np.arctan2(placement.matrix[1, 0], placement.matrix[0, 0]))
    assert abs(angle) == pytest.approx(0.5, abs=0.03)


def test_pairs_differ_by_noise_only(field, tmp_path):
    shards = tile_pairs(field, tmp_path, pair_config())
    assert [shard.name for shard in shards] == [f"exposure_{n}.tiles.h5" for n in range(len(field))]
    tiles = TileBatch.concatenate([all_tiles(path) for path in shards if Shard(path).n_tiles])
    assert len(tiles) > 60
    assert 2 not in set(tiles.events["frame"]) | set(tiles.events["partner"])  # half a pixel off all others
    assert (tiles.events["frame"] != tiles.events["partner"]).all()
    assert tiles.events["residual_shift_px"].max() <= 0.15
    sci, clean = tiles.images[:, 0], tiles.targets["clean"][:, 0]
    sigma = np.hypot(tiles.images[:, 1], tiles.targets["clean_err"][:, 0])
    good = np.isfinite(clean) & (tiles.masks == 0)
    pull = ((sci - clean) / sigma)[good]
    assert abs(pull.mean()) < 0.02
    assert pull.std() == pytest.approx(1, abs=0.06)
    # the stars have the same flux in both: the tiles' sums above the background agree
    level = tiles.events["level"][:, None, None]
    light, partner = np.where(good, sci - level, 0).sum(), np.where(good, clean - level, 0).sum()
    assert light == pytest.approx(partner, rel=0.01)


def test_partners_hot_pixels_are_no_target(field, tmp_path):
    for path in tile_pairs(field, tmp_path, pair_config()):
        with Shard(path) as shard:
            if shard.n_tiles == 0:
                continue
            tiles = shard.tiles(0, min(64, shard.n_tiles))
            assert shard.attributes["registration"]["static_hot_pixels"] == len(HOT)
        assert np.nanmax(tiles.targets["clean"]) < 10_000
        assert np.isnan(tiles.targets["clean"]).any()
        assert np.array_equal(np.isnan(tiles.targets["clean"]), np.isnan(tiles.targets["clean_err"]))


def test_a_frame_has_partners_of_its_own_split_only(field, tmp_path):
    config = pair_config()
    split = config.tiles.model_copy(
        update={"splits": config.tiles.splits.model_copy(update={"train": 0.5, "test": 0.5})}
    )
    shards = tile_pairs(field, tmp_path, config.model_copy(update={"tiles": split}))
    splits = {n: set(Shard(path).split.tolist()) for n, path in enumerate(shards) if Shard(path).n_tiles}
    assert all(len(values) == 1 for values in splits.values())
    for number, path in enumerate(shards):
        for partner in set(all_tiles(path).events["partner"].tolist()) if Shard(path).n_tiles else ():
            assert splits[partner] == splits[number]


def test_stopped_pairs_are_made_again_without_force(field, tmp_path):
    out, cfg = tmp_path / "tiles", pair_config()
    make_tiles(field, cfg, out)
    made = {path.name: path.read_bytes() for path in out.glob("*.h5")}
    with pytest.raises(UserError, match=r"exists; choose another name or add --force"):
        make_tiles(field, cfg, out)
    (out / "exposure_1.tiles.h5").unlink()
    assert {status["status"] for status in make_tiles(field, cfg, out)} == {"ok"}
    assert {path.name: path.read_bytes() for path in out.glob("*.h5")} == made


def test_pairs_that_cannot_be_made(field, tmp_path, write_fits):
    with pytest.raises(TooFewEventsError, match="needs at least three exposures of one field, got 2"):
        tile_pairs(field[:2], tmp_path, pair_config())
    with pytest.raises(TooFewEventsError, match=r"no two of the 3 frames .* same seeing .* shifted by whole pixels"):
        tile_pairs([field[0], field[2], field[1]], tmp_path, pair_config(pair_max_residual_shift_px=1e-9))
    with pytest.raises(InputFileError, match="give frames of one field and one detector"):
        tile_pairs([*field[:2], write_fits(BUNIT="electron")], tmp_path, pair_config(), force=True)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "exposure_1.tiles.h5").write_bytes(b"")
    with pytest.raises(UserError, match=r"exposure_1\.tiles\.h5 exists"):
        tile_pairs(field[:3], tmp_path / "taken", pair_config())


def placement(shape=(1.0, 1.0, 0.0), flux_scale=1.0, flux_scale_err=0.001):
    return Placement(np.eye(2), np.zeros(2), flux_scale, np.array(shape), 0.05, 50, flux_scale_err)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (placement(), ""),
        (placement((1.1, 1.0, 0.0)), ""),
        (placement((1.6, 1.0, 0.0)), "other seeing or guiding"),
        (placement((1.0, 1.0, 0.4)), "other seeing or guiding"),
        (placement((0.0, 0.0, 0.0)), "other seeing or guiding"),
        (placement(flux_scale=1.5), "another zero point (clouds)"),
        (placement(flux_scale_err=0.05), "an uncertain zero point"),
    ],
)
def test_pairs_have_the_same_seeing_and_zero_point(other, reason):
    assert difference(placement(), other) == difference(other, placement()) == reason


def test_a_pair_is_used_in_both_directions(field, tmp_path):
    tiles = TileBatch.concatenate(
        [all_tiles(p) for p in tile_pairs(field, tmp_path, pair_config()) if Shard(p).n_tiles]
    )
    used = set(zip(tiles.events["frame"].tolist(), tiles.events["partner"].tolist(), strict=True))
    assert len(used) > 4
    assert used == {(partner, frame) for frame, partner in used}


def test_frames_without_stars_are_left_out(field, tmp_path, rng, caplog):
    cloudy = fits.PrimaryHDU(rng.normal(100, 10, (140, 160)).astype(np.float32))
    cloudy.header["BUNIT"] = "electron"
    cloudy.writeto(tmp_path / "cloudy.fits")
    shards = tile_pairs([field[0], field[4], tmp_path / "cloudy.fits"], tmp_path, pair_config())
    assert Shard(shards[2]).n_tiles == 0
    assert "cloudy.fits cannot be registered and is rejected" in caplog.text


def test_real_field_has_pairs(data_dir, tmp_path):
    from pipeline.sky.ingest import ingest_frame

    config = pair_config(size=64, stride=128)
    frames = sorted((data_dir / "sky" / "microobs_hatp32").glob("*.fits.gz"))[:12]
    ingested = []
    for path in frames:
        ingested.append(tmp_path / path.name.replace(".fits.gz", ".fits"))
        ingest_frame(path, ingested[-1], config.ingest.sky)
    shards = [Shard(path) for path in tile_pairs(ingested, tmp_path / "tiles", config)]
    assert sum(shard.n_tiles for shard in shards) > 50
    assert all(shard.attributes["registration"]["placed"] for shard in shards)
    assert len(detect_stars(read_frame(ingested[0]).sci, 365, 1.5)["x"]) > 300
