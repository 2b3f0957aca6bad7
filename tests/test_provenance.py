"""What is equal for equal runs stays apart from what varies."""

import hashlib
import json

from pipeline import __version__, provenance


def test_stamps_of_equal_runs_are_equal():
    one = provenance.stamp("tiles", config={"a": 1, "b": [2]}, seed=3)
    two = provenance.stamp("tiles", config={"b": [2], "a": 1}, seed=3)
    assert json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    assert one["version"] == __version__
    assert one["seed"] == 3


def test_digest_tells_configurations_apart():
    digests = {provenance.stamp("tiles", config={"a": value})["config_sha256"] for value in (1, 2)}
    assert len(digests) == 2


def test_sha256_of_a_file_longer_than_a_chunk(tmp_path):
    content = bytes(range(256)) * 8192  # 2 MiB
    path = tmp_path / "file"
    path.write_bytes(content)
    assert provenance.sha256_file(path) == hashlib.sha256(content).hexdigest()


def test_sidecar_stands_beside_the_product(tmp_path):
    product = tmp_path / "shard.tiles.h5"
    product.write_bytes(b"")
    stamped = provenance.stamp("tiles", seed=3)
    sidecar = provenance.write_sidecar(product, stamped, wall_s=1.5)
    assert sidecar == tmp_path / "shard.tiles.h5.provenance.json"
    record = json.loads(sidecar.read_text())
    assert stamped.items() <= record.items()
    assert record["product"] == "shard.tiles.h5"
    assert record["wall_s"] == 1.5
    assert {"made_at", "host", "commit", "command", "packages"} <= record.keys()
    assert not (stamped.keys() & {"made_at", "host", "commit"})


def test_missing_packages_are_left_out():
    versions = provenance.package_versions(["numpy", "no-such-distribution"])
    assert list(versions) == ["numpy"]


def test_warnings_are_in_the_stamp_once_each():
    stamped = provenance.stamp("ingest", warnings=["noise as measured", "no zero point", "noise as measured"])
    assert stamped["warnings"] == ["noise as measured", "no zero point"]
    assert "warnings" not in provenance.stamp("ingest")
