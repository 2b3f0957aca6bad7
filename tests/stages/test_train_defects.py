"""Networks that flag defects: trained alone and beside the denoiser, with thresholds in their card."""

import numpy as np
import pytest
import torch
from synthetic_tiles import sky_batch, write_tiles

from pipeline.bundle.card import load_bundle_card
from pipeline.bundle.runtime import Predictor
from pipeline.config import parse_config
from pipeline.stages.train import train
from pipeline.tasks.defects.objective import DefectObjective


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"), sky_batch(60))


def config(heads, epochs=3):
    model = {"name": "conv_autoencoder", "kwargs": {"width": 4, "depth": 2, "skips": True}}
    network = {"heads": heads, "model": model, "epochs": epochs, "batch_size": 4, "precision": "float32"}
    return parse_config({"threads": 1, "seed": 2, "networks": {"net": network}})


def test_losses_are_told_how_far_the_training_is_and_thresholds_reach_the_card(manifest, tmp_path, monkeypatch):
    told = {True: [], False: []}
    loss = DefectObjective.loss

    def spied(self, outputs, target):
        told[torch.is_grad_enabled()].append(self.progress)
        return loss(self, outputs, target)

    monkeypatch.setattr(DefectObjective, "loss", spied)
    bundle = train(config(["defects"]), "net", [manifest], tmp_path / "net")
    assert sorted(set(told[True])) == pytest.approx([0, 1 / 3, 2 / 3])
    assert set(told[False]) == {0.0}  # validation: one loss for all epochs
    card = load_bundle_card(bundle)
    assert {"tpr_bench", "tpr_own", "core_fpr"} <= set(card.validation)
    strata = card.heads[0].false_alarms.strata
    assert list(strata) == ["sky", "source", "core"]
    n_validation = card.training.manifests[0].counts["validation"]["all"]
    assert 0.8 < sum(stratum.n_good for stratum in strata.values()) / (n_validation * 32 * 32) < 1
    assert np.diff(strata["sky"].thresholds).min() >= 0
    text = (bundle / "MODEL_CARD.md").read_text()
    assert f"| sky | {strata['sky'].n_good:,} | {strata['sky'].thresholds[0]:g} |" in text


def test_one_network_may_have_both_heads(manifest, tmp_path):
    bundle = train(config({"denoise": {}, "defects": {"weight": 0.5}}, epochs=1), "net", [manifest], tmp_path / "net")
    predictor = Predictor.load(bundle, threads=1)
    tiles = sky_batch(2)
    found = predictor.predict(tiles)
    assert {"restored", "restored_err", "defect_score", "trail_logit"} <= set(found)
    alone = predictor.set_up("defects")
    assert [column.hdu for column in alone.columns if column.hdu] == []
    np.testing.assert_array_equal(alone.predict(tiles)["defect_score"], found["defect_score"])
    assert predictor.lines == alone.lines == {"trail_logit": 16}
