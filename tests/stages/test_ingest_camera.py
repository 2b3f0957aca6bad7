import json

import h5py
import numpy as np
import pytest
from astropy.io import fits

from pipeline.camera.dl1 import DL1File, DL1Writer, EventChunk, Subarray
from pipeline.camera.geometry import Camera
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.stages.ingest import ingest


def write_dl1(path, n=5):
    x, y = (axis.ravel() for axis in np.meshgrid(0.01 * np.arange(6), 0.01 * np.arange(6)))
    camera = Camera("Square", x, y, np.full(36, 1e-4), False, 2.2, mirror_area_m2=12.0, sampling_rate_ghz=1.0)
    image = np.random.default_rng(0).normal(size=(n, 36)).astype("f4")
    with DL1Writer(
        path, Subarray("s", {1: camera}, {1: (0.0, 0.0, 0.0)}), obs_id=1, pointing_alt_rad=1.0, pointing_az_rad=1.0
    ) as writer:
        writer.append(EventChunk(np.arange(n), np.ones(n, int), image, image))
    return path


def test_dl1_is_taken_as_it_is(tmp_path):
    path = write_dl1(tmp_path / "run.dl1.h5")
    (status,) = ingest([path], Config(), tmp_path / "out")
    assert status["status"] == "ok"
    assert (status["kind"], status["n_images"], status["notes"]) == ("dl1", 5, [])
    product = tmp_path / "out" / "run.dl1.h5"
    assert product.read_bytes() == path.read_bytes()
    assert not product.samefile(path)  # a link would be older than what made it
    assert status["output"] == str(product)
    assert json.loads((tmp_path / "out" / "status.json").read_text()) == {"run.dl1.h5": status}


def test_bad_files_are_told_of_and_skipped(tmp_path, caplog):
    good = write_dl1(tmp_path / "good.h5")
    (tmp_path / "cut.h5").write_bytes(good.read_bytes()[:-500])
    (tmp_path / "text.simtel").write_text("hello")
    (tmp_path / "empty.fits").write_bytes(b"")
    with h5py.File(tmp_path / "table.hdf5", "w") as file:
        file["events"] = np.arange(3)
    write_dl1(tmp_path / "nothing.h5", n=0)
    names = ["cut.h5", "text.simtel", "empty.fits", "table.hdf5", "nothing.h5", "missing.simtel.gz", "good.h5"]
    statuses = ingest([tmp_path / name for name in names], Config(), tmp_path / "out")
    assert [status["status"] for status in statuses] == ["failed"] * 6 + ["ok"]
    reasons = [status["reason"] for status in statuses[:6]]
    expected = [
        "truncated", "which is not a format that lightpool reads", "is empty", "tables of parameters cannot be used",
        "holds no images", "missing.simtel.gz",
    ]  # fmt: skip
    for name, reason, part in zip(names, reasons, expected, strict=False):
        assert name in reason
        assert part in reason
        assert reason in caplog.text
    assert set(json.loads((tmp_path / "out" / "status.json").read_text())) == set(names)
    assert DL1File(tmp_path / "out" / "good.dl1.h5").n_images == 5


def test_any_number_of_processes_gives_the_same(tmp_path, rng, caplog):
    files = [write_dl1(tmp_path / f"run{number}.dl1.h5", n=5 + number) for number in range(2)]
    (tmp_path / "text.simtel").write_text("hello")
    fits.PrimaryHDU(rng.normal(1000, 10, (80, 100)).astype("f4")).writeto(tmp_path / "frame.fits")
    files[1:1] = [tmp_path / "text.simtel", tmp_path / "frame.fits", tmp_path / "missing.simtel.gz"]
    made = {}
    for jobs in (1, 2):
        caplog.clear()
        out = tmp_path / "out"
        with caplog.at_level("INFO", logger="lightpool"):
            statuses = ingest(files, Config(), out, jobs=jobs)
        content = json.loads((out / "status.json").read_text())
        assert list(content.values()) == sorted(statuses, key=lambda status: status["file"])
        assert [status["status"] for status in statuses] == ["ok", "failed", "ok", "failed", "ok"]
        for status in statuses:
            status.pop("wall_time_s", None)
        products = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".h5", ".fits")}
        made[jobs] = statuses, products, caplog.messages
        out.rename(tmp_path / f"out{jobs}")
    assert len(made[1][1]) == 3
    assert any("is not a format that lightpool reads" in message for message in made[1][2])
    assert made[1] == made[2]


@pytest.mark.parametrize("name", ["out.fits", "out.dl1.h5", "out.fits.zst"])
def test_the_name_of_a_file_is_no_directory(tmp_path, name):
    with pytest.raises(UserError, match=rf"{name} names a file, and the products go into a directory"):
        ingest([tmp_path / "in.fits"], Config(), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_an_input_is_not_replaced(tmp_path):
    path = write_dl1(tmp_path / "run.dl1.h5")
    (tmp_path / "link").symlink_to(tmp_path)
    before = path.read_bytes()
    for out in (tmp_path, tmp_path / "link"):
        with pytest.raises(UserError, match=r"run.dl1.h5 is an input, which stays as it is; write to another place"):
            ingest([path], Config(), out, force=True)
    assert path.read_bytes() == before


def test_outputs_in_the_way(tmp_path):
    path = write_dl1(tmp_path / "run.dl1.h5")
    ingest([path], Config(), tmp_path / "out")
    with pytest.raises(UserError, match=r"run.dl1.h5 exists; .* --force"):
        ingest([path], Config(), tmp_path / "out")
    ingest([path], Config(), tmp_path / "out", force=True)
    with pytest.raises(UserError, match="2 inputs are named 'run'"):
        ingest([path, tmp_path / "run.simtel.zst"], Config(), tmp_path / "new")


def test_real_files_of_every_kind(data_dir, tmp_path):
    camera = data_dir / "camera"
    paths = [
        camera / "simtel" / "pe_camsettings_v6.simtel.zst",
        camera / "dl1" / "lstchain_gamma.h5",
        camera / "bad" / "pe_test_camorganv2.simtel.gz",
        camera / "corsika" / "pe_3_gammas_reuse_5.dat",
        camera / "tables" / "fact_gamma.hdf5",
    ]
    statuses = ingest(paths, Config(), tmp_path)
    assert [status["status"] for status in statuses] == ["ok", "ok", "failed", "failed", "failed"]
    assert [status.get("n_images") for status in statuses[:2]] == [9, 25]
    assert "ends before the first event" in statuses[2]["reason"]
    assert "run sim_telarray on it first" in statuses[3]["reason"]
    assert "tables of parameters cannot be used" in statuses[4]["reason"]
