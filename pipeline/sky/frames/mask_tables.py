"""What the bits of known cameras' masks mean: one table for each convention, and a glossary of names.

A file that names its own bits in its header is read by the glossary, whatever its camera. A table is for files that
do not. Only what makes the light of a pixel wrong or missing has one of our bits. Everything else is NOT_BAD: what is
seen there (detected sources, halos, spikes of stars), what has been corrected (jumps of a ramp, interpolated pixels;
the cause has its own bit), and doubts about the calibration.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.sky.dq import DQ

if TYPE_CHECKING:
    from astropy.io import fits

NOT_BAD = DQ(0)


@dataclass(frozen=True)
class Flag:
    """One bit of a camera's mask, or one value of a mask of codes.

    Attributes
    ----------
    value : int
        1, 2, 4 ...; of a mask of codes any number.
    name : str
        As the camera's documents call it.
    meaning : DQ, optional
        Our bits; NOT_BAD for none; None where it is unknown.
    """

    value: int
    name: str
    meaning: DQ | None


@dataclass(frozen=True)
class MaskTable:
    """The flags of one convention.

    Attributes
    ----------
    codes : bool
        A pixel has one number of a list, and not a sum of bits.
    """

    name: str
    flags: tuple[Flag, ...]
    codes: bool = False


def _bits(name: str, **flags: tuple[int, DQ]) -> MaskTable:
    return MaskTable(name, tuple(Flag(1 << bit, text, meaning) for text, (bit, meaning) in flags.items()))


_TABLES = (
    # JWST: stdatamodels, dqflags.pixel [https://jwst-pipeline.readthedocs.io, "Data quality flags"]. DO_NOT_USE is the
    # pipeline's verdict; the flags of suspicion beside it do not make a pixel bad.
    _bits(
        "jwst",
        DO_NOT_USE=(0, DQ.BAD), SATURATED=(1, DQ.SATURATED), JUMP_DET=(2, NOT_BAD), DROPOUT=(3, DQ.MISSING),
        OUTLIER=(4, DQ.BAD), PERSISTENCE=(5, DQ.GHOST), AD_FLOOR=(6, DQ.BAD), CHARGELOSS=(7, NOT_BAD),
        UNRELIABLE_ERROR=(8, NOT_BAD), NON_SCIENCE=(9, NOT_BAD), DEAD=(10, DQ.BAD), HOT=(11, DQ.HOT),
        WARM=(12, NOT_BAD), LOW_QE=(13, NOT_BAD), RC=(14, NOT_BAD), TELEGRAPH=(15, NOT_BAD), NONLINEAR=(16, NOT_BAD),
        BAD_REF_PIXEL=(17, NOT_BAD), NO_FLAT_FIELD=(18, NOT_BAD), NO_GAIN_VALUE=(19, NOT_BAD),
        NO_LIN_CORR=(20, NOT_BAD), NO_SAT_CHECK=(21, NOT_BAD), UNRELIABLE_BIAS=(22, NOT_BAD),
        UNRELIABLE_DARK=(23, NOT_BAD), UNRELIABLE_SLOPE=(24, NOT_BAD), UNRELIABLE_FLAT=(25, NOT_BAD),
        OPEN=(26, DQ.BAD), ADJ_OPEN=(27, NOT_BAD), FLUX_ESTIMATED=(28, NOT_BAD), MSA_FAILED_OPEN=(29, NOT_BAD),
        OTHER_BAD_PIXEL=(30, DQ.BAD), REFERENCE_PIXEL=(31, DQ.MISSING),
    ),
    # HST ACS [ACS Data Handbook, table 3.4; ISR ACS 2017-05 for 32].
    _bits(
        "hst_acs",
        SOFTERR=(0, DQ.BAD), DATALOST=(1, DQ.MISSING), DETECTORPROB=(2, DQ.BAD), DATAMASKED=(3, DQ.MISSING),
        HOTPIX=(4, DQ.HOT), UNSTABLE=(5, DQ.HOT), WARMPIX=(6, NOT_BAD), BADBIAS=(7, DQ.BAD),
        SATPIXEL=(8, DQ.SATURATED), CALIBDEFECT=(9, NOT_BAD), TRAP=(10, DQ.BAD), ATODSAT=(11, DQ.SATURATED),
        CRDRIZ=(12, DQ.COSMIC_RAY), CRREJ=(13, DQ.COSMIC_RAY), USER=(14, DQ.BAD),
    ),
    # HST WFC3/UVIS [WFC3 Data Handbook, table 3.3].
    _bits(
        "hst_wfc3_uvis",
        SOFTERR=(0, DQ.BAD), DATALOST=(1, DQ.MISSING), DETECTORPROB=(2, DQ.BAD), DATAMASKED=(3, DQ.MISSING),
        HOTPIX=(4, DQ.HOT), CTETAIL=(5, NOT_BAD), WARMPIX=(6, NOT_BAD), BADBIAS=(7, DQ.BAD),
        SATPIXEL=(8, DQ.SATURATED), CALIBDEFECT=(9, NOT_BAD), TRAP=(10, DQ.BAD), ATODSAT=(11, DQ.SATURATED),
        CRDRIZ=(12, DQ.COSMIC_RAY), CRREJ=(13, DQ.COSMIC_RAY), GHOST=(14, DQ.GHOST),
    ),
    # HST WFC3/IR [WFC3 Data Handbook, table 3.3]: jumps of the ramp (1024, 8192) are corrected, a signal in the zero
    # read (2048) is a bright star, blobs (512) are divided out.
    _bits(
        "hst_wfc3_ir",
        SOFTERR=(0, DQ.BAD), DATALOST=(1, DQ.MISSING), DETECTORPROB=(2, DQ.BAD), BADZERO=(3, DQ.BAD),
        HOTPIX=(4, DQ.HOT), UNSTABLE=(5, DQ.BAD), WARMPIX=(6, NOT_BAD), BADREF=(7, DQ.BAD),
        SATPIXEL=(8, DQ.SATURATED), BLOB=(9, NOT_BAD), SPIKE=(10, NOT_BAD), ZEROSIG=(11, NOT_BAD),
        CRDRIZ=(12, DQ.COSMIC_RAY), HIGH_CURVATURE=(13, NOT_BAD), GHOST=(14, DQ.GHOST),
    ),
    # HST STIS [STIS Data Handbook, table 2.8].
    _bits(
        "hst_stis",
        SOFTERR=(0, DQ.BAD), DATALOST=(1, DQ.MISSING), DETECTORPROB=(2, DQ.BAD), DATAMASKED=(3, DQ.MISSING),
        HOTPIX=(4, DQ.HOT), LARGEBLEM=(5, NOT_BAD), OVERSCAN=(7, DQ.MISSING), SATPIXEL=(8, DQ.SATURATED),
        CALIBDEFECT=(9, DQ.BAD), SMALLBLEM=(10, NOT_BAD), DATAREJECT=(13, DQ.COSMIC_RAY),
    ),
    # HST WFPC2 [WFPC2 Data Handbook, table 3.4].
    _bits(
        "hst_wfpc2",
        SOFTERR=(0, DQ.BAD), CALIBDEFECT=(1, DQ.BAD), STATICDEFECT=(2, DQ.BAD), ATODSAT=(3, DQ.SATURATED),
        DATALOST=(4, DQ.MISSING), DATABAD=(5, DQ.BAD), TRAP=(7, DQ.BAD), QUESTIONABLE=(8, NOT_BAD),
        WARMPIX=(9, NOT_BAD), REPAIRED=(10, NOT_BAD), CHIPMASKED=(11, DQ.MISSING),
    ),
    # Euclid VIS [Euclid DPDD 1.1, "Vis Flag Map Product"]: INVALID marks arbitrary values, and holds OVRCOL; in a
    # region of many cosmic rays (CR_REGION), the pixels that these hit are COSMIC.
    _bits(
        "euclid_vis",
        INVALID=(0, DQ.BAD), HOT=(1, DQ.HOT), COLD=(2, DQ.BAD), SAT=(3, DQ.SATURATED), COSMIC=(4, DQ.COSMIC_RAY),
        GHOST=(5, DQ.GHOST), QUADEDGE=(6, NOT_BAD), BAD_COLUMN=(7, DQ.BAD), BAD_CLUSTER=(8, DQ.BAD),
        CR_REGION=(9, NOT_BAD), OVRCOL=(12, DQ.BAD), EXTOBJ=(13, NOT_BAD), SCATLIGHT=(14, NOT_BAD),
        CHARINJ=(15, DQ.BAD), SATXTALKGHOST=(17, DQ.GHOST), STARSIGNAL=(18, NOT_BAD), SATURATEDSTAR=(19, NOT_BAD),
        CTICORRECTION=(20, NOT_BAD), ADCMAX=(21, DQ.SATURATED), NO_DATA=(22, DQ.MISSING), STITCHBLOCK=(23, NOT_BAD),
        OBJECTS=(24, NOT_BAD),
    ),
    # Gemini [DRAGONS, geminidr/gemini/lookups/DQ_definitions.py].
    _bits(
        "gemini",
        bad_pixel=(0, DQ.BAD), non_linear=(1, NOT_BAD), saturated=(2, DQ.SATURATED), cosmic_ray=(3, DQ.COSMIC_RAY),
        no_data=(4, DQ.MISSING), overlap=(5, NOT_BAD), unilluminated=(6, DQ.MISSING),
    ),
    # ZTF [Masci et al. 2019, PASP 131, 018003; explanatory supplement, sect. 10.3]: bits 1 and 11 are sources.
    _bits(
        "ztf",
        TRACK=(0, DQ.TRAIL), OBJECT=(1, NOT_BAD), LOW_RESPONSIVITY=(2, NOT_BAD), HIGH_RESPONSIVITY=(3, NOT_BAD),
        NOISY=(4, DQ.BAD), GHOST=(5, DQ.GHOST), CHARGE_SPILLAGE=(6, DQ.GHOST), PIXEL_SPIKE=(7, DQ.COSMIC_RAY),
        SATURATED=(8, DQ.SATURATED), DEAD=(9, DQ.BAD), NAN=(10, DQ.MISSING), PSF_SOURCE=(11, NOT_BAD),
        HALO=(12, NOT_BAD),
    ),
    # DES: finalcut images [DarkEnergySurvey/pixcorrect, include/mask_bits.h].
    _bits(
        "des",
        BPM=(0, DQ.BAD), SATURATE=(1, DQ.SATURATED), INTERP=(2, NOT_BAD), LOW=(3, DQ.BAD), CRAY=(4, DQ.COSMIC_RAY),
        STAR=(5, NOT_BAD), TRAIL=(6, DQ.BLEED), EDGEBLEED=(7, DQ.BLEED), SSXTALK=(8, NOT_BAD), EDGE=(9, NOT_BAD),
        STREAK=(10, DQ.TRAIL), FIX=(11, NOT_BAD),
    ),
    # NOIRLab community pipeline from 3.5 on, and those of Mosaic3 and 90prime: codes, no bits [legacysurvey/legacypipe,
    # decam.py and cpimage.py, after F. Valdes's PL201]. 7 is a change against the median of other exposures.
    MaskTable(
        "noirlab",
        (
            Flag(1, "bad", DQ.BAD), Flag(2, "no value", DQ.MISSING), Flag(3, "saturated", DQ.SATURATED),
            Flag(4, "bleed", DQ.BLEED), Flag(5, "cosmic ray", DQ.COSMIC_RAY), Flag(6, "low weight", DQ.BAD),
            Flag(7, "difference", NOT_BAD), Flag(8, "streak", DQ.TRAIL),
        ),
        codes=True,
    ),
    # The same before 3.5: bits [legacysurvey/legacypipe, bits.py].
    _bits(
        "noirlab_bits",
        badpix=(0, DQ.BAD), satur=(1, DQ.SATURATED), interp=(2, NOT_BAD), cr=(4, DQ.COSMIC_RAY), bleed=(6, DQ.BLEED),
        trans=(7, NOT_BAD), edge=(8, NOT_BAD), edge2=(9, NOT_BAD), outlier=(11, DQ.COSMIC_RAY),
    ),
    # DESI Legacy Surveys, maskbits of coadds [www.legacysurvey.org/dr10/bitmasks].
    _bits(
        "legacysurvey",
        NPRIMARY=(0, NOT_BAD), BRIGHT=(1, NOT_BAD), SATUR_G=(2, DQ.SATURATED), SATUR_R=(3, DQ.SATURATED),
        SATUR_Z=(4, DQ.SATURATED), ALLMASK_G=(5, NOT_BAD), ALLMASK_R=(6, NOT_BAD), ALLMASK_Z=(7, NOT_BAD),
        WISEM1=(8, NOT_BAD), WISEM2=(9, NOT_BAD), BAILOUT=(10, NOT_BAD), MEDIUM=(11, NOT_BAD), GALAXY=(12, NOT_BAD),
        CLUSTER=(13, NOT_BAD), SATUR_I=(14, DQ.SATURATED), ALLMASK_I=(15, NOT_BAD),
    ),
    # SDSS photo: planes of an fpM file drawn into an image, as its readAtlasImages and read_mask do [photo,
    # include/phSpanUtil.h].
    _bits(
        "sdss",
        INTERP=(0, NOT_BAD), SATUR=(1, DQ.SATURATED), NOTCHECKED=(2, NOT_BAD), OBJECT=(3, NOT_BAD),
        BRIGHTOBJECT=(4, NOT_BAD), BINOBJECT=(5, NOT_BAD), CATOBJECT=(6, NOT_BAD), SUBTRACTED=(7, NOT_BAD),
        GHOST=(8, DQ.GHOST), CR=(9, DQ.COSMIC_RAY),
    ),
    # Pan-STARRS1 [Waters et al. 2020, ApJS 251, 4, table 2; its files name the bits in MSKNAMnn, MSKVALnn].
    _bits(
        "panstarrs",
        DETECTOR=(0, DQ.BAD), FLAT=(1, DQ.BAD), DARK=(2, DQ.BAD), BLANK=(3, DQ.MISSING), CTE=(4, DQ.BAD),
        SAT=(5, DQ.SATURATED), LOW=(6, DQ.BAD), BURNTOOL=(7, NOT_BAD), CR=(8, DQ.COSMIC_RAY), SPIKE=(9, NOT_BAD),
        GHOST=(10, DQ.GHOST), STREAK=(11, DQ.TRAIL), STARCORE=(12, NOT_BAD), CONV_BAD=(13, DQ.BAD),
        CONV_POOR=(14, NOT_BAD),
    ),
)  # fmt: skip
TABLES: dict[str, MaskTable] = {table.name: table for table in _TABLES}

# ---- names in headers ------------------------------------------------------------------------------------------------
# Tried in this order on names in capitals with single blanks between words; the first that fits decides. Rubin's planes
# are in lsst/afw, src/image/Mask.cc, and in the packages of its pipelines.
_GLOSSARY = (
    (NOT_BAD, r"NO SAT CHECK|NOT ?(DE|CHECK|BLEND)|NON SCIENCE|JUMP DET|BAD REF PIXEL|ADJ OPEN|MARK VALUE"),
    (DQ.MISSING, r"NO ?(DATA|VALUE|COV)|MISSING|BLANK|DROPOUT|LOST|OVERSCAN|REFERENCE PIXEL|UNMASKED ?NAN|\bNAN\b"),
    (DQ.MISSING, r"IVAR ?(0|NAN)|UNILLUMINATED|OFF ?(CHIP|DETECTOR|IMAGE)|OUTSIDE"),
    (DQ.BLEED, r"BLEED"),
    (DQ.GHOST, r"GHOST|PERSIST|LATENT|REFLECTION"),
    (DQ.SATURATED, r"SATUR|\bSAT\b|SATPIX|FULL ?WELL|A ?TO ?D ?SAT"),
    (NOT_BAD, r"CTE ?TAIL"),
    (DQ.COSMIC_RAY, r"COSMIC|\bCRS?\b|CRAY|RAD HIT|CRREJ|CRDRIZ"),
    (DQ.TRAIL, r"SATELLITE|AIRCRAFT|STREAK|TRAIL|TRACK|METEOR"),
    (DQ.BAD, r"DEAD|UNRESPONSIVE|DO ?NOT ?USE|DEFECT|BAD ?(PIX|COL|DETECTOR)"),
    (NOT_BAD, r"DETECTED|DETECTION|OBJECT|SOURCE|STAR|GALAXY|HALO|SPIKE|BRIGHT|FAKE|INJECTED|BLEND"),
    (DQ.HOT, r"\bHOT|HIGH DARK"),
    (NOT_BAD, r"INTE?RP|EDGE|SUSPECT|CROSSTALK|XTALK|CLIPPED|REJECTED|INEXACT|VIGNET|WARM|NON ?LINEAR|OVERLAP"),
    (NOT_BAD, r"RESERVED|UNUSED|SPARE|POOR|LOW QE|RESPONSIV|BURNTOOL|UNRELIABLE|HIGH VARIANCE|FIXED|CHARGELOSS"),
    (NOT_BAD, r"SUBTRACTED|PRIMARY|ALLMASK|WISE|MEDIUM|CLUSTER|BAILOUT"),
    (DQ.BAD, r"BAD|COLD|\bBPM|TRAP|DETECTOR|\bFLAT|\bDARK|\bCTE\b|\bLOW\b|MIN ?COUNTS|\bOPEN\b"),
    (DQ.BAD, r"NOISY|UNUSABLE|INVALID|UNSTABLE|OUTLIER|MASKED"),
)
# Keyword of a name, and of the value that belongs to it.
_PAIRS = ((r"MSKNAM(\d+)", "MSKVAL{}"), (r"MSKN(\d{2,4})", "MSKM{}"))
# A card of one bit: its number in the keyword; name as the value, or number as the value and name as the comment.
_NUMBERED = re.compile(r"(?:BIT|BITN|BITNM|BITNAM|BITNAME|DQBIT|DQNAM|FLAG|FLAGNAM|MSKBIT|MASKBIT|MBIT)_?(\d{1,10})")
_LISTS = ("IMGBITM", "BITNAMES", "MASKBITS", "DQBITS", "FLAGS", "BITMASK")


def meaning_of(name: str) -> DQ | None:
    """Our bits for a name that a file gives one of its flags; None for a name that says nothing to us."""
    words = re.sub(r"[^A-Z0-9]+", " ", name.upper()).strip()
    return next((meaning for meaning, pattern in _GLOSSARY if re.search(pattern, words)), None)


def named_flags(headers: Sequence["fits.Header"]) -> tuple[Flag, ...]:
    """Flags that the first of the headers names which names any.

    Read are ``MP_NAME = bit`` (Rubin), ``MSKNAMnn``/``MSKVALnn`` (Pan-STARRS), ``BITnn = nn / name`` (ZTF, PTF),
    ``BITnn = 'name'`` and its relatives, and lists of names (PypeIt).
    """
    for header in headers:
        values = _planes(header) | _pairs(header) | _numbered(header) | _listed(header)
        flags = [Flag(value, name, meaning_of(name)) for name, value in values.items()]
        if flags := [flag for flag in flags if flag.value > 0 and flag.value.bit_count() == 1]:
            return tuple(sorted(flags, key=lambda flag: flag.value))
    return ()


def _planes(header: "fits.Header") -> dict[str, int]:
    found = {}
    for card in header.cards:
        keyword = card.keyword.upper()
        if keyword.startswith("MP_") and _is_bit(card.value):
            found[keyword.removeprefix("MP_")] = 1 << card.value
    return found


def _pairs(header: "fits.Header") -> dict[str, int]:
    found = {}
    for keyword in header:
        for pattern, partner in _PAIRS:
            match = re.fullmatch(pattern, keyword)
            value = header.get(partner.format(match[1])) if match else None
            if isinstance(value, int) and not isinstance(value, bool):
                found[str(header[keyword]).strip()] = value
    return found


def _numbered(header: "fits.Header") -> dict[str, int]:
    names = {}
    for card in header.cards:
        match = _NUMBERED.fullmatch(card.keyword)
        if match and isinstance(card.value, str) and card.value.strip():
            names[int(match[1])] = card.value.strip()
        elif match and card.comment and _is_bit(card.value) and card.value == int(match[1]):
            names[int(match[1])] = card.comment.strip()
    # BIT1, BIT2, BIT4, BIT8: the values themselves; else the numbers of the bits.
    are_values = len(names) > 2 and all(number > 0 and number.bit_count() == 1 for number in names)
    return {name: number if are_values else 1 << number for number, name in names.items() if are_values or number < 64}


def _listed(header: "fits.Header") -> dict[str, int]:
    for keyword in _LISTS:
        names = [name.strip() for name in str(header.get(keyword, "")).split(",")]
        if len(names) > 1:
            return {name: 1 << bit for bit, name in enumerate(names[:64])}
    return {}


def _is_bit(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 64


def flags_of_table(columns: Mapping[str, Sequence[object]]) -> tuple[Flag, ...]:
    """Flags of a table with a column NAME and a column VALUE or BIT, such as JWST's extension DQ_DEF."""
    by_name = {name.upper(): values for name, values in columns.items()}
    names = by_name.get("NAME")
    if names is None or not {"VALUE", "BIT"} & set(by_name):
        return ()
    values = by_name["VALUE"] if "VALUE" in by_name else [1 << int(bit) for bit in by_name["BIT"] if 0 <= int(bit) < 64]
    return tuple(
        Flag(int(value), str(name).strip(), meaning_of(str(name)))
        for name, value in zip(names, values, strict=False)
        if int(value) > 0 and int(value).bit_count() == 1
    )


