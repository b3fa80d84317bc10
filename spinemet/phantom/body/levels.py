"""Size and tilt of the vertebra at each level: means of adults, in millimetres and degrees.

Bodies, canal, pedicles, transverse and spinous processes: Panjabi et al., "Thoracic human vertebrae" (Spine 1991) and
"Human lumbar vertebrae" (Spine 1992); cervical ones after Panjabi et al. (Spine 1991, "Cervical human vertebrae").
Disc heights: Kunkel et al. (J Anat 2011) for thoracic, Tibrewal & Pearcy (Spine 1985) for lumbar discs. Tilts add up to
40 degrees of thoracic kyphosis and 50 of lumbar lordosis, as in Bernhardt & Bridwell (Spine 1989).
"""

from __future__ import annotations

from dataclasses import dataclass, replace


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


# fmt: off
SIZES: dict[str, LevelSize] = {
    #                width depth height disc  canal w, d   pedicle w, h  transv. spinous drop tilt
    "C3":  LevelSize(18.5, 15.5, 12.5,  5.0,  23.5, 15.5,   5.6,  7.4,   50.0,   32.0,  15,   4),
    "C4":  LevelSize(19.0, 15.6, 12.5,  5.2,  24.0, 15.3,   5.4,  7.4,   51.0,   33.0,  15,   8),
    "C5":  LevelSize(19.5, 15.8, 12.5,  5.4,  24.5, 15.2,   5.6,  7.0,   53.0,   35.0,  18,  13),
    "C6":  LevelSize(20.5, 16.5, 12.8,  5.6,  25.0, 15.2,   6.0,  7.3,   56.0,   40.0,  20,  18),
    "C7":  LevelSize(22.0, 17.0, 14.0,  5.4,  24.0, 15.2,   6.6,  7.5,   66.0,   47.0,  22,  23),
    "T1":  LevelSize(25.0, 18.5, 15.8,  4.4,  21.8, 16.4,   8.5,  9.6,   75.0,   50.0,  24,  25),
    "T2":  LevelSize(25.5, 19.6, 17.0,  4.0,  19.5, 15.6,   8.2, 11.4,   69.0,   50.0,  32,  24),
    "T3":  LevelSize(26.0, 22.0, 17.5,  3.8,  18.4, 15.8,   6.8, 11.9,   63.5,   50.0,  38,  21),
    "T4":  LevelSize(26.5, 23.3, 18.0,  3.9,  17.2, 16.2,   6.3, 12.1,   61.5,   51.0,  44,  17),
    "T5":  LevelSize(27.0, 24.3, 18.5,  4.0,  17.2, 16.2,   6.0, 11.9,   61.0,   52.0,  50,  12),
    "T6":  LevelSize(27.8, 26.0, 19.0,  4.3,  17.3, 16.3,   6.0, 12.2,   61.0,   53.0,  54,   7),
    "T7":  LevelSize(28.6, 27.4, 19.5,  4.6,  17.3, 15.9,   5.9, 12.1,   60.5,   53.0,  54,   2),
    "T8":  LevelSize(29.7, 27.9, 20.0,  5.0,  17.7, 15.9,   6.7, 12.5,   60.0,   53.0,  50,  -3),
    "T9":  LevelSize(31.0, 29.3, 21.0,  5.4,  17.9, 15.7,   7.7, 13.9,   59.5,   51.0,  42,  -7),
    "T10": LevelSize(32.8, 30.5, 22.0,  6.0,  18.2, 15.5,   9.0, 14.9,   58.0,   50.0,  32, -10),
    "T11": LevelSize(35.5, 31.5, 23.0,  6.6,  19.4, 16.0,   9.8, 16.5,   51.5,   50.0,  20, -12),
    "T12": LevelSize(39.0, 32.5, 24.5,  7.4,  22.0, 17.6,   9.0, 16.5,   47.5,   52.0,  12, -14),
    "L1":  LevelSize(42.0, 33.5, 26.0,  8.4,  23.5, 18.2,   8.8, 15.9,   71.0,   66.0,  10, -13),
    "L2":  LevelSize(43.5, 34.3, 27.0,  9.6,  23.8, 17.8,   8.8, 15.2,   76.0,   69.0,  10,  -9),
    "L3":  LevelSize(45.5, 34.8, 27.5, 10.8,  24.3, 17.5,  10.2, 14.8,   85.5,   70.0,  10,  -2),
    "L4":  LevelSize(48.0, 35.2, 27.8, 11.4,  25.2, 18.4,  13.2, 15.5,   80.0,   68.0,  10,   7),
    "L5":  LevelSize(50.0, 35.0, 28.0, 10.2,  27.0, 19.0,  16.5, 17.5,   91.0,   60.0,  14,  21),
    # Sacral segments are fused: the "disc" is a rudiment, the processes are the sacral crests.
    "S1":  LevelSize(50.0, 31.0, 30.0,  3.0,  30.0, 16.0,  18.0, 18.0,  105.0,   44.0,  10,  38),
    "S2":  LevelSize(38.0, 23.0, 25.0,  2.0,  24.0, 13.0,  16.0, 16.0,   90.0,   35.0,  10,  47),
    "S3":  LevelSize(31.0, 17.0, 21.0,  1.5,  19.0, 10.0,  12.0, 12.0,   78.0,   28.0,  10,  58),
    "S4":  LevelSize(26.0, 13.0, 18.0,  1.5,  15.0,  7.0,  10.0, 10.0,   66.0,   22.0,  10,  62),
}
# fmt: on

AXIS = LevelSize(17.5, 15.5, 21.0, 4.8, 24.5, 18.0, 7.5, 8.5, 55.0, 34.0, 18, 0)
"""C2 without its dens. head.py draws it separately, because random numbers of the others depend on their count."""

DENS = 0.76
"""Length of the dens as a share of the height of C2's body: 37 mm in all (16 of them dens)."""

MOBILE: tuple[str, ...] = tuple(level for level in SIZES if level[0] != "S")
"""The levels from C3 to L5, which can have disease. With C2 they are the vertebrae of the truth. Sacrum and atlas are
drawn but not listed: the sacrum is one fused bone, and the atlas has no body."""
