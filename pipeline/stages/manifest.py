"""Stage `manifest`: describe any number of shards in one file that training reads."""

from collections.abc import Sequence
from pathlib import Path

from pipeline import provenance
from pipeline.config import Config, sections_of
from pipeline.logs import get_logger
from pipeline.tiles.describe import write_manifest
from pipeline.tiles.manifest import Manifest

log = get_logger(__name__)

#: Sections of the configuration that decide a manifest.
READS = ("tiles.weighting",)
CLASS_COLUMN = "true_primary_id"


def make_manifest(
    shards: Sequence[Path], cfg: Config, out: Path, *, force: bool = False, shards_outside: bool = False
) -> Manifest:
    """Write `out` for `shards`, with weights that equalise energy, offset and size between gammas and hadrons.

    Tiles that cannot be weighted (no pointing, no truth) do not cost the others their weights; a warning counts them.

    Raises
    ------
    UserError
        If the shards do not belong together, hold no tile, or lie outside the folder of `out` (without
        `shards_outside`).
    """
    weighting = cfg.tiles.weighting
    stamped = provenance.stamp("manifest", config=sections_of(cfg, READS))
    manifest = write_manifest(
        shards,
        out,
        class_column=CLASS_COLUMN,
        equalised={
            "true_energy_tev": weighting.energy_bins,
            "true_offset_deg": weighting.offset_bins,
            "hillas_intensity": weighting.size_bins,
        },
        max_weight=weighting.max_weight,
        provenance=stamped,
        shards_outside=shards_outside,
        force=force,
    )
    for text in manifest.provenance.get("warnings", ()):
        log.warning("%s: %s", out.name, text)
    return manifest
