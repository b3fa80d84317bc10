"""Size and tilt of the vertebra at each level: means of adults, in millimetres and degrees (levels.csv).

Bodies, canal, pedicles, transverse and spinous processes: Panjabi et al., "Thoracic human vertebrae" (Spine 1991) and
"Human lumbar vertebrae" (Spine 1992); cervical ones after Panjabi et al. (Spine 1991, "Cervical human vertebrae").
Disc heights: Kunkel et al. (J Anat 2011) for thoracic, Tibrewal & Pearcy (Spine 1985) for lumbar discs. Tilts add up to
40 degrees of thoracic kyphosis and 50 of lumbar lordosis, as in Bernhardt & Bridwell (Spine 1989).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class LevelSize:
    """The measures of one vertebra and of the disc below it.

    tilt: degrees by which the superior axis leans to anterior. spinous_drop: degrees by which the spinous process
    points down. transverse: tip to tip. spinous: from the posterior wall of the body to the tip.
    """

    width: float
    depth: float
    height: float
    disc: float
    canal_width: float
    canal_depth: float
    pedicle_width: float
    pedicle_height: float
    transverse: float
    spinous: float
    spinous_drop: float
    tilt: float

    def scaled(self, factor: float, disc_factor: float = 1.0) -> LevelSize:
        """The same vertebra `factor` times as large; angles stay, and `disc_factor` also scales the disc."""
        sizes = {name: value * factor for name, value in vars(self).items() if name not in {"spinous_drop", "tilt"}}
        return replace(self, **sizes | {"disc": self.disc * factor * disc_factor})


def _read() -> dict[str, LevelSize]:
    with Path(__file__).with_suffix(".csv").open() as file:
        return {
            row.pop("level"): LevelSize(**{name: float(value) for name, value in row.items()})
            for row in csv.DictReader(file)
        }


SIZES = _read()
"""Level -> its size, C3 to S4, cranial to caudal. Sacral segments are fused: the "disc" is a rudiment, the processes
are the sacral crests."""

AXIS = SIZES.pop("C2")
"""C2 without its dens. head.py draws it separately, because random numbers of the others depend on their count."""

DENS = 0.76
"""Length of the dens as a share of the height of C2's body: 37 mm in all (16 of them dens)."""

MOBILE: tuple[str, ...] = tuple(level for level in SIZES if level[0] != "S")
"""The levels from C3 to L5, which can have disease. With C2 they are the vertebrae of the truth. Sacrum and atlas are
drawn but not listed: the sacrum is one fused bone, and the atlas has no body."""
