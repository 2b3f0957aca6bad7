"""The comparison of networks: which are the best, what the page says, and what it does without some of them."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from synthetic_tiles import camera_batch, write_tiles

from models import describe
from pipeline import cli
from pipeline.bundle.card import load_bundle_card
from pipeline.camera.baselines import FOREST_COLUMNS
from pipeline.config import DEFAULT_NETWORKS, load_config, parse_config, zoo_config
from pipeline.errors import UserError
from pipeline.reporting import zoo as zoo_page
from pipeline.reporting.zoo import best_of, collect_zoo
from pipeline.stages.compare import compare
from pipeline.stages.evaluate import evaluate
from pipeline.stages.train import train
from pipeline.tasks import get_objective, specs_of

EXPERIMENT = {
    "name": "side",
    "seed": 3,
    "threads": 1,
    "device": "cpu",
    "description": "two <b>networks</b>",
    "networks": {"gammaness": {"batch_size": 16, "precision": "float32"}},
    "evaluate": {"bootstrap": 50, "forest_trees": 10},
    "zoo": {
        "tasks": ["gammaness"],
        "epochs": 1,
        "train": {"scalars": []},
        "best": 1,
        "seeds": 2,
        "entries": [
            {"name": "resnet18", "label": "narrow", "kwargs": {"width": 4, "stem": "stride2", "depths": [1, 1]}},
            {"name": "lenet5_modern", "train": {"learning_rate": 1e-3}},
            {"name": "alexnet"},
            {"name": "vgg11"},
        ],
    },
}


def images_with_parameters(n):
    """Tiles with all columns that the forest reads; those that `camera_batch` lacks tell nothing."""
    batch, rng = camera_batch(n, size=32), np.random.default_rng(1)
    batch.events |= {name: rng.uniform(0, 1, n) for name in FOREST_COLUMNS if name not in batch.events}
    return batch


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder: one network with two seeds, one with one, one that failed, one that was not reached."""
    folder = tmp_path_factory.mktemp("results") / "side"
    cfg = parse_config(EXPERIMENT)
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(cfg.model_dump(mode="json")))
    tiles = write_tiles(folder.parent, images_with_parameters(400), equalised={"true_energy_tev": 3}).path
    for label, repeat in (("narrow", 0), ("narrow", 1), ("lenet5_modern", 0)):
        place = folder / "zoo" / "gammaness" / label / f"run_{repeat}"
        place.mkdir(parents=True)
        train(zoo_config(cfg, label, repeat), "gammaness", [tiles], place / "bundle")
        evaluate(cfg, place / "bundle", [tiles], place / "evaluation")
    (folder / "zoo" / "gammaness" / "best.json").write_text('["narrow"]\n')
    failed = folder / "zoo" / "gammaness" / "alexnet" / "run_0" / "bundle"
    failed.mkdir(parents=True)
    (failed / "failed.txt").write_text("error: tiles of 32 x 32 px are too small <for> the model 'alexnet'\n")
    return folder


def edit_config(folder, **changes):
    """Change the section zoo of a run's configuration."""
    content = yaml.safe_load((folder / "config.yaml").read_text())
    content["zoo"] |= changes
    (folder / "config.yaml").write_text(yaml.safe_dump(content))


def page_of(folder):
    """Text of the page, without measuring what a prediction costs."""
    zoo = collect_zoo(folder)
    cost = zoo_page.Cost(1.0, 2.0, None)
    rows = zoo_page.rows_of(zoo, {(task, label): cost for task, labels in zoo.trainings.items() for label in labels})
    return zoo_page.render_zoo(zoo, rows, {})


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    return compare(run, tmp_path_factory.mktemp("page") / "comparison.html")


def test_rows_hold_what_the_trainings_left(page, run):
    content = json.loads(page.with_suffix(".json").read_text())
    rows = {row["label"]: row for row in content["networks"]["gammaness"]}
    assert rows.keys() == {"narrow", "lenet5_modern"}
    metrics = json.loads((run / "zoo/gammaness/narrow/run_0/evaluation/gammaness/metrics.json").read_text())
    card = load_bundle_card(run / "zoo/gammaness/narrow/run_0/bundle")
    row = rows["narrow"]
    assert row["metrics"]["auc"] == metrics["metrics"]["auc"]
    assert row["minus_forest"]["auc"] == metrics["differences"]["forest"]["auc"]
    assert content["forest"]["gammaness"]["auc"] == metrics["baselines"]["forest"]["auc"]
    assert row["n_parameters"] == card.model.n_parameters
    assert row["trained_per_cpu_s"] == card.training.images_per_cpu_s > 0
    assert row["predicted_per_cpu_s"] > 0
    assert row["mflop"] == describe("resnet18", 32, 5, 1, **card.model.kwargs).flops / 1e6
    assert len(row["by_seed"]["auc"]) == 2
    assert row["by_seed"]["auc"][0] != row["by_seed"]["auc"][1]  # another seed is another network


