"""Counts of a screening run for Prometheus, through the metrics endpoints of Ray's nodes.

The driver counts a study after its commit, so the counts agree with the tables. Ray adds the prefix `ray_` and, for
counters, the suffix `_total`. Each run has its own series (label `WorkerId`), which stay until the node ends. Labels
are words of closed lists: no key, no identifier.
"""

from collections.abc import Mapping, Sequence

from spinemet.results.schemas import Row

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Bounds of the histogram's buckets: from reading one header to the time limit of a study."""


class Meters:
    """Counters `spinemet_studies` (by state and reason), `spinemet_bytes`, `spinemet_vertebrae` (by bone quality), and
    the histogram `spinemet_seconds` (by stage). Ray must be connected when they are made.
    """

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Histogram

        self._studies = Counter(
            "spinemet_studies", "Studies committed, by state and, if not screened, reason.", ("state", "reason")
        )
        self._bytes = Counter("spinemet_bytes", "Bytes of the objects of these studies.")
        self._vertebrae = Counter(
            "spinemet_vertebrae", "Vertebrae of these studies; `none` were not classified.", ("bone_quality",)
        )
        self._seconds = Histogram(
            "spinemet_seconds", "Seconds that a stage took for a study.", boundaries=[*SECONDS], tag_keys=("stage",)
        )

    def count(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Count the rows of a committed wave, by table."""
        for study in rows.get("studies", ()):
            self._studies.inc(1, {"state": study["state"], "reason": study["reason"] or "none"})
            if study["size_bytes"]:  # a counter refuses 0
                self._bytes.inc(study["size_bytes"])
            for column, seconds in study.items():
                if column.startswith("seconds_") and seconds is not None:
                    self._seconds.observe(seconds, {"stage": column.removeprefix("seconds_")})
        for vertebra in rows.get("vertebrae", ()):
            self._vertebrae.inc(1, {"bone_quality": vertebra["bone_quality"] or "none"})
