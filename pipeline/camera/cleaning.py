"""Which pixels hold light of the shower: two-level tail cuts, for many images at once."""

import numpy as np
from numba import njit

from pipeline.camera.geometry import Camera


def tailcuts(
    image: np.ndarray, camera: Camera, picture_pe: float, boundary_pe: float, min_picture_neighbors: int = 0
) -> np.ndarray:
    """Two-threshold cleaning; the same pixels as ``ctapipe.image.tailcuts_clean``.

    A picture pixel is kept if it has a neighbour above the boundary threshold, a boundary pixel if it has a picture
    neighbour.

    Parameters
    ----------
    image : ndarray, shape (n, n_pixels)
        Charge [p.e.]. NaN passes no threshold.
    camera : Camera
    picture_pe, boundary_pe : float
        Thresholds [p.e.]; charges equal to them pass.
    min_picture_neighbors : int
        A picture pixel with fewer picture neighbours does not count as one.

    Returns
    -------
    ndarray of bool, shape (n, n_pixels)
        True for pixels that are kept.
    """
    _check_shape(image, camera)
    if boundary_pe > picture_pe:
        raise ValueError(f"boundary_pe {boundary_pe} is above picture_pe {picture_pe}")
    image = np.ascontiguousarray(image)
    return _tailcuts(image, camera.neighbors, float(picture_pe), float(boundary_pe), min_picture_neighbors)


def dilate(mask: np.ndarray, camera: Camera) -> np.ndarray:
    """`mask` and all neighbours of its pixels, shape (n, n_pixels)."""
    _check_shape(mask, camera)
    return _dilate(np.ascontiguousarray(mask), camera.neighbors)


def _check_shape(image: np.ndarray, camera: Camera) -> None:
    if image.ndim != 2 or image.shape[1] != camera.n_pixels:
        raise ValueError(f"images have shape {image.shape}; expected (n, {camera.n_pixels}) for camera {camera.name}")


@njit(cache=True, nogil=True)
def _tailcuts(image, neighbors, picture_pe, boundary_pe, min_picture_neighbors):
    n_images, n_pixels = image.shape
    mask = np.zeros((n_images, n_pixels), np.bool_)
    picture = np.empty(n_pixels, np.bool_)
    for i in range(n_images):
        for pixel in range(n_pixels):
            picture[pixel] = False
            if image[i, pixel] >= picture_pe:
                count = 0
                for other in neighbors[pixel]:
                    if other >= 0 and image[i, other] >= picture_pe:
                        count += 1
                picture[pixel] = count >= min_picture_neighbors
        for pixel in range(n_pixels):
            if not image[i, pixel] >= boundary_pe:
                continue
            for other in neighbors[pixel]:
                if other >= 0 and (picture[other] or (picture[pixel] and image[i, other] >= boundary_pe)):
                    mask[i, pixel] = True
                    break
    return mask


@njit(cache=True, nogil=True)
def _dilate(mask, neighbors):
    n_images, n_pixels = mask.shape
    dilated = mask.copy()
    for i in range(n_images):
        for pixel in range(n_pixels):
            if mask[i, pixel]:
                for other in neighbors[pixel]:
                    if other >= 0:
                        dilated[i, other] = True
    return dilated
