import json
import os
import re
import shutil
import subprocess

import h5py
import numpy as np
import pytest
import yaml
from astropy.io import fits

from pipeline.config import Config, load_config
from pipeline.errors import UserError
from pipeline.reporting import words
from pipeline.reporting.collect import collect
from pipeline.reporting.page import _telescopes, render
from pipeline.stages.report import report

EVIL = "<script>alert(1)</script>.fits"


def estimate(value, half_width, **more):
    return {"value": value, "low": value - half_width, "high": value + half_width} | more


def metrics_json():
    auc = {"n": 6200, "better": "higher"}
    kept = {"n": 6200, "better": "lower"}
    return {
        "task": "gammaness",
        "network": "gammaness",
        "model": "resnet18",
        "bundle_sha256": "ab" * 32,
        "data": {"manifests": ["camera.manifest.json"], "manifests_sha256": ["cd" * 32], "split": "test", "n": 6500,
                 "n_weighted": 6200, "n_groups": 1600},
        "metrics": {"auc": estimate(0.8723, 0.011, **auc), "background_at_80": estimate(0.22, 0.02, **kept)},
        "baselines": {
            "forest": {"auc": estimate(0.851, 0.012, **auc), "background_at_80": estimate(0.25, 0.02, **kept)}
        },
        "differences": {"forest": {"auc": estimate(0.0213, 0.006), "background_at_80": estimate(-0.01, 0.03)}},
        "combined": {"auc": estimate(0.88, 0.011, **auc), "background_at_80": estimate(0.21, 0.02, **kept)},
        "bins": [
            {"by": "true_energy_tev", "low": 0.1, "high": 1.0, "n": 3000, "auc": estimate(0.9, 0.01, **auc),
             "baselines": {"forest": {"auc": estimate(0.88, 0.01, **auc)}}},
            {"by": "true_energy_tev", "low": 1.0, "high": 10.0, "n": 12},
            {"by": "hillas_intensity_pe", "low": 100.0, "high": None, "n": 4000, "auc": estimate(0.91, 0.01, **auc)},
        ],
        "baseline_settings": {"forest": {"min_samples_leaf": 5}},
        "figures": [
            {"file": "roc.png", "title": "ROC curve", "caption": "The nearer to the corner the better."},
            {"file": "gone.png", "title": "Lost figure", "caption": "Its file is not there."},
        ],
        "tables": [],
    }  # fmt: skip


def card_json():
    return {
        "name": "gammaness",
        "network": "gammaness",
        "heads": [{"task": "gammaness"}],
        "model": {"name": "resnet18", "kwargs": {"width": 16}, "n_parameters": 701_000},
        "training": {"epochs": 12, "best_epoch": 9, "n_images": 15_000, "wall_time_s": 312.0, "device": "cpu"},
        "bundle_sha256": "ab" * 32,
    }


def small_figure(path):
    from pipeline.figures.style import new_figure, save_figure

    figure = new_figure(9, 3)
    figure.subplots().plot([0, 1], [0, 1])
    save_figure(figure, path)


