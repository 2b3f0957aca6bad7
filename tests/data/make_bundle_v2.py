"""Write `bundle_v2`, the committed bundle of format 2.

Run from the checkout, once per format: ``PYTHONPATH=.:tests/support python tests/data/make_bundle_v2.py``. The bundle
stays as it is when the code changes: a test checks that it still gives the values of the day it was made.
"""

import shutil
from pathlib import Path

from synthetic_tiles import CAMERA_IDENTITY
from tiny_bundles import camera_bundle

if __name__ == "__main__":
    bundle = Path(__file__).parent / "bundle_v2"
    shutil.rmtree(bundle, ignore_errors=True)
    camera_bundle(bundle, "energy", CAMERA_IDENTITY, image_weights=(0.5, 2.0, -1.0))
