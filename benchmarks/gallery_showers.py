"""Draw six gammas and six protons as each telescope type sees them.

    python benchmarks/gallery_showers.py [--out FOLDER] [--telescope NAME ...] [--seed SEED] [--quick]

One PNG per type; to be looked at whenever optics, geometry or shower development change.
"""

import argparse
from pathlib import Path

from pipeline.camera.gallery import gallery_images
from pipeline.camera.telescopes import list_telescopes
from pipeline.figures.cameras import camera_gallery
from pipeline.figures.style import save_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gallery_showers"), help="default: %(default)s")
    parser.add_argument("--telescope", action="append", choices=list_telescopes(), help="default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="the first type alone: does it run?")
    arguments = parser.parse_args()
    names = arguments.telescope or list_telescopes()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in names[:1] if arguments.quick else names:
        rows = {}
        for particle in ("gamma", "proton"):
            camera, rows[particle] = gallery_images(name, particle, seed=arguments.seed)
        print(save_figure(camera_gallery(camera, rows, title=name), arguments.out / f"{name}.png"), flush=True)


if __name__ == "__main__":
    main()