def made_up_dl2(path, n=30):
    """Tables as `predict` writes them, of three models; those of `disp` do not say what is valid."""
    kinds = {
        "energy": ("lp_energy", "energy", "TeV"), "classification": ("lp_gammaness", "prediction", ""),
        "disp": ("lp_direction", "parameter", "deg"),
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for kind, (prefix, quantity, unit) in kinds.items():
            column = f"{prefix}_tel_{quantity}"
            dtype = [
                ("obs_id", "i4"),
                ("event_id", "i8"),
                ("tel_id", "i2"),
                (column, "f8"),
            ]
            if kind != "disp":
                dtype.append((f"{prefix}_tel_is_valid", "i1"))
            rows = np.zeros(n, dtype)
            rows["obs_id"], rows["event_id"], rows["tel_id"] = 5, np.arange(n) + 100, 1
            rows[column] = np.linspace(0.1, 0.9, n)
            if kind != "disp":
                rows[f"{prefix}_tel_is_valid"] = np.arange(n) % 3 > 0
            rows[column][0] = np.nan
            table = file.create_dataset(f"dl2/event/telescope/{kind}/{prefix}/tel_001", data=rows)
            table.attrs["CTAFIELD_3_UNIT"] = unit


@pytest.fixture
def run_dir(tmp_path):
    run = tmp_path / "results" / "trial"
    folders = (
        "status", "tiles", "bundles/gammaness", "evaluation/gammaness/gammaness", "predictions/camera/gamma_test",
        "predictions/sky/field_7", "predictions/sky/broken", "benchmarks/tiles_camera",
    )  # fmt: skip
    for folder in folders:
        (run / folder).mkdir(parents=True)
    config = Config(name="trial", description="Gammas & protons, 1 < E < 2 TeV").model_dump(mode="json")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    status = {
        "good": {"input": "good.fits", "status": "ok", "kind": "fits", "n_pixels": 1024},
        "evil": {"input": EVIL, "status": "failed", "kind": "fits", "reason": "is truncated; fetch it again"},
    }
    (run / "status/ingest_sky.json").write_text(json.dumps(status))
    manifest = {
        "wing": "camera", "tile_shape": [56, 56], "channels": [{"name": "charge", "unit": "p.e."}],
        "shards": [{"n_tiles": 20_000, "n_groups": 4000}],
        "counts": {"train": {"0": 6000, "101": 6000}, "test": {"0": 3250, "101": 3250}},
    }  # fmt: skip
    (run / "tiles/camera.manifest.json").write_text(json.dumps(manifest))
    (run / "evaluation/gammaness/gammaness/metrics.json").write_text(json.dumps(metrics_json()))
    small_figure(run / "evaluation/gammaness/gammaness/roc.png")
    (run / "bundles/gammaness/card.json").write_text(json.dumps(card_json()))
    (run / "bundles/gammaness/MODEL_CARD.md").write_text(
        "# gammaness\n\n<b>raw</b> [x](javascript:1)\n\n|a|b|\n|-|-|\n|1|2|\n"
    )
    small_figure(run / "bundles/gammaness/learning_curves.png")
    made_up_dl2(run / "predictions/camera/gamma_test/gamma_test.dl2.h5")
    camera = {"gamma_test.simtel.gz": {"status": "ok", "n_images": 41, "n_valid": 30, "left_out": {"too faint": 11}}}
    (run / "predictions/camera/gamma_test/status.json").write_text(json.dumps(camera))
    sky = {
        "field_7.fits": {
            "status": "ok",
            "file": str(tmp_path / "field_7.fits"),
            "output": str(run / "predictions/sky/field_7/field_7.fits"),
        },
    }
    (run / "predictions/sky/field_7/status.json").write_text(json.dumps(sky))
    broken = {"broken.fits": {"status": "failed", "reason": "/home/me/data/broken.fits has no valid pixel"}}
    (run / "predictions/sky/broken/status.json").write_text(json.dumps(broken))
    frame = np.random.default_rng(0).normal(200, 10, (64, 64)).astype(np.float32)
    fits.PrimaryHDU(frame).writeto(tmp_path / "field_7.fits")
    fits.PrimaryHDU(np.full_like(frame, 200) + frame[::-1] * 1e-3).writeto(run / "predictions/sky/field_7/field_7.fits")
    (run / "benchmarks/train.tsv").write_text("s\th:m:s\tmax_rss\n312.5\t0:05:12\t900.1\n")
    for name, line in (("a", "10.0\t0:00:10\t300.0"), ("b", "20.0\t0:00:20\tNA")):
        (run / f"benchmarks/tiles_camera/{name}.tsv").write_text(f"s\th:m:s\tmax_rss\n{line}\n")
    sidecar = {"product": "gammaness", "stage": "train", "made_at": "2024-05-06T07:08:09+00:00", "commit": "f" * 40,
               "config_sha256": "9" * 64, "python": "3.11.2", "packages": {"torch": "2.13.0"}}  # fmt: skip
    (run / "bundles/gammaness.provenance.json").write_text(json.dumps(sidecar))
    later = sidecar | {"product": "energy", "made_at": "2024-05-06T07:08:10+00:00"}
    (run / "bundles/energy.provenance.json").write_text(json.dumps(later))
    return run


@pytest.fixture
def page(run_dir, tmp_path):
    return report(run_dir, tmp_path / "report.html").read_text()


def text_of(page):
    bare = re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S))
    return re.sub(r"[ \n]+", " ", bare)  # thin spaces between thousands stay


