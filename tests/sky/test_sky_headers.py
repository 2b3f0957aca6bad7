import numpy as np
import pytest
from astropy.io import fits

from pipeline.sky import headers
from pipeline.sky.headers import Cards
from pipeline.sky.remarks import Remarks


def header(**cards):
    made = fits.Header()
    for key, value in cards.items():
        made[key] = value
    return made


def found(function, *made):
    """What a look-up finds, and its remarks."""
    remarks = Remarks()
    result = function(Cards(*made), remarks)
    return (None if result is None else result.value), remarks


@pytest.mark.parametrize(
    ("cards", "gain"),
    [
        ({"GAIN": 1.9}, 1.9),
        ({"GAIN": "1.6"}, 1.6),
        ({"GAIN": " 1.6D0".replace("D", "E")}, 1.6),
        ({"EGAIN": 0.25, "GAIN": 120}, 0.25),
        ({"ATODGAIN": 0.0, "CCDGAIN": 4}, 4.0),
        ({"GAINA": 4.0, "GAINB": 4.2}, 4.1),
        ({"HIERARCH ESO DET OUT1 CONAD": 2.2, "HIERARCH ESO DET OUT1 GAIN": 0.45}, 2.2),
        ({"GAIN": 0.97, "INSTRUME": "ZWO ASI1600MM Pro"}, 0.97),
        ({"HIERARCH ESO DET GAIN": 1}, None),
        ({"GAIN": 300}, None),
        ({"GAIN": 0}, None),
        ({"GAIN": -2.0}, None),
        ({"GAIN": 26, "INSTRUME": "ZWO ASI1600MM Pro"}, None),
        ({"GAIN": "26", "CAMERA": "QHYCCD-Cameras-Capture"}, None),
        ({"GAIN": 12, "EGAIN": 0.0}, None),
        ({"GAIN": 8, "GAINRAW": 8}, None),
        ({"GAIN": "high"}, None),
        ({"GAIN": "1,95"}, None),
        ({"GAIN": "nan"}, None),
        ({"GAIN": ""}, None),
        ({"GAIN": True}, None),
        ({"GAIN": None}, None),
        ({}, None),
    ],
)
def test_gain_under_its_names(cards, gain):
    value, remarks = found(headers.find_gain, header(**cards))
    assert value == (pytest.approx(gain) if gain else None)
    said = any(card in cards and cards[card] not in ("", None) for card in ("GAIN", "EGAIN"))
    assert bool(remarks.warnings) == (gain is None and said)


@pytest.mark.parametrize(
    ("cards", "text"),
    [
        ({"GAIN": 300}, "GAIN = 300 is not taken as the gain (accepted: 0.01 to 50)"),
        ({"GAIN": "1,95"}, "GAIN = 1,95 is not a number, and is not taken as the gain"),
        ({"GAIN": 26, "INSTRUME": "ASI 2600"}, "GAIN = 26 is a setting of the camera, not a gain"),
    ],
)
def test_a_value_that_cannot_be_a_gain_is_named(cards, text):
    assert found(headers.find_gain, header(**cards))[1].warnings == [text]
    # With another gain, nothing is amiss.
    value, remarks = found(headers.find_gain, header(**cards, DETGAIN=2.0))
    assert (value, remarks.warnings, remarks.notes) == (2.0, [], [text])


@pytest.mark.parametrize(
    ("value", "comment", "gain"),
    [
        (0.5, "[ADU/electron] amplifier gain", 2.0),
        (0.5, "[ADU/e-]", 2.0),
        (4, "adu per e-", 0.25),
        (0.5, "gain in DN / photoelectron", 2.0),
        (0.5, "counts electron**-1", 2.0),
        (0.5, "[ADU/e-] the inverse of e-/ADU", 2.0),
        (0.5, "[electron/ADU]", 0.5),
        (0.5, "gain (e-/ADU)", 0.5),
        (0.5, "electrons per ADU", 0.5),
        (0.5, "e- ADU-1", 0.5),
        (0.5, "1 / (ADU/e-)", 0.5),
        (0.5, "(ADU/e-)**-1", 0.5),
        (0.5, "[ADU/e-]^-1", 0.5),
        (0.5, "ADU/e- or e-/ADU", 0.5),
        (0.5, "ADU/exposure", 0.5),
        (0.5, "ADU/e-/s", 0.5),
        (0.5, "Conversion from electrons to ADU", 0.5),
        (0.5, "Conversion gain (e-", 0.5),
        (0.5, "inverse gain", 0.5),
        (0.5, "camera gain setting", 0.5),
    ],
)
def test_unit_of_a_gain(value, comment, gain):
    for cards in ({"GAIN": (value, comment)}, {"GAINA": (value, comment), "GAINB": (value, comment)}):
        found_gain, remarks = found(headers.find_gain, header(**cards))
        assert found_gain == pytest.approx(gain)
        assert any("is in adu/electron" in text for text in remarks.notes) == (gain != value)
        assert remarks.warnings == []


