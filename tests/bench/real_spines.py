"""The ten spines of ../shared/realct/spines with the bodies in view, read by eye from pictures of the scans alone.

The pictures were sagittal and coronal planes along the canal. A position is good to 4 mm; across the canal it was taken
from the canal's middle and the body's depth in the picture.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.localizer_phantoms import Case, Truth
from tests.conftest import REALCT
from tests.spine.conftest import read

SETTING = ("acrin-breast-001-a", "dsb-00cba", "cmb-crc-01068", "kits-00072", "moose-neck")
"""Parameters may be set on these; the other five are left out while setting."""

BODIES = {
    "acrin-breast-001-a": "C2 -11 -22 -172 0, C3 -13 -14 -189, C4 -13 -5 -208, C5 -14 2 -226, C6 -17 9 -243,"
    " C7 -17 16 -260, T1 -17 23 -278, T2 -17 31 -295, T3 -17 38 -311, T4 -17 47 -329, T5 -17 56 -349,"
    " T6 -17 64 -369 .7",
    "dsb-00cba": "C7 5 10 -26 .4, T1 5 13 -38, T2 5 18 -54, T3 5 23 -72, T4 5 27 -91, T5 5 30 -110, T6 4 32 -131,"
    " T7 1 31 -152, T8 1 29 -173, T9 1 26 -195, T10 1 21 -218, T11 3 16 -243, T12 6 11 -271, L1 9 5 -302, L2 9 0 -335,"
    " L3 9 0 -354 .1",
    "cmb-crc-01068": "C7 -11 -3 3 .9, T1 -8 4 -12, T2 -7 15 -30, T3 -10 26 -48, T4 -10 37 -68, T5 -10 50 -90,"
    " T6 -10 60 -113, T7 -10 66 -136, T8 -10 68 -160, T9 -7 66 -186, T10 -6 66 -213, T11 -6 64 -234 .25",
    "kits-00072": "? -6 -88 -15 .7, ? -6 -88 -39 .7",
    "moose-neck": "? -8 114 -241 0, ? -8 119 -253 0, ? -8 125 -264 0, ? -8 132 -276 0, ? -7 141 -288 0, ? -6 149 -301,"
    " ? -4 157 -315, ? -1 165 -330, ? 1 172 -345, ? 2 177 -356 .2",
    "acrin-breast-001-b": "T9 -20 61 -444 .9, T10 -17 62 -467, T11 -14 59 -497, T12 -12 58 -529, L1 -14 56 -564,"
    " L2 -17 50 -597, L3 -17 49 -630, L4 -17 47 -666, L5 -17 51 -702",
    "acrin-nsclc": "C4 13 -31 79 .4, C5 13 -27 70, C6 13 -21 53, C7 13 -16 36, T1 16 -11 17, T2 15 -3 -3, T3 13 7 -24,"
    " T4 12 16 -45, T5 8 24 -67, T6 5 31 -90, T7 2 34 -116, T8 1 35 -142, T9 1 33 -168, T10 0 26 -198, T11 -2 19 -228,"
    " T12 -3 11 -261, L1 -5 -2 -296, L2 -7 -13 -332, L3 -7 -16 -356 .25",
    "ibsi1-lung": "? 0 33 69 .6, ? 1 39 50, ? 0 41 28, ? 3 44 5, ? 4 45 -19, ? 4 45 -45, ? 4 41 -73, ? 4 38 -94 .5",
    "ircad-17": "T10 191 251 183 .6, T11 191 247 162, T12 195 239 132, L1 195 232 102, L2 195 224 70, L3 198 221 35,"
    " L4 199 219 6 .35",
    "matrad-pat001": "T3 8 16 111 .6, T4 8 23 95, T5 8 28 75, T6 8 30 53, T7 8 29 31, T8 8 24 9, T9 8 16 -13,"
    " T10 5 5 -36, T11 4 -5 -61, T12 0 -17 -88, L1 -4 -30 -117, L2 -7 -39 -149, L3 -8 -44 -186, L4 -8 -42 -223,"
    " L5 -8 -27 -255",
}
"""Bodies, cranial to caudal: level or `?`, x, y, z of the centre in LPS mm. One that is cut also has the share in view;
its centre is that of the part in view.

The axis of the first may be listed or not: share 0. The names of the third come from its first rib, which goes forward
from beside the body at -12. In 5 mm slices of an inclined neck only the thoracic end can be read (the first rib goes
forward at -315); the bodies above it have a share of 0 and places a usual spacing apart."""


def real_spines() -> Iterator[tuple[str, Case]]:
    """Each spine's name and case. Those whose levels could be read have an anchor in view."""
    for name, bodies in BODIES.items():
        truth = truth_of(bodies)
        yield name, Case(read(REALCT / "spines" / name), truth, ("by eye",) if truth[0].level else ())


def truth_of(bodies: str) -> list[Truth]:
    """The truth in a line of BODIES."""
    truth = []
    for body in bodies.split(", "):
        level, x, y, z, *share = body.split()
        place = float(x), float(y), float(z)
        truth.append(Truth("" if level == "?" else level, place, *map(float, share)))
    return truth
