"""What the words of a header say that an object shows: usual CT slices in HU, or something else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from spinemet.types import Flag, InstanceHeader, SeriesHeader

LOCALIZER_TYPES = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "REF_SURVIEW"})
SCREEN_TYPES = frozenset({"DOSE_INFO", "PATIENT_INFO", "RESULTS", "SCREEN SAVE", "SCREENSHOT", "DOSE REPORT"})
# fmt: off
DERIVED_TYPES = frozenset({
    "MPR", "CURVED_MPR", "CSA MPR", "CSAPARALLEL", "CPR", "REFORMATTED", "PROJECTION", "PROJECTION IMAGE",
    "MIP", "MINIP", "MAX_IP", "MIN_IP", "MEAN_IP", "VRT", "VOLUME RENDERED", "SSD", "3D",
    "PERFUSION", "RCBF", "RCBV", "SUBTRACTION",
})
# fmt: on
_MAPS = re.compile(r"IODINE|MAT_|MATERIAL_|Z_?EFF|EFF_ATOMIC|ELECTRON|DENSITY|RHO\b|VNC|VIRTUAL_NON|CBCT|CONE_?BEAM")
"""Beginning of an ImageType value of maps of multi-energy CT (PS3.3 C.8.2.1.1.1) and of cone-beam CT, whose values are
not calibrated."""
_MONOENERGETIC = re.compile(r"VMI|MONO")
_WORDS = {
    Flag.ATTENUATION_CT: re.compile(r"\bCT ?AC\b|\bAC ?CT\b|\bATTEN COR|ATTENUATION|\bATTN\b"),
    Flag.CONE_BEAM: re.compile(r"\bCBCT|CONE ?BEAM|DYNA ?CT|XPER ?CT|\bO ARM\b"),
}
"""In SeriesDescription, ImageType or ManufacturerModelName; hyphens and underscores count as blanks."""
_NUCLEAR = frozenset({"PT", "NM"})
_HU_TYPES = re.compile(r"|HU|US|HOUNSFIELD.*")
"""RescaleType (PS3.3 C.11.1.1.2): US is unspecified, as some scanners write; no entry means HU in a CT image."""


def unit(instance: InstanceHeader) -> str:
    """The unit of the rescaled values, in capitals; empty for HU."""
    rescale_type = instance.stored.RescaleType.upper() if instance.stored else ""
    return "" if _HU_TYPES.fullmatch(rescale_type) else rescale_type


def is_map(instance: InstanceHeader) -> bool:
    """Whether the values are not HU, as ImageType or RescaleType says."""
    return bool(unit(instance)) or any(map(_MAPS.match, _values(instance)))


def is_monoenergetic(instance: InstanceHeader) -> bool:
    """Whether the values are HU of one energy."""
    return any(map(_MONOENERGETIC.match, _values(instance)))


def with_doubts(series: Iterable[SeriesHeader]) -> tuple[SeriesHeader, ...]:
    """`series` with the doubts about each CT.

    Words of its header raise them. If a study has PET or SPECT, and no header names its CT for attenuation correction,
    any of its CT may be that one.
    """
    found = [replace(one, doubts=_named(one)) if one.Modality == "CT" else one for one in series]
    nuclear = {one.StudyInstanceUID for one in found if one.Modality in _NUCLEAR}
    named = {one.StudyInstanceUID for one in found if Flag.ATTENUATION_CT in one.doubts}
    return tuple(
        replace(one, doubts=(Flag.ATTENUATION_CT, *one.doubts))
        if one.Modality == "CT" and one.StudyInstanceUID in nuclear - named
        else one
        for one in found
    )


def _named(series: SeriesHeader) -> tuple[Flag, ...]:
    image_type = series.instances[0].ImageType
    texts = (series.SeriesDescription, series.ManufacturerModelName, *image_type)
    words = re.sub(r"[ _-]+", " ", "; ".join(texts)).upper()
    return tuple(flag for flag, pattern in _WORDS.items() if pattern.search(words))


def special_kinds(instance: InstanceHeader) -> frozenset[str]:
    """How ImageType sets an object apart from usual CT slices: `localizer`, `screen`, `derived`, or the map's word."""
    values = set(instance.ImageType)
    sets = {"localizer": LOCALIZER_TYPES, "screen": SCREEN_TYPES, "derived": DERIVED_TYPES}
    maps = {value for value in _values(instance) if _MAPS.match(value) or _MONOENERGETIC.match(value)}
    return frozenset({kind for kind, words in sets.items() if values & words} | maps)


def _values(instance: InstanceHeader) -> list[str]:
    """ImageType beyond its first two values; blanks and hyphens count as underscores."""
    return [re.sub(r"[ -]", "_", value) for value in instance.ImageType[2:]]