def test_the_best_stands_first(page):
    rows = json.loads(page.with_suffix(".json").read_text())["networks"]["gammaness"]
    values = [row["metrics"]["auc"]["value"] for row in rows]
    assert values == sorted(values, reverse=True)


def test_the_page_says_what_is_there_and_what_is_not(page):
    text = page.read_text()
    assert "two &lt;b&gt;networks&lt;/b&gt;" in text
    assert "forest on Hillas parameters" in text
    assert re.search(r'<td class="name">narrow<span class="limits">resnet18</span>', text)
    assert "alexnet (Gamma ray or hadron): tiles of 32 x 32 px are too small &lt;for&gt; the model" in text
    assert "vgg11 (Gamma ray or hadron): not trained and evaluated yet" in text
    assert "each trained with 2 seeds" in text
    assert "The mean includes the first training, by which the network was selected" in text
    assert "the three best on the test split are named" in text  # not those of the validation, chosen for further seeds
    facts = (
        "training for gammaness adamw, batches of 16, highest rate 0.004; scalars besides the image: none: images alone"
    )
    assert facts in " ".join(re.sub(r"<[^>]+>", " ", text).split())
    assert "averaging to a fixed size, as an mlp and the VGG networks do, counts as a product with a matrix" in text
    assert "data:image/png;base64," in text
    assert "<script" not in text
    assert "http" not in text.replace("https://", "").split("</style>")[1].split("<pre>")[0]


def test_all_are_judged_beside_the_same_forest(run, tmp_path):
    assert collect_zoo(run).problems == []
    copy = shutil.copytree(run, tmp_path / "side")
    metrics = copy / "zoo/gammaness/lenet5_modern/run_0/evaluation/gammaness/metrics.json"
    content = json.loads(metrics.read_text())
    content["baselines"]["forest"]["auc"]["value"] += 0.01
    metrics.write_text(json.dumps(content))
    (problem,) = collect_zoo(copy).problems
    assert "tested on different tiles or against different forests" in problem


def test_trainings_that_the_experiment_no_longer_asks_for_are_left_out(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "side")
    entry = copy / "zoo" / "gammaness" / "narrow"
    shutil.copytree(entry / "run_1", entry / "run_2")  # of a time with more seeds
    (entry / "run_old").mkdir()  # set aside by hand
    assert len(collect_zoo(copy).trainings["gammaness"]["narrow"]) == EXPERIMENT["zoo"]["seeds"]
    (copy / "zoo" / "gammaness" / "best.json").write_text('["lenet5_modern"]')
    found = collect_zoo(copy)
    assert len(found.trainings["gammaness"]["narrow"]) == 1
    (problem,) = found.problems
    assert problem.startswith("lenet5_modern (Gamma ray or hadron) has 1 of 2 trainings: the others failed")
    (copy / "zoo" / "gammaness" / "best.json").unlink()
    assert len(collect_zoo(copy).trainings["gammaness"]["narrow"]) == 1


def test_the_page_says_how_many_seeds_there_are(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "side")
    edit_config(copy, seeds=3, best=2)
    (copy / "zoo" / "gammaness" / "best.json").write_text('["narrow", "lenet5_modern"]')
    zoo = copy / "zoo" / "gammaness"
    for source, target in (("narrow/run_1", "narrow/run_2"), ("narrow/run_1", "lenet5_modern/run_1")):
        shutil.copytree(zoo / source, zoo / target)
    text = page_of(copy)
    assert "each trained with 2 to 3 seeds" in text
    assert "lenet5_modern (Gamma ray or hadron) has 2 of 3 trainings" in text


def test_the_page_says_which_networks_stopped_early(run, tmp_path):
    assert "Stopped before" not in page_of(run)
    copy = shutil.copytree(run, tmp_path / "side")
    edit_config(copy, epochs=7)
    card = copy / "zoo/gammaness/narrow/run_0/bundle/card.json"
    content = json.loads(card.read_text())
    content["training"]["epochs"] = 7
    card.write_text(json.dumps(content))
    assert "had not improved for a while: lenet5_modern (1 of 7).</p>" in page_of(copy)


def test_entries_are_trained_as_the_experiment_says(run):
    card = load_bundle_card(run / "zoo/gammaness/lenet5_modern/run_0/bundle")
    assert card.name == "side_lenet5_modern_gammaness"
    assert (card.training.config["learning_rate"], card.training.epochs, card.training.seed) == (1e-3, 1, 3)
    assert load_bundle_card(run / "zoo/gammaness/narrow/run_1/bundle").training.seed == 4


