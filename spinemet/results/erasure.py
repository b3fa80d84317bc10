"""A patient leaves the results for good: every table, its earlier versions, its log; no later run brings them back."""

import obstore
import pandas as pd
import pyarrow.dataset as pads

from spinemet import files
from spinemet.results.delta import dataset
from spinemet.results.maintenance import alone
from spinemet.results.suppression import suppress
from spinemet.results.tables import LEDGER, SIDE_TABLES, Results
from spinemet.results.versions import PINS, pins


def erase(uri: str, patient_key: str) -> pd.DataFrame:
    """Erase a patient; returns one row per table with the rows removed, empty of rows if there were none.

    No earlier version of the tables can be read afterwards, and the pins go: they held the patient. The patient is
    suppressed first and leaves the ledger last, so after a kill at any point the next call does the rest.
    """
    with alone(uri, "erase") as results:
        results.drop_leftovers()
        stored = dataset(results.uri, LEDGER).to_table(
            columns=["source_key"], filter=pads.field("patient_key") == patient_key
        )
        keys = sorted(set(stored["source_key"].to_pylist()))
        suppress(results.uri, [patient_key], keys)
        removed = {}
        for name in (*SIDE_TABLES, LEDGER) if keys else ():
            gone = f"source_key IN ({', '.join(map(repr, keys))})"
            removed[name] = results.to_change(name).delete(gone)["num_deleted_rows"]
        if keys:
            for name in pins(results.uri):
                files.delete(files.join(results.uri, PINS, f"{name}.json"))
            for name in removed:
                _forget(results, name)
    return pd.DataFrame(removed.items(), columns=["table", "rows_removed"])


def _forget(results: Results, name: str) -> None:
    """Delete what only earlier versions need: data files, and the log, whose statistics and predicates name keys."""
    results.to_change(name).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    # A commit without names, so that the log does not end with the deletion, which states its keys.
    results.to_change(name).alter.set_table_properties({"spinemet.erased": "true"}, raise_if_not_exists=False)
    table = results.to_change(name)
    table.create_checkpoint()
    store = files.open_store(files.join(results.uri, name))
    numbered = [meta["path"] for page in obstore.list(store, "_delta_log") for meta in page]
    numbers = {path: path.rpartition("/")[2].partition(".")[0] for path in numbered}
    earlier = [path for path, number in numbers.items() if number.isdecimal() and int(number) < table.version()]
    if earlier:
        obstore.delete(store, earlier)