def test_nothing_is_loaded_from_outside(page):
    assert not re.search(r"<(script|link|iframe|object|embed)\b", page)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:image/png;base64,|#)""", page)
    assert "url(" not in page
    assert "@import" not in page
    assert page.count("data:image/png;base64,") == 3


def test_headline_stands_beside_its_baseline(page):
    text = text_of(page)
    assert "0.872 [0.861, 0.883]" in text
    assert "area under the ROC curve compared with: forest on Hillas parameters ▲ better 0.872 [0.861, 0.883]" in text
    assert "+0.021 [+0.015, +0.027]" in text
    assert "● undecided" in text
    assert "forest on Hillas parameters" in text
    assert "6\u202f500 images of 1\u202f600 showers" in text


def test_failed_inputs_are_named_with_their_reason_and_escaped(page):
    assert "1 of 2 files could be used" in text_of(page)
    assert "is truncated; fetch it again" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "1 &lt; E &lt; 2 TeV" in page


def test_model_card_is_rendered_but_not_obeyed(page):
    assert "&lt;b&gt;raw&lt;/b&gt;" in page
    assert 'href="javascript' not in page
    assert "<td>1</td>" in page


def test_predictions_times_and_provenance_are_there(page):
    text = text_of(page)
    assert "lp_energy_tel_energy: 20" in text
    assert "lp_direction_tel_parameter: 29" in text
    assert "lp_gammaness_tel_prediction: 20" in text
    assert "5 101 1 0.1276 0.1276" in text
    assert "5 100 1 — —" in text
    assert "lp_energy_tel_energy [TeV]" in text
    assert "gamma_test.simtel.gz 41 30 11 × too faint" in text
    assert "1 frame was restored" in text
    assert "field_7.fits" in text
    assert " broken.fits has no valid pixel" in text
    assert "/home/me" not in text
    assert "tiles_camera 2 30 s 20 s 300 MB" in text
    assert "train 1 5 min 12 s" in text
    assert "torch 2.13.0" in text
    assert "train 2: energy to gammaness 2024-05-06 07:08:10 UTC" in text
    assert "2024-05-06 07:08:10 UTC, by lightpool" in text
    assert "ab" * 32 in text


def test_equal_warnings_are_one_row_with_the_number_of_files(run_dir, tmp_path):
    assert "Warnings" not in text_of(report(run_dir, tmp_path / "none.html").read_text())
    texts = {
        "ingested/a.fits": ["the gain 26 of GAIN is not believed", EVIL],
        "ingested/b.fits": ["the gain 1.5e-3 of GAIN is not believed"],
        "ingested/c.fits": ["the gain 300 of GAIN is not believed"],
        "ingested/d.fits": ["the gain 301 of GAIN is not believed"],
        "predictions/sky/a.fits": ["the gain 26 of GAIN is not believed"],  # the same file again
        "predictions/camera/run.dl2.h5": ["the pointing is not known"],
        "predictions/camera/old.dl2.h5": "no list",
    }
    for name, warnings in texts.items():
        path = run_dir / f"{name}.provenance.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        source = name.rsplit("/", 1)[1].replace("dl2.h5", "simtel.gz")
        path.write_text(json.dumps({"product": name, "stage": "ingest", "input": source, "warnings": warnings}))
    page = report(run_dir, tmp_path / "report.html").read_text()
    text = text_of(page)
    assert "the gain 26 of GAIN is not believed 4 a.fits, b.fits, c.fits and 1 more" in text
    assert "the pointing is not known 1 run.simtel.gz" in text
    assert text.count("of GAIN is not believed") == 1
    assert "<script>alert" not in page
    assert page.index('id="warnings"') < page.index('id="summary"')
    assert 'href="#warnings"' in page


def test_bins_and_counts_are_tables(page):
    text = text_of(page)
    assert "In bands of true energy" in text
    assert "1 to 10 12 — —" in text
    assert "> 100" in page.replace("&gt;", ">")
    assert "train 6\u202f000 6\u202f000" in text