# ---- who is the best -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", specs_of("camera"), ids=lambda spec: spec.name)
def test_networks_are_chosen_by_what_training_monitors(spec):
    assert get_objective(spec.name).spec.monitor == spec.monitor
    first, second, sign = 0.2, 0.1, {"lower": 1, "higher": -1}[spec.monitor.better]
    cards = {name: {"validation": {spec.monitor.metric: sign * value}} for name, value in [("a", first), ("b", second)]}
    assert best_of(spec.name, cards, 1) == ["b"]
    assert spec.monitor.improves(sign * second, sign * first)


def test_the_best_are_those_of_the_validation():
    cards = {name: {"validation": {"auc": value}} for name, value in [("a", 0.8), ("b", 0.9), ("c", None), ("d", 0.85)]}
    assert best_of("gammaness", cards, 2) == ["b", "d"]
    assert best_of("gammaness", cards, 9) == ["b", "d", "a"]
    cards = {name: {"validation": {"log10_energy_rms": value}} for name, value in [("a", 0.2), ("b", 0.1)]}
    assert best_of("energy", cards, 1) == ["b"]


# ---- the configuration of an entry -----------------------------------------------------------------------------------
def test_an_entry_changes_its_network_and_what_it_names():
    cfg = parse_config(EXPERIMENT)
    derived = zoo_config(cfg, "lenet5_modern", repeat=2)
    assert (derived.name, derived.seed, list(derived.networks)) == ("side_lenet5_modern", 5, ["gammaness"])
    expected = cfg.networks["gammaness"].model_dump() | {
        "model": {"name": "lenet5_modern", "kwargs": {}}, "epochs": 1, "learning_rate": 1e-3, "scalars": ()
    }  # fmt: skip
    assert derived.networks["gammaness"].model_dump() == expected
    assert derived.zoo.entries == ()


def test_an_entry_has_the_one_head_of_its_task():
    both = {"heads": {"gammaness": {"label_smoothing": 0.1}, "energy": {}}, "learning_rate": 5e-4}
    cfg = parse_config({"networks": {"gammaness": both}, "zoo": {"entries": [{"name": "vgg11"}]}})
    derived = zoo_config(cfg, "vgg11").networks
    assert list(derived) == ["energy", "gammaness"]
    assert {name: list(network.heads) for name, network in derived.items()} == {
        "energy": ["energy"], "gammaness": ["gammaness"],
    }  # fmt: skip
    assert derived["gammaness"].heads["gammaness"].label_smoothing == 0.1
    assert derived["gammaness"].learning_rate == 5e-4
    assert derived["energy"].learning_rate == DEFAULT_NETWORKS["energy"].learning_rate


def test_an_entry_keeps_what_it_does_not_name():
    still = {"mirror": False, "rotation": "none"}
    cfg = parse_config({
        "networks": {"gammaness": {"augmentation": still}},
        "zoo": {"entries": [{"name": "vgg11", "train": {"augmentation": {"shift_px": 2}}}]},
    })  # fmt: skip
    derived = zoo_config(cfg, "vgg11").networks
    assert derived["gammaness"].augmentation.model_dump() == still | {
        "shift_px": 2,
        "scale": 0.0,
        "drop_telescopes": 0.1,
    }
    assert derived["gammaness"].model.kwargs == {}  # not those of the experiment's own network
    assert derived["energy"].augmentation.mirror


def test_label_is_the_name_unless_given():
    assert [entry.label for entry in parse_config(EXPERIMENT).zoo.entries][:2] == ["narrow", "lenet5_modern"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "vgg11"}, {"name": "vgg11"}], r"zoo: 2 entries are labelled 'vgg11'; give each a label of its own$"),
        ([{"name": "vgg11", "label": "a/b"}], r"zoo\.entries\.0\.label: String should match .*got 'a/b'"),
        ([{"name": "vgg11", "label": ".."}], r"zoo\.entries\.0\.label: String should match .*got '\.\.'"),
        ([{"name": "vgg11", "label": "."}], r"zoo\.entries\.0\.label: String should match .*got '\.'"),
        ([{"name": "vgg11", "train": {"epochs": 9}}],
         r"zoo\.entries\.0\.train: epochs are the same for all entries, zoo\.epochs; leave them out$"),
        ([{"name": "vgg11", "train": {"model": {"name": "vgg13"}}}],
         r"zoo\.entries\.0\.train: model is the entry's own name and kwargs; leave it out$"),
        ([{"name": "vgg11", "kwarg": {}}], r"unknown key 'zoo\.entries\.0\.kwarg'; did you mean 'kwargs'"),
    ],
)  # fmt: skip
def test_entries_that_are_not_accepted(entries, message):
    with pytest.raises(UserError, match=message):
        parse_config({"zoo": {"entries": entries}})


