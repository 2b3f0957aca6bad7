"""Image parameters of many cleaned images at once: Hillas moments, timing, leakage, concentration, morphology.

Names, units and definitions are ctapipe's, whose ``ImageProcessor`` takes one image at a time; a test compares them.
One thing differs on purpose: ctapipe starts the robust fit of the time gradient from randomly drawn pixels and gives
another value with every order of calls, here the starts are fixed.

References
----------
.. [1] Hillas (1985), 19th ICRC 3, 445.
.. [2] Rousseeuw & van Driessen (2006), Data Min. Knowl. Discov. 12, 29 (least trimmed squares).
"""

import math

import numpy as np

from pipeline.camera.compiled import njit
from pipeline.camera.geometry import Camera

#: Columns of `image_parameters` and their units, in its order.
PARAMETERS = {
    "hillas_intensity": "p.e.", "hillas_skewness": "", "hillas_kurtosis": "", "hillas_fov_lon": "deg",
    "hillas_fov_lat": "deg", "hillas_r": "deg", "hillas_phi": "deg", "hillas_length": "deg", "hillas_width": "deg",
    "hillas_psi": "deg", "timing_slope": "ns/deg", "timing_intercept": "ns", "timing_deviation": "ns",
    "leakage_pixels_width_1": "", "leakage_pixels_width_2": "", "leakage_intensity_width_1": "",
    "leakage_intensity_width_2": "", "concentration_cog": "", "concentration_core": "", "concentration_pixel": "",
    "morphology_n_pixels": "", "morphology_n_islands": "",
}  # fmt: skip

_EIGENVALUE_ATOL_DEG2 = 2.2e-16  # HILLAS_ATOL of ctapipe: smaller eigenvalues are zeros with rounding errors
_LTS_SHARE, _LTS_STARTS, _LTS_STEPS, _LTS_EPS = 0.85, 10, 20, 1e-12  # of ctapipe, with twice the starts


def image_parameters(
    image: np.ndarray, peak_time: np.ndarray | None, mask: np.ndarray, camera: Camera
) -> dict[str, np.ndarray]:
    """Parameters of cleaned images.

    Parameters
    ----------
    image : ndarray, shape (n, n_pixels)
        Charge [p.e.].
    peak_time : ndarray, shape (n, n_pixels), or None
        [ns]; without it the timing columns are NaN. NaN pixels are excluded from the fit.
    mask : ndarray of bool, shape (n, n_pixels)
        Pixels kept by the cleaning; their charges are finite.
    camera : Camera

    Returns
    -------
    dict of ndarray, float32, shape (n,)
        `PARAMETERS`. All but the numbers of pixels and islands are NaN for images without charge in the mask; direction
        and higher moments are NaN for a single pixel.
    """
    if not image.shape == mask.shape == (len(image), camera.n_pixels):
        raise ValueError(
            f"images have shape {image.shape}, masks {mask.shape}; expected (n, {camera.n_pixels}) for {camera.name}"
        )
    if peak_time is None:
        peak_time = np.full_like(image, math.nan)
    values = _parameters(
        np.ascontiguousarray(image),
        np.ascontiguousarray(peak_time),
        np.ascontiguousarray(mask),
        camera.pix_x_deg,
        camera.pix_y_deg,
        camera.pix_width_deg,
        camera.neighbors,
        camera.border_mask(1),
        camera.border_mask(2),
    )
    return {name: values[:, column].astype(np.float32) for column, name in enumerate(PARAMETERS)}


@njit(cache=True, nogil=True)
def _parameters(image, peak_time, mask, x, y, width, neighbors, border1, border2):
    n_images, n_pixels = image.shape
    result = np.full((n_images, 22), np.nan)
    labels = np.empty(n_pixels, np.bool_)
    for i in range(n_images):
        pixels = np.flatnonzero(mask[i])
        result[i, 20] = len(pixels)
        result[i, 21] = _n_islands(pixels, mask[i], neighbors, labels)
        charge = image[i][pixels].astype(np.float64)
        size = charge.sum()
        if not size > 0:
            continue
        moments = _moments(charge, x[pixels], y[pixels], size)
        result[i, :10] = moments
        longitudinal, transverse = _along_axes(x[pixels], y[pixels], moments)
        result[i, 10:13] = _timing(longitudinal, peak_time[i][pixels].astype(np.float64))
        result[i, 13:17] = _leakage(charge, border1[pixels], border2[pixels], size)
        result[i, 17:20] = _concentration(charge, longitudinal, transverse, width[pixels], moments)
    return result