def test_events_of_several_telescopes_are_named(run_dir, tmp_path):
    path = run_dir / "evaluation/gammaness/gammaness/metrics.json"
    content = json.loads(path.read_text())
    content["data"]["items"] = "events"
    content["bins"].append({"by": "n_telescopes", "low": 5, "high": None, "n": 77, "name": "5 or more"})
    path.write_text(json.dumps(content))
    text = text_of(report(run_dir, tmp_path / "report.html").read_text())
    assert "Judged on 6\u202f500 events of 1\u202f600 showers" in text
    assert "By number of telescopes" in text
    assert "5 or more 77" in text


def test_all_runs_of_an_experiment_are_counted(run_dir, tmp_path, checkout):
    config = load_config(checkout / "configs" / "sst_array.yaml")
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    text = text_of(report(run_dir, tmp_path / "report.html").read_text())
    assert config.showers.scale == 3
    assert "24 runs of 100 gamma showers, up to 4° off the pointing, 1 to 100 TeV, spectral index −2; 30 runs" in text
    assert "6 runs of 100 gamma showers, 0.5° off the pointing," in text


def test_sections_that_are_linked_exist(page):
    for anchor in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{anchor}"' in page


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ("evaluation", "evaluations (evaluation/)"),
        ("bundles", "trained models (bundles/)"),
        ("tiles", "tiles (tiles/*.manifest.json)"),
        ("predictions", "predictions (predictions/)"),
        ("benchmarks", "times of the rules (benchmarks/)"),
        ("config.yaml", "the experiment&#39;s configuration (config.yaml)"),
    ],
)
def test_a_missing_part_is_said(removed, said, run_dir, tmp_path):
    path = run_dir / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = report(run_dir, tmp_path / "report.html").read_text()
    assert "Not in this run’s folder" in page
    assert said in page


def test_a_run_of_nothing_but_statuses_makes_a_page(run_dir, tmp_path):
    for name in ("evaluation", "bundles", "tiles", "predictions", "benchmarks"):
        shutil.rmtree(run_dir / name)
    page = report(run_dir, tmp_path / "report.html").read_text()
    assert "The run has no evaluation" in page
    assert "is truncated" in page


def test_damaged_parts_are_named(run_dir, tmp_path):
    (run_dir / "evaluation/gammaness/gammaness/metrics.json").write_text("{ not json")
    (run_dir / "predictions/camera/gamma_test/gamma_test.dl2.h5").write_bytes(b"nothing")
    (run_dir / "config.yaml").write_text("a: [1")
    (run_dir / "status/ingest_sky.json").write_text("[]")
    text = text_of(report(run_dir, tmp_path / "report.html").read_text())
    assert "evaluation/gammaness/gammaness/metrics.json cannot be read" in text
    assert "predictions/camera/gamma_test/gamma_test.dl2.h5 cannot be read" in text
    assert "config.yaml cannot be read" in text
    assert "status/ingest_sky.json is not a JSON object" in text
    assert "This head was not evaluated" in text


def _places(content, path=()):
    yield path
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from _places(content[key], (*path, key))


def test_whatever_stands_in_a_json_file_the_page_is_made(run_dir, tmp_path, monkeypatch):
    """A value of every file, at every fourth place in turn, is of another type: all else is shown."""
    monkeypatch.setattr("pipeline.reporting.page.restored_frames", lambda run: [])
    files = sorted(path for path in run_dir.rglob("*.json") if path.stat().st_size)
    assert len(files) == 9
    odd = [None, -1, "text", [], {}, [[]], True, 1e308, {"a": None}]
    n_named = 0
    for number, path in enumerate(files):
        text = path.read_text()
        content = json.loads(text)
        for step, place in enumerate(list(_places(content))[number % 4 :: 4]):
            changed = json.loads(text)
            value = odd[(number + step) % len(odd)]
            if place:
                owner = changed
                for key in place[:-1]:
                    owner = owner[key]
                owner[place[-1]] = value
            else:
                changed = value
            path.write_text(json.dumps(changed))
            page = render(collect(run_dir))
            assert "</html>" in page, (path.name, place, value)
            n_named += "damaged" in page or "cannot be read" in page
        path.write_text(text)
    assert n_named > 12