def test_a_gain_that_is_rejected_is_named_with_its_inverse():
    value, remarks = found(headers.find_gain, header(GAIN=(1000, "[ADU/e-]")))
    assert value is None
    assert remarks.warnings == ["GAIN (inverse) = 0.001 is not taken as the gain (accepted: 0.01 to 50)"]
    assert found(headers.find_gain, header(GAIN=(0, "[ADU/e-]")))[0] is None


@pytest.mark.parametrize(
    ("cards", "gain", "warned"),
    [
        ({"GAINA": 1.0, "GAINB": 2.0}, 1.5, True),
        ({"GAIN1": 1.0, "GAIN2": (0.5, "[adu/electron]")}, 1.5, True),
        ({"GAINA": 3.91, "GAINB": 4.13}, 4.02, False),  # DECam
        ({"ATODGNA": 1.0, "ATODGNB": 0.97, "ATODGNC": 1.01, "ATODGND": 1.02}, 1.0, False),  # ACS
        ({"GAINA": 2.0, "GAINB": 300.0}, 2.0, False),
        ({"GAIN": 1.9, "GAINA": 1.0, "GAINB": 2.0}, 1.9, False),
    ],
)
def test_amplifiers_of_different_gains(cards, gain, warned):
    for made in ((header(**cards),), (header(), header(**cards))):
        value, remarks = found(headers.find_gain, *made)
        assert value == pytest.approx(gain)
        assert len(remarks.warnings) == warned
    if "GAINA" in cards and warned:
        assert "(GAINA = 1, GAINB = 2)" in remarks.warnings[0]
        assert "ingest.sky.gain_e_per_adu" in remarks.warnings[0]


@pytest.mark.parametrize(
    ("cards", "gain", "read_noise"),
    [
        ({"RDNOISE": (3.0, "[ADU] read noise"), "GAIN": 2.0}, None, 6.0),
        ({"RDNOISE": (3.0, "read noise in DN"), "GAIN": (0.5, "[adu/electron]")}, None, 6.0),
        ({"RDNOISE": (3.0, "[ADU]"), "GAIN": 2.0}, 4.0, 12.0),
        ({"RDNOISEA": (2.0, "(counts)"), "RDNOISEB": (4.0, "(counts)"), "GAIN": 2.0}, None, 6.0),
        ({"RDNOISE": (3.0, "[ADU]")}, None, None),
        ({"RDNOISE": (3.0, "[ADU]"), "RON": (5.0, "[e-]")}, None, 5.0),
        ({"RDNOISE": (3.0, "[electron]"), "GAIN": 2.0}, None, 3.0),
        ({"RDNOISE": (3.0, "read noise [e-], gain in e-/ADU"), "GAIN": 2.0}, None, 3.0),
        ({"RDNOISE": (3.0, "number of counts"), "GAIN": 2.0}, None, 3.0),
    ],
)
def test_unit_of_a_read_noise(cards, gain, read_noise):
    remarks = Remarks()
    value = headers.find_read_noise(Cards(header(**cards)), remarks, gain)
    assert (None if value is None else value.value) == (pytest.approx(read_noise) if read_noise else None)
    assert any("is in adu" in text for text in remarks.notes) == (read_noise != 3)


@pytest.mark.parametrize("card", ["RDNOISE", "READNOIS", "RON", "READNSEA", "RDNOIS1", "RDNOISEB"])
def test_read_noise_under_its_names(card):
    assert found(headers.find_read_noise, header(**{card: "6.5"}))[0] == pytest.approx(6.5)


@pytest.mark.parametrize(
    ("cards", "seconds"),
    [({"EXPTIME": 0}, 0.0), ({"EXPTIME": "53.9"}, 53.9), ({"EXPOSURE": 3}, 3.0), ({"EXPTIME": -1, "EXPOSURE": 3}, 3.0)],
)
def test_exposure(cards, seconds):
    value, _ = found(headers.find_exposure, header(), header(**cards))
    assert value == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["300,0", -1.0, "300 s", True])
def test_exposure_that_cannot_be_read(value):
    seconds, remarks = found(headers.find_exposure, header(EXPTIME=value))
    assert seconds is None
    assert len(remarks.warnings) == 1
    assert "is not taken as the exposure time" in remarks.warnings[0]


