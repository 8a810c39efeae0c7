"""Values per query on disk, so that figures can be compared query by query at any later time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from retrieval_ft import artifacts
from retrieval_ft.errors import DataError
from retrieval_ft.evaluation.metrics import PerQuery


def write_per_query(path: Path, per_query: Mapping[str, PerQuery]) -> None:
    """Write the values per query of systems, whole or not at all, for `read_per_query`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for name, found in per_query.items():
        columns = {"system": [name] * len(found.query_ids), "query_id": list(found.query_ids)}
        tables.append(pa.table({**columns, **found.values}))
    with artifacts.atomic_open(path) as file:
        pq.write_table(pa.concat_tables(tables), file)


def read_per_query(path: Path) -> dict[str, PerQuery]:
    """Read the values per query that a run wrote, by system; queries are sorted by id.

    Raises:
        DataError: the file is missing or damaged, a column is missing, a query stands twice for a
            system, or a value is not finite.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a parquet file, or damaged ({error})") from error
    if missing := {"system", "query_id"} - set(table.column_names):
        raise DataError(f"{path}: column {', '.join(sorted(missing))} is missing")
    systems = table.column("system").to_pylist()
    query_ids = table.column("query_id").to_pylist()
    if twice := [key for key, n in Counter(zip(systems, query_ids, strict=True)).items() if n > 1]:
        raise DataError(f"{path}: query {twice[0][1]!r} stands twice for system {twice[0][0]!r}")
    columns = {
        name: np.asarray(table.column(name).to_pylist(), np.float64)
        for name in table.column_names
        if name not in ("system", "query_id")
    }
    for name, values in columns.items():
        if not np.isfinite(values).all():
            raise DataError(f"{path}: column {name!r} holds a value that is not finite")
    rows: dict[str, list[int]] = {}
    for row in sorted(range(len(query_ids)), key=query_ids.__getitem__):
        rows.setdefault(systems[row], []).append(row)
    return {
        system: PerQuery(
            tuple(query_ids[row] for row in rows[system]),
            {name: values[rows[system]] for name, values in columns.items()},
        )
        for system in dict.fromkeys(systems)
    }
