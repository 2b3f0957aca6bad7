"""What a forest estimates in place of a network's gammaness: whether the shower is a gamma's."""

from pipeline.camera.baselines import Estimand
from pipeline.tasks.gammaness.targets import GAMMA

GAMMANESS = "gammaness"
ESTIMANDS = {
    GAMMANESS: Estimand(
        lambda events: (events["true_primary_id"] == GAMMA).astype(float),
        columns=("true_primary_id",),
        classes={1: "gammas", 0: "hadrons"},
    )
}
