import pytest
from astropy.io import fits

from pipeline.sky import headers


def header(**cards):
    made = fits.Header()
    for key, value in cards.items():
        made[key] = value
    return made


@pytest.mark.parametrize(
    ("cards", "gain"),
    [
        ({"GAIN": 1.9}, 1.9),
        ({"GAIN": "1.6"}, 1.6),
        ({"EGAIN": 0.25, "GAIN": 120}, 0.25),
        ({"ATODGAIN": 0.0, "CCDGAIN": 4}, 4.0),
        ({"GAINA": 4.0, "GAINB": 4.2}, 4.1),
        ({"HIERARCH ESO DET OUT1 CONAD": 2.2, "HIERARCH ESO DET OUT1 GAIN": 0.45}, 2.2),
        ({"HIERARCH ESO DET GAIN": 1}, None),
        ({"GAIN": 300}, None),
        ({"GAIN": "high"}, None),
        ({"GAIN": True}, None),
        ({}, None),
    ],
)
def test_gain_under_its_names(cards, gain):
    found = headers.find_gain([header(**cards)], [])
    assert (found.value if found else None) == (pytest.approx(gain) if gain else None)


def test_a_value_that_cannot_be_a_gain_is_named():
    notes = []
    assert headers.find_gain([header(GAIN=300)], notes) is None
    assert notes == ["GAIN = 300 is not taken as the gain (accepted: 0.01 to 50)"]


@pytest.mark.parametrize("card", ["RDNOISE", "READNOIS", "RON", "READNSEA", "RDNOIS1", "RDNOISEB"])
def test_read_noise_under_its_names(card):
    assert headers.find_read_noise([header(**{card: "6.5"})], []).value == pytest.approx(6.5)


def test_science_header_comes_before_the_primary():
    assert headers.find_gain([header(GAIN=2.0), header(GAIN=3.0)], []).value == pytest.approx(2.0)
    assert headers.find_gain([header(), header(GAIN=3.0)], []).value == pytest.approx(3.0)


def test_bias_level_and_pedestal():
    assert headers.find_bias_level([header(BIASLVL=1000.0)]).value == pytest.approx(1000)
    assert headers.find_bias_level([header(PEDESTAL=-500)]).value == pytest.approx(500)
    assert headers.find_bias_level([header(PEDESTAL=0)]) is None


def test_section_must_lie_in_the_frame():
    trimmed = header(TRIMSEC="[  17: 528,   1: 520]")
    section = headers.find_section(trimmed, ("TRIMSEC",), (520, 536))
    assert section.slices == (slice(0, 520), slice(16, 528))
    assert str(section) == "[17:528,1:520]"
    assert headers.find_section(trimmed, ("TRIMSEC",), (520, 512)) is None
    assert headers.find_section(header(TRIMSEC="[1:4096, :]"), ("TRIMSEC",), (100, 100)) is None


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("ADU", "adu"), ("", "adu"), ("COUNTS", "adu"), ("ELECTRONS", "electron"), ("e-", "electron"), ("Jy", "Jy")],
)
def test_units(unit, expected):
    assert headers.unit_of(header(BUNIT=unit)) == expected