def test_odd_figures_tables_and_names_are_left_out(run_dir, tmp_path):
    figure = run_dir / "evaluation/gammaness/gammaness/roc.png"
    figure.write_bytes(figure.read_bytes()[:1000])
    (run_dir / "bundles/gammaness/learning_curves.png").write_bytes(b"no picture")
    (run_dir / "benchmarks/train.tsv").write_bytes(b"s\tmax_rss\nnan\t\xff\n")
    os.mkfifo(run_dir / "status/ingest_camera.json")
    os.mkfifo(run_dir / "benchmarks/pipe.tsv")
    (run_dir / "bundles" / os.fsdecode(b"caf\xe9.provenance.json")).write_text("{")
    (run_dir / "predictions/camera/gamma_test/status.json").write_text('{"a": {"status": "ok", "n_images": "many"}}')
    with h5py.File(run_dir / "predictions/camera/gamma_test/gamma_test.dl2.h5", "a") as file:
        del file["dl2/event/telescope/energy/lp_energy/tel_001"]
        file["dl2/event/telescope/energy/lp_energy/tel_001"] = "no table"
    text = text_of(report(run_dir, tmp_path / "report.html").read_text())
    for part in (
        "the evaluation of gammaness-gammaness cannot be shown: damaged (ValueError: ROC curve is no PNG, or cut)",
        "the learning curves of gammaness cannot be shown: damaged",
        "benchmarks/train.tsv cannot be read",
        "benchmarks/pipe.tsv cannot be read (benchmarks/pipe.tsv is a pipe",
        "status/ingest_camera.json cannot be read",
        "caf?.provenance.json cannot be read",
        "the predictions for a cannot be shown: damaged",
        "gamma_test.dl2.h5 cannot be read",
    ):
        assert part in text


def test_predictions_of_whole_events_are_shown(run_dir, tmp_path):
    """A model of events has no table of telescopes; the averages of a model of images are not shown beside it."""
    path = run_dir / "predictions/camera/gamma_test/gamma_test.dl2.h5"

    def table(prefix, value):
        dtype = [("obs_id", "i4"), ("event_id", "i8"), (f"{prefix}_energy", "f4"), (f"{prefix}_is_valid", "u1")]
        return np.array([(5, 900, value, 1), (5, 901, value, 1), (5, 902, np.nan, 0)], dtype)

    with h5py.File(path, "a") as file:
        file["dl2/event/subarray/energy/lp_energy"] = table("lp_energy", 7.125)
        file["dl2/event/subarray/energy/lp_stereo"] = table("lp_stereo", 3.875)
    text = text_of(report(run_dir, tmp_path / "both.html").read_text())
    assert "lp_stereo_energy: 2" in text
    assert "lp_energy_energy" not in text
    with h5py.File(path, "a") as file:
        del file["dl2/event/telescope"]
        del file["dl2/event/subarray/energy/lp_energy"]
    text = text_of(report(run_dir, tmp_path / "events.html").read_text())
    assert "cannot be read" not in text
    assert "lp_stereo_energy: 2" in text
    assert "5 900 — 3.875 5 901 — 3.875 5 902 — —" in " ".join(text.split())
    with h5py.File(path, "a") as file:
        del file["dl2/event/subarray"]
    text = text_of(report(run_dir, tmp_path / "none.html").read_text())
    assert "gamma_test.dl2.h5 cannot be read (it has no tables of telescopes or of the array)" in text


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a directory; give the folder of a run"):
        report(tmp_path / "nowhere", tmp_path / "report.html")
    with pytest.raises(UserError, match=r"is not the folder of a run: it has none of config\.yaml, status"):
        report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_an_existing_page_is_replaced_only_with_force(run_dir, tmp_path):
    out = report(run_dir, tmp_path / "report.html")
    first = out.read_bytes()
    with pytest.raises(UserError, match="exists; choose another name or add --force"):
        report(run_dir, out)
    report(run_dir, out, force=True)
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    ("entry", "options", "expected"),
    [
        (estimate(0.8723, 0.011), {}, "0.872 [0.861, 0.883]"),
        (estimate(0.3664, 0.0123), {"percent": True}, "36.6 % [35.4, 37.9]"),
        (estimate(-0.0213, 0.006), {"signed": True}, "−0.021 [−0.027, −0.015]"),
        (estimate(41.27, 3.0), {}, "41.3 [38.3, 44.3]"),
        (estimate(0.0, 0.0), {}, "0.000 [0.000, 0.000]"),
        ({"value": None, "low": None, "high": None}, {}, "—"),
        (None, {}, "—"),
    ],
)
def test_values_have_the_digits_that_their_interval_deserves(entry, options, expected):
    assert words.value_text(entry, **options) == expected