# ---- which convention ------------------------------------------------------------------------------------------------
def recognised(headers: Sequence["fits.Header"]) -> MaskTable | None:
    """The table of the camera or pipeline that wrote these headers (mask, science image, primary)."""

    def first(keyword: str) -> str:
        return next((str(header[keyword]).strip().upper() for header in headers if keyword in header), "")

    telescope, instrument, detector, origin = map(first, ("TELESCOP", "INSTRUME", "DETECTOR", "ORIGIN"))
    if telescope == "JWST":
        return TABLES["jwst"]
    if telescope == "HST":
        name = f"hst_{instrument}" + (f"_{detector}" if instrument == "WFC3" else "")
        return TABLES.get(name.lower())
    if telescope == "EUCLID":
        return TABLES.get(f"euclid_{instrument}".lower())
    if telescope.startswith("GEMINI"):
        return TABLES["gemini"]
    if "ZTF" in instrument or "ZWICKY" in origin:
        return TABLES["ztf"]
    if instrument in ("DECAM", "MOSAIC3", "90PRIME") and first("PLVER"):
        old = instrument == "DECAM" and _version(first("PLVER")) < (3, 5)
        return TABLES["noirlab_bits" if old else "noirlab"]
    if first("DES_EXT") or first("DESFNAME"):
        return TABLES["des"]
    if "MASKBITS" in first("EXTNAME") or "LEGACYPV" in "".join(headers[0]):
        return TABLES["legacysurvey"]
    return None


def _version(text: str) -> tuple[int, ...]:
    """V4.8.2a as (4, 8, 2)."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