# ---- where a card stands ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("card", ["GAIN", "RDNOISE", "EXPTIME"])
@pytest.mark.parametrize("inherit", [None, True, False])
def test_camera_cards_are_also_those_of_the_primary_header(card, inherit):
    find = {"GAIN": headers.find_gain, "RDNOISE": headers.find_read_noise, "EXPTIME": headers.find_exposure}[card]
    own = header() if inherit is None else header(INHERIT=inherit)
    assert found(find, own, header(**{card: 3.0}))[0] == pytest.approx(3.0)
    own[card] = 2.0
    assert found(find, own, header(**{card: 3.0}))[0] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("inherit", "naxis", "inherits"),
    [(None, 0, True), (None, 2, False), (True, 2, True), ("T", 2, True), (False, 0, False), ("F", 0, False)],
)
def test_cards_of_the_pixels_follow_inherit(inherit, naxis, inherits):
    own = header() if inherit is None else header(INHERIT=inherit)
    primary = header(NAXIS=naxis, BUNIT="electron", SATURATE=6e4, BIASLVL=99.0, ZEROCOR="done", TRIMSEC="[2:9,1:8]")
    cards, remarks = Cards(own, primary), Remarks()
    assert headers.unit_of(cards) == ("electron" if inherits else "adu")
    assert (headers.find_saturation(cards, remarks) is not None) == inherits
    assert (headers.find_bias_level(cards, remarks) is not None) == inherits
    assert (headers.bias_subtracted(cards, remarks) is not None) == inherits
    assert (headers.find_section(cards, ("TRIMSEC",), (10, 10), remarks) is not None) == inherits


def test_the_own_header_comes_first_in_each_kind():
    amplifiers = header(GAINA=4.0, GAINB=4.2)
    assert found(headers.find_gain, amplifiers, header(GAIN=3.0))[0] == pytest.approx(4.1)


# ---- cards that do not follow the standard ---------------------------------------------------------------------------
@pytest.fixture
def raw_cards(tmp_path):
    """Look-ups in a file whose header has cards as they are given, of 80 characters."""

    def read(*images):
        path = tmp_path / "cards.fits"
        fits.PrimaryHDU(np.ones((4, 4), np.float32)).writeto(path, overwrite=True)
        content = bytearray(path.read_bytes())
        end = content.index(b"END" + b" " * 77)
        block = b"".join(image.encode("latin-1").ljust(80) for image in (*images, "END"))
        content[end : end + len(block)] = block
        path.write_bytes(bytes(content))
        with fits.open(path) as hdus:
            return Cards.of(hdus, 0)

    return read


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("GAIN    =                  NaN", "GAIN = NaN is not a number, and is not taken as the gain"),
        ("GAIN    = 1,95", "GAIN = 1,95 is not a number, and is not taken as the gain"),
        ("GAIN    = 1.95 e/ADU", "GAIN = 1.95 e is not a number, and is not taken as the gain"),
        ("GAIN    = n/a", "GAIN = n is not a number, and is not taken as the gain"),
        ("GAIN    = 'NaN     '", "GAIN = NaN is not a number, and is not taken as the gain"),
        ("GAIN    = 'open", "GAIN = 'open is not a number, and is not taken as the gain"),
        ("GAIN    = (1.0, 2.0)", "GAIN = (1+2j) is not a number, and is not taken as the gain"),
        ("HIERARCH ESO DET OUT1 CONAD = 1,9", "ESO DET OUT1 CONAD = 1,9 is not a number, and is not taken as the gain"),
        ("GAIN    =", None),
        ("GAIN    = ''", None),
    ],
)
def test_a_card_that_cannot_be_read_is_reported(raw_cards, image, text):
    remarks = Remarks()
    assert headers.find_gain(raw_cards(image), remarks) is None
    assert remarks.warnings == ([text] if text else [])


@pytest.mark.filterwarnings("ignore")
def test_text_without_quotes_is_read_as_text(raw_cards):
    cards = raw_cards("BUNIT   = electron / unit", "TRIMSEC = [1:3,1:4]", "OBJECT  = NGC 7000", "GAIN    = 1.95D0")
    remarks = Remarks()
    assert headers.unit_of(cards) == "electron"
    assert str(headers.find_section(cards, ("TRIMSEC",), (4, 4), remarks)) == "[1:3,1:4]"
    assert cards.text("OBJECT") == "NGC 7000"
    assert headers.find_gain(cards, remarks).value == pytest.approx(1.95)
    assert remarks.warnings == []


# ---- values, not presence --------------------------------------------------------------------------------------------
def test_bias_level_and_pedestal():
    assert found(headers.find_bias_level, header(BIASLVL=1000.0))[0] == pytest.approx(1000)
    assert found(headers.find_bias_level, header(PEDESTAL=-500))[0] == pytest.approx(500)
    assert found(headers.find_bias_level, header(PEDESTAL=100))[0] == pytest.approx(100)
    by_maxim = header(PEDESTAL=100, SWCREATE="MaxIm DL Version 6.18")
    assert found(headers.find_bias_level, by_maxim)[0] == pytest.approx(-100)
    by_maxim["PEDESTAL"] = -100
    assert found(headers.find_bias_level, by_maxim)[0] == pytest.approx(100)
    assert found(headers.find_bias_level, header(PEDESTAL=0))[0] is None