@pytest.mark.parametrize(
    ("difference", "better", "expected"),
    [
        (estimate(0.02, 0.01), "higher", "better"),
        (estimate(0.02, 0.01), "lower", "worse"),
        (estimate(-0.02, 0.01), "lower", "better"),
        (estimate(-0.02, 0.01, absolute=True), "lower", "better"),
        (estimate(0.02, 0.05), "higher", "same"),
        ({"value": 0.02, "low": None, "high": None}, "higher", ""),
        (None, "higher", ""),
    ],
)
def test_verdict_needs_an_interval_that_leaves_out_zero(difference, better, expected):
    assert words.verdict(difference, better) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(3.21, "3.2 s"), (59.6, "1 min 00 s"), (312.4, "5 min 12 s"), (3905, "1 h 05 min"), (None, "—")],
)
def test_durations(seconds, expected):
    assert words.duration_text(seconds) == expected


# ---- networks and heads ----------------------------------------------------------------------------------------
def write_network(run, name, tasks):
    """A bundle's card, a head for each task; and the evaluation of those that have metrics."""
    (run / "bundles" / name).mkdir(parents=True, exist_ok=True)
    card = card_json() | {"name": name, "network": name, "heads": [{"task": task} for task in tasks]}
    (run / "bundles" / name / "card.json").write_text(json.dumps(card))
    for task, metrics in tasks.items():
        if metrics is not None:
            folder = run / "evaluation" / name / task
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text(json.dumps(metrics | {"task": task, "network": name}))


def headings(page):
    return re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', page)


def test_a_head_is_called_by_its_task_alone_where_one_network_has_it(page):
    assert ("gammaness-gammaness", "Gamma ray or hadron") in headings(page)


def test_two_networks_with_the_same_task_are_told_apart(run_dir, tmp_path):
    other = metrics_json()
    other["metrics"]["auc"] = estimate(0.901, 0.011, n=6200, better="higher")
    write_network(run_dir, "wide", {"gammaness": other})
    page = report(run_dir, tmp_path / "report.html").read_text()
    found = dict(headings(page))
    assert found["gammaness-gammaness"] == "Gamma ray or hadron (network gammaness)"
    assert found["wide-gammaness"] == "Gamma ray or hadron (network wide)"
    text = text_of(page)
    assert text.index("(network gammaness)") < text.index("0.872 [0.861, 0.883]")
    assert text.index("(network wide)") < text.index("0.901 [0.890, 0.912]")
    assert "tiles that gammaness of wide was judged on" in text
    assert "bundle wide" in text


def test_a_network_of_another_name_says_it(run_dir, tmp_path):
    (run_dir / "evaluation/gammaness").rename(run_dir / "evaluation/wide")
    (run_dir / "bundles/gammaness").rename(run_dir / "bundles/wide")
    page = report(run_dir, tmp_path / "report.html").read_text()
    assert dict(headings(page))["wide-gammaness"] == "Gamma ray or hadron (network wide)"


def test_heads_of_one_network_share_its_description(run_dir, tmp_path):
    shutil.rmtree(run_dir / "evaluation/gammaness")
    shutil.rmtree(run_dir / "bundles/gammaness")
    write_network(run_dir, "both", {"gammaness": metrics_json(), "energy": None})
    page = report(run_dir, tmp_path / "report.html").read_text()
    assert [name for name, _ in headings(page) if name.startswith("both-")] == ["both-gammaness", "both-energy"]
    text = text_of(page)
    assert text.count("A resnet18 (width 16) of 701\u202f000 parameters") == 1
    assert (
        "Energy of gamma rays (network both) Another head of the network both, described above. "
        "This head was not evaluated." in text
    )


