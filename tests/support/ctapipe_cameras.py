"""Cameras in ctapipe's classes, to compare what ctapipe makes of them."""

import math

import numpy as np


def to_ctapipe(camera):
    """A telescope as ctapipe's ``TelescopeDescription`` (camera frame, equivalent focal length)."""
    import astropy.units as u
    from ctapipe.coordinates import CameraFrame
    from ctapipe.instrument import (
        CameraDescription,
        CameraGeometry,
        CameraReadout,
        OpticsDescription,
        TelescopeDescription,
    )
    from ctapipe.instrument.optics import ReflectorShape, SizeType

    geometry = CameraGeometry(
        name=camera.name,
        pix_id=np.arange(camera.n_pixels),
        pix_x=camera.pix_x_m * u.m,
        pix_y=camera.pix_y_m * u.m,
        pix_area=camera.pix_area_m2 * u.m**2,
        pix_type="hexagon" if camera.hexagonal else "square",
        pix_rotation=camera.pix_rotation_deg * u.deg,
        cam_rotation=camera.cam_rotation_deg * u.deg,
        frame=CameraFrame(focal_length=camera.focal_length_m * u.m),
    )
    readout = CameraReadout(
        name=camera.name,
        sampling_rate=u.Quantity(camera.sampling_rate_ghz, u.GHz),
        reference_pulse_shape=camera.reference_pulse,
        reference_pulse_sample_width=u.Quantity(camera.reference_pulse_step_ns, u.ns),
        n_channels=len(np.atleast_2d(camera.reference_pulse)),
        n_pixels=camera.n_pixels,
        n_samples=camera.n_samples,
    )
    effective_m = camera.effective_focal_length_m
    optics = OpticsDescription(
        name=camera.optics_name,
        size_type=SizeType(camera.size_type),
        reflector_shape=ReflectorShape[camera.reflector_shape],
        n_mirrors=camera.n_mirrors,
        equivalent_focal_length=camera.focal_length_m * u.m,
        effective_focal_length=(camera.focal_length_m if math.isnan(effective_m) else effective_m) * u.m,
        mirror_area=camera.mirror_area_m2 * u.m**2,
        n_mirror_tiles=camera.n_mirror_tiles,
    )
    description = CameraDescription(name=camera.name, geometry=geometry, readout=readout)
    return TelescopeDescription(name=camera.optics_name, optics=optics, camera=description)