def test_what_an_entry_sets_is_checked():
    cfg = parse_config({"zoo": {"entries": [{"name": "vgg11", "train": {"epoch": 3}}]}})
    with pytest.raises(
        UserError, match=r"zoo entry 'vgg11': unknown key 'networks\.\w+\.epoch'; did you mean 'epochs'"
    ):
        zoo_config(cfg, "vgg11")
    with pytest.raises(UserError, match="the zoo has no entry 'vgg13'; it has vgg11"):
        zoo_config(cfg, "vgg13")


def test_every_network_of_the_shipped_zoo_takes_its_tiles(checkout):
    cfg = load_config(checkout / "configs" / "zoo.yaml")
    size = cfg.tiles.camera.size
    for entry in cfg.zoo.entries:
        section = zoo_config(cfg, entry.label).networks["gammaness"]
        assert section.epochs == cfg.zoo.epochs
        assert describe(entry.name, size, 3, 2, **entry.kwargs).min_size_px <= size, entry.label


def test_the_shipped_zoo_has_every_family_of_networks_for_single_images(checkout):
    from models import list_models, model_entry

    cfg = load_config(checkout / "configs" / "zoo.yaml")
    there = {model_entry(entry.name).family for entry in cfg.zoo.entries}
    dense, for_sequences, of_images = {"autoencoder"}, {"sequence", "hyper_lstm"}, {"generative"}
    assert {model_entry(name).family for name in list_models()} - there <= dense | for_sequences | of_images


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_a_folder_without_a_comparison(tmp_path):
    with pytest.raises(
        UserError, match=r"is not the folder of a comparison: it has no config\.yaml with a section zoo"
    ):
        compare(tmp_path, tmp_path / "a.html")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", r"config\.yaml is not valid YAML"),
        ("{}", "is not the folder of a comparison: it has no config.yaml with a section zoo"),
        ("zoo: {entries: [{name: vgg11}], task: [energy]}", r"unknown key 'zoo\.task'; did you mean 'tasks'"),
        ("zoo: {entries: [{name: vgg11}], tasks: []}", "no network of .*/zoo is trained and evaluated"),
    ],
)
def test_a_configuration_that_is_no_comparison(text, message, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        compare(tmp_path, tmp_path / "a.html")


def test_an_experiment_without_its_defaults_is_a_comparison_too(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "side")
    assert "label" not in EXPERIMENT["zoo"]["entries"][1]
    (copy / "config.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    assert collect_zoo(copy).config == collect_zoo(run).config


@pytest.mark.parametrize("name", ["bundle/card.json", "evaluation/gammaness/metrics.json"])
def test_a_file_that_is_not_whole_is_named(name, run, tmp_path):
    path = shutil.copytree(run, tmp_path / "side") / "zoo" / "gammaness" / "narrow" / "run_1" / name
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match=rf"narrow/run_1/{name} is not valid JSON .*; remove its folder"):
        compare(tmp_path / "side", tmp_path / "a.html")


def test_a_further_seed_without_a_value(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.stages.compare._cost", lambda *_: zoo_page.Cost(1.0, 2.0, None))
    path = shutil.copytree(run, tmp_path / "side") / "zoo/gammaness/narrow/run_1/evaluation/gammaness/metrics.json"
    content = json.loads(path.read_text())
    for entry in content["metrics"].values():
        entry["value"] = None
    path.write_text(json.dumps(content))
    page = compare(tmp_path / "side", tmp_path / "a.html")
    rows = json.loads(page.with_suffix(".json").read_text())["networks"]["gammaness"]
    ((first, second),) = [row["by_seed"]["auc"] for row in rows if row["label"] == "narrow"]
    assert second is None
    cells = f'<b>{first:.4f}</b><span class="limits">{first:.4f}, —</span></td><td class="number">—</td>'
    assert cells in page.read_text()


def test_the_page_is_named_as_one(run, tmp_path):
    for force in (False, True):
        with pytest.raises(UserError, match=r"must be named FILE\.html or FILE\.htm, got .*page\.json"):
            compare(run, tmp_path / "page.json", force=force)
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_of_which_nothing_is_done(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(parse_config(EXPERIMENT).model_dump(mode="json")))
    with pytest.raises(UserError, match=r"no network of .*/zoo is trained and evaluated; run the workflow first"):
        compare(tmp_path, tmp_path / "a.html")


def test_command(run, page, capsys, monkeypatch):
    monkeypatch.setattr("pipeline.stages.compare._cost", lambda *_: zoo_page.Cost(1.0, 2.0, None))
    argv = ["compare", str(run), "--out", str(page)]
    assert cli.main(argv) == 2
    assert "exists; choose another name or add --force" in capsys.readouterr().err
    assert cli.main([*argv, "--force"]) == 0
    assert page.with_name("comparison.html.provenance.json").exists()