@pytest.mark.parametrize(
    ("card", "value", "done"),
    [
        ("OVERSCAN", "Apr 13 23:06 Overscan is [1191:1200,1:9232], function=median", True),  # KMTNet, IRAF
        ("ZEROCOR", "Apr 13 23:06 Zero is zero[T01]", True),
        ("DESBIAS", "Sun Aug 11 15:46:23 2019", True),  # DECam
        ("SUBBIAS", "ccd=<CCDData>, master=<CCDData>", True),  # ccdproc
        ("BIASCORR", "COMPLETE", True),  # HST
        ("ZEROCOR", "done", True),
        ("ZEROCOR", True, True),
        ("BIASCOR", 1, True),
        ("BIASCOR", "2024-01-02T03:04:05", True),
        ("BIASCORR", "PERFORM", False),
        ("BIASCORR", "OMIT", False),
        ("BIASCORR", "SKIPPED", False),
        ("ZEROCOR", "not done", False),
        ("ZEROCOR", "F", False),
        ("ZEROCOR", False, False),
        ("ZEROCOR", 0, False),
        ("ZEROCOR", "N/A", False),
        ("ZEROCOR", "zero.fits", False),
        ("OVERSCAN", "[6389 6422 1 9600]", False),
        ("OVERSCAN", "[10:32,10:12]", False),
        ("OVERSCAN", 32, False),
        ("OVERSCAN", 1, False),
        ("OVERSCAN", 0, False),
        ("OVERSCAN", True, False),
        ("OVERSCAN", False, False),
        ("OVERSCAN", 1000.0, False),
        ("OVERSCAN", "done", True),
    ],
)
def test_what_says_that_the_bias_is_subtracted(card, value, done):
    remarks = Remarks()
    assert headers.bias_subtracted(Cards(header(**{card: value})), remarks) == (card if done else None)
    assert bool(remarks.notes) != done


def test_section_must_lie_in_the_frame():
    trimmed, remarks = Cards(header(TRIMSEC="[  17: 528,   1: 520]")), Remarks()
    section = headers.find_section(trimmed, ("TRIMSEC",), (520, 536), remarks)
    assert section.slices == (slice(0, 520), slice(16, 528))
    assert str(section) == "[17:528,1:520]"
    assert headers.find_section(trimmed, ("TRIMSEC",), (520, 512), remarks) is None
    assert remarks.notes == [
        "TRIMSEC = [  17: 528,   1: 520] is no section of this frame of 512 x 520 px, and is not used"
    ]
    assert headers.find_section(Cards(header(TRIMSEC="[1:4096, :]")), ("TRIMSEC",), (100, 100), remarks) is None
    assert headers.find_section(Cards(header(TRIMSEC="[9:1,0:5]")), ("TRIMSEC",), (100, 100), remarks) is None


@pytest.mark.parametrize("written", ["[9:2,1:5]", "[2:9,5:1]", "[9:2,5:1]"])
def test_a_section_of_a_flipped_axis_has_the_same_pixels(written):
    section = headers.find_section(Cards(header(DATASEC=written)), ("DATASEC",), (100, 100), Remarks())
    assert str(section) == "[2:9,1:5]"


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("ADU", "adu"), ("", "adu"), ("COUNTS", "adu"), ("ELECTRONS", "electron"), ("e-", "electron"), ("Jy", "Jy")],
)
def test_units(unit, expected):
    assert headers.unit_of(Cards(header(BUNIT=unit))) == expected


@pytest.mark.parametrize(
    ("comment", "electrons"),
    [
        ("[e-] full well", True),
        ("saturation (electrons)", True),
        ("ADU", False),
        ("", False),
        ("in electron/adu", False),
        ("full well (electrons per pixel)", True),
        ("[e-] 60000 ADU", True),
        ("e- or ADU", False),
    ],
)
def test_unit_in_the_comment(comment, electrons):
    assert headers.in_electrons(comment) == electrons


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("ELECTRONS", "electron"),
        ("DN/s", "adu / s"),
        ("e-/s", "electron / s"),
        ("(e- / s)2", "electron2 / s2"),
        ("1 / (MJy2 / sr2)", "sr2 / MJy2"),
        ("(counts)**(-2)", "1 / adu2"),
    ],
)
def test_units_that_astropy_reads(text, unit):
    assert headers.parsed_unit(text).to_string() == unit


@pytest.mark.parametrize("text", ["", "flux", "mag(AB)", "2 ("])
def test_units_that_are_none(text):
    assert headers.parsed_unit(text) is None