def test_a_task_that_is_not_installed_is_shown_by_its_name_with_all_its_metrics(run_dir, tmp_path):
    content = metrics_json()
    for block in (content["metrics"], content["baselines"]["forest"]):
        block["angular_resolution"] = block.pop("background_at_80")
    content["differences"]["forest"]["angular_resolution"] = content["differences"]["forest"].pop("background_at_80")
    del content["combined"]
    write_network(run_dir, "tilt", {"tilt": content})
    page = report(run_dir, tmp_path / "report.html").read_text()
    assert [name for name, _ in headings(page) if "-" in name][-1] == "tilt-tilt"  # after the known ones
    assert dict(headings(page))["tilt-tilt"] == "tilt"
    summary, details = page.split('<h2 id="tilt-tilt">')
    for part in (summary, details):
        assert "angular resolution" in text_of(part)
    assert "6\u202f500 images of 1\u202f600 showers" in text_of(details)


def test_the_wing_of_a_prediction_is_its_first_folder(run_dir):
    run = collect(run_dir)
    assert {(entry.name, entry.wing, entry.ok) for entry in run.predicted} == {
        ("gamma_test.simtel.gz", "camera", True), ("field_7.fits", "sky", True), ("broken.fits", "sky", False),
    }  # fmt: skip
    (entry,) = run.camera_predictions
    assert entry.name == "gamma_test"
    assert run.problems == []


# ---- in a browser --------------------------------------------------------------------------------------------
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--force-device-scale-factor=1",
)  # fmt: skip


def in_browser(tmp_path, *arguments):
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    return subprocess.run(
        [CHROMIUM, *OPTIONS, profile, *arguments], capture_output=True, text=True, timeout=120, check=True
    )


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window(width, page, tmp_path):
    # The window of headless Chromium cannot be as narrow as a phone; a frame inside it can.
    (tmp_path / "page.html").write_text(page)
    (tmp_path / "frame.html").write_text(
        f"""<iframe id="f" src="page.html" width="{width}" height="900" style="border:0"></iframe>
        <pre id="result"></pre>
        <script>f.onload = () => {{
            const root = f.contentDocument.documentElement, images = [...f.contentDocument.images];
            result.textContent = JSON.stringify({{width: root.clientWidth, scroll: root.scrollWidth,
                height: root.scrollHeight,
                loaded: images.filter(i => i.complete && i.naturalWidth > 0).length, images: images.length}});
        }}</script>"""
    )
    done = in_browser(
        tmp_path, "--allow-file-access-from-files", "--window-size=1400,1000", "--virtual-time-budget=5000",
        "--dump-dom",
        f"file://{tmp_path / 'frame.html'}",
    )  # fmt: skip
    measured = json.loads(re.search(r'<pre id="result">(.*?)</pre>', done.stdout)[1])
    assert measured["width"] == width
    assert measured["scroll"] <= width  # wide tables and figures scroll inside themselves, the page does not
    assert measured["height"] > 1500
    assert measured["loaded"] == measured["images"] == 3


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_screenshot_can_be_taken(page, tmp_path):
    (tmp_path / "page.html").write_text(page)
    picture = tmp_path / "page.png"
    in_browser(tmp_path, "--window-size=1280,2000", f"--screenshot={picture}", f"file://{tmp_path / 'page.html'}")
    from matplotlib.image import imread

    pixels = imread(picture)
    assert pixels.shape[:2] == (2000, 1280)
    assert pixels[..., :3].std() > 0.05  # there is something on it


def test_a_value_that_rounds_to_zero_has_no_sign():
    entry = {"value": -1e-5, "low": -0.0008, "high": 0.0011}
    assert words.value_text(entry, percent=True) == "0.00 % [−0.08, 0.11]"


@pytest.mark.parametrize(
    ("showers", "text"),
    [
        ({"telescope": "LST", "array": []}, "1 LST"),
        (
            {"telescope": "LST", "array": [{"type": t} for t in ("LST", "MST-NectarCam", "LST")]},
            "2 LST, 1 MST-NectarCam",
        ),
    ],
)
def test_the_telescopes_of_an_array_are_counted(showers, text):
    assert _telescopes(showers) == text