@njit(cache=True, nogil=True)
def _moments(charge, x, y, size):
    """The first ten columns of `PARAMETERS`."""
    cog_x, cog_y = (charge * x).sum() / size, (charge * y).sum() / size
    dx, dy = x - cog_x, y - cog_y
    cxx, cyy, cxy = (charge * dx * dx).sum() / size, (charge * dy * dy).sum() / size, (charge * dx * dy).sum() / size
    half_trace, root = 0.5 * (cxx + cyy), math.hypot(0.5 * (cxx - cyy), cxy)
    large, small = half_trace + root, half_trace - root
    large = 0.0 if large <= _EIGENVALUE_ATOL_DEG2 else large
    small = 0.0 if small <= _EIGENVALUE_ATOL_DEG2 else small
    length, width = math.sqrt(large), math.sqrt(small)
    psi = skewness = kurtosis = np.nan
    if length > 0:
        psi = 0.5 * math.atan2(2 * cxy, cxx - cyy)  # in (-pi/2, pi/2]
        along = dx * math.cos(psi) + dy * math.sin(psi)
        skewness = (charge * along**3).sum() / size / length**3
        kurtosis = (charge * along**4).sum() / size / large**2
    return np.array(
        [
            size, skewness, kurtosis, cog_x, cog_y, math.hypot(cog_x, cog_y), math.degrees(math.atan2(cog_y, cog_x)),
            length, width, math.degrees(psi),
        ]
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _along_axes(x, y, moments):
    """Pixel positions along and across the image axis; unchanged for images without an axis."""
    dx, dy = x - moments[3], y - moments[4]
    psi = math.radians(moments[9])
    if math.isnan(psi):
        return dx, dy
    cos, sin = math.cos(psi), math.sin(psi)
    return dx * cos + dy * sin, dy * cos - dx * sin


@njit(cache=True, nogil=True)
def _leakage(charge, border1, border2, size):
    n = len(charge)
    return np.array([border1.sum() / n, border2.sum() / n, charge[border1].sum() / size, charge[border2].sum() / size])


@njit(cache=True, nogil=True)
def _concentration(charge, longitudinal, transverse, width, moments):
    size, length, image_width = moments[0], moments[7], moments[8]
    near = longitudinal**2 + transverse**2 < width**2
    core = 0.0
    if image_width > 0:
        core = charge[(longitudinal / length) ** 2 + (transverse / image_width) ** 2 <= 1.0].sum() / size
    return np.array([charge[near].sum() / size, core, charge.max() / size])


@njit(cache=True, nogil=True)
def _n_islands(pixels, mask, neighbors, seen):
    """Number of connected groups of pixels in the mask."""
    seen[:] = False
    stack = np.empty(len(pixels), np.int64)
    n_islands = 0
    for start in pixels:
        if seen[start]:
            continue
        n_islands += 1
        seen[start] = True
        stack[0], height = start, 1
        while height > 0:
            height -= 1
            for other in neighbors[stack[height]]:
                if other >= 0 and mask[other] and not seen[other]:
                    seen[other] = True
                    stack[height] = other
                    height += 1
    return n_islands


@njit(cache=True, nogil=True)
def _timing(position, time):
    """Slope [ns/deg], intercept [ns] and rms deviation [ns] of arrival times along the axis, robust to outliers.

    Least trimmed squares [2]_: from several starts, fit the 85 % of pixels that are nearest to the line, again and
    again; the smallest sum of squares wins. Starts are lines through a pixel of the first and one of the last third
    along the axis: which ones does not depend on how the camera counts its pixels.
    """
    fit = np.full(3, np.nan)
    use = np.isfinite(position) & np.isfinite(time)
    position, time = position[use], time[use]
    order = np.argsort(time, kind="mergesort")
    order = order[np.argsort(position[order], kind="mergesort")]
    position, time = position[order], time[order]
    n = len(time)
    if n < 2:
        return fit
    n_kept = int(_LTS_SHARE * n)
    best = np.inf
    state = np.uint64(n)
    for start in range(_LTS_STARTS + 1):
        if start == 0:
            first, last_but = 0, 0
            sample = np.arange(n)  # a plain fit: nearly always the best start
        else:
            if start % 2:
                state, first = _next(state, max(n // 3, 1))
                state, last_but = _next(state, max(n // 3, 1))
            else:  # the same seen from the other end: where the axis begins is arbitrary
                first, last_but = last_but, first
            sample = np.array([first, n - 1 - last_but])
        slope, intercept, error = _line(position, time, sample)
        if math.isnan(error):
            continue
        for _ in range(_LTS_STEPS):
            residual = (time - slope * position - intercept) ** 2
            sample = np.argsort(residual)[:n_kept]
            last = error
            slope, intercept, error = _line(position, time, sample)
            if not abs(last - error) >= _LTS_EPS:
                break
        if error < best:
            best = error
            fit[0], fit[1] = slope, intercept
    if best < np.inf:
        fit[2] = math.sqrt(((time - fit[0] * position - fit[1]) ** 2).mean())
    return fit


@njit(cache=True, nogil=True)
def _line(position, time, sample):
    """Least-squares line through some pixels, and the sum of squares; NaN where the position does not vary."""
    x, t = position[sample], time[sample]
    n = len(x)
    sum_x, sum_t = x.sum(), t.sum()
    determinant = n * (x * x).sum() - sum_x * sum_x
    if n < 2 or determinant < 4.5e-16:  # ctapipe's limit: twice the float64 epsilon
        return np.nan, np.nan, np.nan
    slope = (n * (x * t).sum() - sum_x * sum_t) / determinant
    intercept = (sum_t - slope * sum_x) / n
    return slope, intercept, ((t - slope * x - intercept) ** 2).sum()


@njit(cache=True, nogil=True)
def _next(state, n):
    """A number below n from Knuth's 64-bit linear congruence: fixed, whatever was computed before."""
    state = np.uint64(6364136223846793005) * state + np.uint64(1442695040888963407)
    return state, np.int64((state >> np.uint64(33)) % np.uint64(n))
