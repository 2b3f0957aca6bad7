"""Reading and writing FITS frames. numpy and astropy.io.fits only: single-image prediction relies on this package.

    frame        one science image with its uncertainty and mask
    product      new pixels on their way into a file
    layout       what a file declares against what it holds, before anything is allocated
    planes       what extensions are: pictures, masks, uncertainties, weights
    hdus         opening files, choosing the science image, pixels and bits of an HDU
    mask_tables  what the bits of known masks mean, and names of bits in headers
    masks        a camera's mask in our bits
    coverage     parts without light
    companions   masks and uncertainties that come with a frame, in the file or beside it
    fingerprint  what binds cards to the pixels that they describe
    scale        exposed part, bias, gain and saturation
    uncertainty  from the file or modelled, and checked against the pixels
    reading      a file's science images as frames, in memory or read strip by strip
    writing      new pixels into a copy of the file
    formats      plain, packed, tile-compressed
    tile_compression  images of .fz files, strip by strip

A frame is read into electrons where a gain is known (from the configuration, else from the header), else it stays in
its own unit, and `Frame.notes` records it. New pixels go back into a copy of the file they came from, in the unit they
came in, with every other HDU, card and the WCS as they were.
"""

from pipeline.sky.frames.companions import planes_of
from pipeline.sky.frames.fingerprint import fingerprint
from pipeline.sky.frames.frame import Frame
from pipeline.sky.frames.hdus import open_fits, remark_on_file, science_hdus
from pipeline.sky.frames.product import FrameProduct, Product, StreamedProduct, Strip
from pipeline.sky.frames.reading import open_frames, read_frame, read_frames
from pipeline.sky.frames.uncertainty import checked_uncertainty
from pipeline.sky.frames.writing import write_products

__all__ = [
    "Frame",
    "FrameProduct",
    "Product",
    "StreamedProduct",
    "Strip",
    "checked_uncertainty",
    "fingerprint",
    "open_fits",
    "open_frames",
    "planes_of",
    "read_frame",
    "read_frames",
    "remark_on_file",
    "science_hdus",
    "write_products",
]
