"""How a bundle for sky frames treats stars, galaxies, noise and defects, beside other programs.

    python benchmarks/sky_judgement.py --bundle FOLDER [--frames independent|real|both|none] [--masks FOLDER]
        [--outside FOLDER] [--peers judgement.json] [--out FOLDER] [--write-frames FOLDER] [--quick]
        [--page docs/sky_judgement.md] [--from judgement.json ...]

Independent frames are drawn by code that shares nothing with lightpool's simulation; each is written as FITS and
restored as `lightpool predict` does. Real frames are those in sky/ of $LIGHTPOOL_DATA. `judgement.json` and pictures go
into --out, tables to the screen or between the marks of a page. Without a bundle, only the other programs are measured;
--outside adds the results of programs that have an environment of their own (benchmarks/outside/sky_peers.py, for
which --write-frames writes the frames); --peers takes all of them from an earlier judgement, for they do not change.
--masks adds a second bundle, whose mask alone is judged. --from makes tables of earlier judgements, of one bundle.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pages import write_page
from photometry import pictures, scenes, tables
from photometry.independent import Judged, judge
from photometry.injection import add_stars, add_tracks
from photometry.limits import Limit
from photometry.methods import RECORDED, Bundle, astroscrappy, read
from photometry.real import RealFrame, real_sets, restore_set
from photometry.real_figures import set_figures
from photometry.stars import Stars
from photometry.summary import independent_limits, real_limits, real_mask_limits, star_figures, star_summary

from pipeline.errors import UserError

SEED = 20_240_501
# Of these, the second tiling is computed too.
_SEAM_FRAMES = ("sharp 1.6 px", "bright sky 4.5 px", scenes.TINY.name)
# Mpix per CPU second, file to file, with and without bfloat16 arithmetic.
_LEAST_SPEED = {True: 4.0, False: 2.5}


# ---- frames of known truth -------------------------------------------------------------------------------------------
def independent(
    bundle: Bundle | None,
    out: Path | None,
    folder: Path,
    *,
    quick: bool,
    with_peers: bool = True,
    elsewhere: Path | None = None,
) -> dict[str, Any]:
    """All frames of known truth, one after the other."""
    if not quick:
        _warm_up(bundle, folder)
    facts, stars = [], []
    for scene in _drawn(quick):
        seams = scene.name in _SEAM_FRAMES
        judged = judge(scene, bundle, folder, seams=seams, with_peers=with_peers, elsewhere=elsewhere)
        facts.append(judged.facts | {"stars": star_summary(judged.stars)})
        stars.append(judged.stars)
        if out is not None and judged.network is not None:
            _picture(out, scene, judged)
        print(f"{scene.name}: measured", flush=True)
    bins = star_figures(Stars.joined(stars))
    return {"frames": facts, "stars": bins}


def _drawn(quick: bool) -> Iterator[scenes.Scene]:
    return scenes.scenes((scenes.TINY,), ()) if quick else scenes.scenes()


def write_frames(folder: Path, *, quick: bool) -> None:
    """Write the frames as other programs take them: electrons, with the read noise."""
    from astropy.io import fits

    folder.mkdir(parents=True, exist_ok=True)
    for scene in _drawn(quick):
        header = fits.Header({"BUNIT": "electron", "RDNOISE": scene.read_noise_e})
        hdu = fits.PrimaryHDU(scene.recorded.astype(np.float32), header)
        hdu.writeto(folder / f"{scene.file_stem}.fits", overwrite=True)


def with_earlier_peers(judged: dict[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """The other programs' figures from an earlier judgement of the same frames.

    Raises
    ------
    UserError
        If the frames are not the same.
    """
    frames = {frame["name"]: frame for frame in earlier["frames"]}
    for frame in judged["frames"]:
        old = frames.get(frame["name"])
        now, then = (plain(one and one["methods"][RECORDED]["rms_by_snr"]) for one in (frame, old))
        if now != then:
            raise UserError(f"the earlier judgement has not the same frame {frame['name']!r}; leave --peers out")
        for key in ("methods", "stars"):
            frame[key] = old[key] | frame[key]
    bins = {(tuple(one["fwhm_px"]), one["magnitude"]): one["methods"] for one in earlier["stars"]}
    for one in judged["stars"]:
        one["methods"] = bins[tuple(one["fwhm_px"]), one["magnitude"]] | one["methods"]
    return judged


def _warm_up(bundle: Bundle | None, folder: Path) -> None:
    """Imports are not work of a method."""
    (frame,) = read(scenes.draw(scenes.TINY).write(folder / "warm.fits"))
    astroscrappy(frame)
    if bundle is not None:
        bundle.from_file_to_file(frame.path, folder / "warm.restored.fits")


def _picture(out: Path, scene: scenes.Scene, judged: Judged) -> None:
    pictures.draw(out / f"independent_{scene.file_stem}.png", scene.name, judged.frame, judged.network)


# ---- real frames -----------------------------------------------------------------------------------------------------
def real(bundle: Bundle, root: Path, out: Path | None, *, quick: bool) -> dict[str, Any]:
    """Every set in `root`; in a quick run, the smallest."""
    found = []
    for chosen in real_sets(root):
        if quick and chosen.name != "kmtnet":
            continue
        frames = restore_set(chosen, bundle)
        stars = [add_stars(frame, bundle, SEED) for frame in frames]
        tracks = [add_tracks(frame, bundle, SEED) for frame in frames]
        found.append(set_figures(chosen.name, frames, stars, tracks))
        if out is not None:
            for number in sorted({0, len(frames) - 1}):
                _real_picture(out, chosen.name, number, frames[number])
        print(f"{chosen.name}: measured", flush=True)
    return {"sets": found}


def _real_picture(out: Path, name: str, number: int, done: RealFrame) -> None:
    stars = done.stars.x, done.stars.y, done.stars.kept
    title = (
        f"{name}: {done.name}, FWHM {done.fwhm_px:.2f} px, {len(done.stars.x)} stars, confirmed by {done.confirmed_by}"
    )
    pictures.draw(out / f"real_{name}_{number}.png", title, done.frame, done.after, stars)


# ---- all together ----------------------------------------------------------------------------------------------------
def limits_of(judgement: Mapping[str, Any]) -> list[Limit]:
    """Demands on what was measured of a bundle."""
    limits = []
    if judgement["bundle"] is None:
        return limits
    if "independent" in judgement:
        part = judgement["independent"]
        limits += independent_limits(part["frames"], part["stars"], _LEAST_SPEED[judgement["has_bfloat16"]])
    if "real" in judgement:
        limits += real_limits(judgement["real"]["sets"])
    if "real_masks" in judgement:
        limits += real_mask_limits(judgement["real_masks"]["sets"])
    return limits


def tables_of(judgement: Mapping[str, Any]) -> dict[str, str]:
    """Tables by name."""
    found = {}
    has_bundle = judgement["bundle"] is not None
    if has_bundle:
        found["limits"] = tables.limit_table(limits_of(judgement))
    if "independent" in judgement:
        frames = judgement["independent"]["frames"]
        found["methods"] = tables.method_table(frames)
        if has_bundle:
            found |= {
                "masks": tables.mask_table(frames),
                "errors": tables.error_table(frames),
                "stars": tables.star_table(judgement["independent"]["stars"]),
                "shapes": tables.shape_table(frames),
                "pulls": tables.pull_table(frames),
                "noise": tables.noise_table(frames),
            }
    if "masks" in judgement:
        found["defects"] = tables.mask_table(judgement["masks"]["frames"])
    if "real" in judgement:
        found["real"] = tables.real_star_table(judgement["real"]["sets"])
        found["injected"] = tables.injected_table(judgement["real"]["sets"])
    if "real_masks" in judgement:
        found["real_masks"] = tables.real_mask_table(judgement["real_masks"]["sets"])
    return found


def has_bfloat16() -> bool:
    """Whether the processor computes with bfloat16; False where /proc/cpuinfo does not say."""
    path = Path("/proc/cpuinfo")
    return path.is_file() and any(flag in path.read_text() for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def plain(value: Any) -> Any:
    """For JSON: numbers of Python, and None for what is not a number."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def measured(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything that was asked for."""
    bundle = Bundle(arguments.bundle) if arguments.bundle else None
    out = arguments.out
    judgement: dict[str, Any] = {
        "bundle": None if bundle is None else {"name": bundle.card.name, "sha256": bundle.card.bundle_sha256},
        "has_bfloat16": has_bfloat16(),
    }
    if arguments.frames in ("independent", "both"):
        judged = independent(
            bundle,
            out,
            folder,
            quick=arguments.quick,
            with_peers=arguments.peers is None,
            elsewhere=arguments.outside,
        )
        if arguments.peers is not None:
            judged = with_earlier_peers(judged, json.loads(arguments.peers.read_text())["independent"])
        judgement["independent"] = judged
    masks = Bundle(arguments.masks) if arguments.masks else None
    if masks is not None:
        own = folder / "masks"
        own.mkdir()
        judged = independent(masks, None, own, quick=arguments.quick, with_peers=False)
        judgement["masks"] = judged | {"name": masks.card.name, "sha256": masks.card.bundle_sha256}
    if arguments.frames in ("real", "both") and bundle is not None:
        root = os.environ.get("LIGHTPOOL_DATA")
        if root:
            folder = Path(root) / "sky"
            judgement["real"] = real(bundle, folder, out, quick=arguments.quick)
            if masks is not None:
                judgement["real_masks"] = real(masks, folder, None, quick=arguments.quick)
        else:
            print("real frames are left out: LIGHTPOOL_DATA is not set to the folder that has sky/")
    return plain(judgement)


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Judgements of the same bundle as one; those without a bundle go with any."""
    bundles = [part["bundle"] for part in parts if part["bundle"] is not None]
    if len({json.dumps(bundle) for bundle in bundles}) > 1:
        names = ", ".join(str(bundle["name"]) for bundle in bundles)
        raise UserError(f"the judgements are of different bundles ({names}); give those of one")
    return {key: value for part in parts for key, value in part.items()} | {"bundle": next(iter(bundles), None)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="folder of the bundle; without, only other programs are measured")
    parser.add_argument("--frames", choices=("independent", "real", "both", "none"), default="both")
    parser.add_argument("--masks", type=Path, help="folder of a second bundle, whose mask alone is judged")
    parser.add_argument("--outside", type=Path, help="results of benchmarks/outside/sky_peers.py")
    parser.add_argument("--write-frames", type=Path, help="write the frames of known truth for it")
    parser.add_argument("--peers", type=Path, help="earlier judgement.json with the other programs")
    parser.add_argument("--out", type=Path, help="folder for judgement.json and pictures")
    parser.add_argument("--page", type=Path, help="write the tables into this page, and not to the screen")
    parser.add_argument("--from", dest="earlier", type=Path, nargs="+", help="make tables of these judgement.json")
    parser.add_argument("--quick", action="store_true", help="one small frame: does it run?")
    arguments = parser.parse_args()
    if arguments.frames == "real" and arguments.bundle is None and arguments.earlier is None:
        raise UserError("real frames have no truth: they say nothing without a bundle; give --bundle")
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.write_frames is not None:
        write_frames(arguments.write_frames, quick=arguments.quick)
    if arguments.earlier is not None:
        judgement = joined([json.loads(path.read_text()) for path in arguments.earlier])
    else:
        with tempfile.TemporaryDirectory() as folder:
            judgement = measured(arguments, Path(folder))
    judgement["limits"] = [plain(asdict(limit) | {"met": limit.met}) for limit in limits_of(judgement)]
    if arguments.out is not None:
        (arguments.out / "judgement.json").write_text(json.dumps(judgement, indent=1) + "\n")
    found = tables_of(judgement)
    if arguments.page:
        write_page(arguments.page, found)
    else:
        for name, content in found.items():
            print(f"\n## {name}\n\n{content}")


if __name__ == "__main__":
    main()
