"""Places in the sky and in the field of view: as ctapipe and astropy have them."""

import astropy.units as u
import numpy as np
import pytest

from pipeline.directions import (
    altaz_of_fov,
    altaz_of_vectors,
    fov_of_altaz,
    geodetic_of_itrs,
    offset_deg,
    on_ground,
    pointing_axes,
    radec_of_altaz,
    unit_vectors,
)

RNG = np.random.default_rng(3)
N = 200
LON, LAT = RNG.uniform(-5, 5, (2, N))
ALT0, AZ0 = RNG.uniform(20, 89, N), RNG.uniform(0, 360, N)


def test_places_are_those_of_ctapipe():
    import astropy.units as u
    from astropy.coordinates import AltAz, SkyCoord
    from ctapipe.coordinates import TelescopeFrame

    frame = TelescopeFrame(telescope_pointing=AltAz(alt=ALT0 * u.deg, az=AZ0 * u.deg))
    sky = SkyCoord(LON * u.deg, LAT * u.deg, frame=frame).transform_to(AltAz())
    alt, az = altaz_of_fov(LON, LAT, ALT0, AZ0)
    np.testing.assert_allclose(alt, sky.alt.deg, atol=1e-9)
    np.testing.assert_allclose((az - sky.az.deg + 180) % 360 - 180, 0, atol=1e-9)


def test_the_way_back_ends_where_it_began():
    lon, lat = fov_of_altaz(*altaz_of_fov(LON, LAT, ALT0, AZ0), ALT0, AZ0)
    np.testing.assert_allclose(lon, LON, atol=1e-10)
    np.testing.assert_allclose(lat, LAT, atol=1e-10)


def test_offsets_are_the_same_in_the_sky_and_in_the_field_of_view():
    in_the_sky = offset_deg(*altaz_of_fov(LON, LAT, ALT0, AZ0), ALT0, AZ0)
    np.testing.assert_allclose(offset_deg(LAT, LON, 0.0, 0.0), in_the_sky, atol=1e-9)


def test_north_is_no_edge():
    alt, az = altaz_of_fov(np.array([-1.0, 1.0]), np.zeros(2), np.zeros(2), np.zeros(2))
    np.testing.assert_allclose(alt, 0, atol=1e-12)
    np.testing.assert_allclose(az, [359, 1], atol=1e-12)


def test_an_unknown_pointing_gives_unknown_directions():
    alt, az = altaz_of_fov(np.zeros(1), np.zeros(1), np.full(1, np.nan), np.full(1, np.nan))
    assert np.isnan([alt, az]).all()


def test_vectors_come_back_as_angles():
    alt, az = altaz_of_vectors(7 * unit_vectors(ALT0, AZ0))
    np.testing.assert_allclose(alt, ALT0, atol=1e-12)
    np.testing.assert_allclose(az, AZ0, atol=1e-12)


def test_offset_of_right_angles():
    assert offset_deg(np.array([0.0, 90.0]), np.array([90.0, 0.0]), 0.0, 0.0) == pytest.approx([90, 90])


def test_axes_of_the_pointing_are_those_of_the_field_of_view():
    lon, lat, towards = pointing_axes(ALT0, AZ0)
    for axis, fov in ((lon, (1e-6, 0.0)), (lat, (0.0, 1e-6))):
        alt, az = altaz_of_fov(np.full(N, fov[0]), np.full(N, fov[1]), ALT0, AZ0)
        _, _, moved = pointing_axes(alt, az)
        np.testing.assert_allclose((moved - towards) / np.radians(1e-6), axis, atol=1e-6)


def test_lines_along_the_pointing_meet_the_ground():
    _, _, towards = pointing_axes(ALT0, AZ0)
    place = RNG.uniform(-300, 300, (N, 2))
    above = np.column_stack([place, np.zeros(N)]) + RNG.uniform(-500, 500, (N, 1)) * towards
    np.testing.assert_allclose(on_ground(above, ALT0, AZ0), place, atol=1e-6)


def test_right_ascension_and_declination_are_those_of_astropy():
    from astropy.coordinates import AltAz, EarthLocation, SkyCoord
    from astropy.time import Time
    from astropy.utils.iers import conf

    rng = np.random.default_rng(5)
    alt, az = rng.uniform(20, 88, 50), rng.uniform(0, 360, 50)
    time = Time(["2018-01-01T03:00:00", "2020-02-18T23:10:00", "2024-07-01T12:00:00"], scale="tai")
    site = EarthLocation.from_geodetic(-17.89, 28.76, 2200)
    lon, lat = geodetic_of_itrs(*site.itrs.cartesian.xyz.to_value("m"))
    np.testing.assert_allclose([lon, lat], [-17.89, 28.76], atol=1e-9)
    with conf.set_temp("auto_download", False):
        for moment in time:
            expected = SkyCoord(AltAz(alt=alt * u.deg, az=az * u.deg, obstime=moment, location=site)).icrs
            time_s = np.full(50, (moment.mjd - 40587.0) * 86400)
            ra, dec = radec_of_altaz(alt, az, time_s, lon, lat)
            assert SkyCoord(ra * u.deg, dec * u.deg).separation(expected).max().deg < 0.004
    unknown = np.where(np.arange(50) == 7, np.nan, time_s)
    np.testing.assert_array_equal(radec_of_altaz(alt, az, unknown, lon, lat)[0], np.where(unknown > 0, ra, np.nan))
