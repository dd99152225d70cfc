"""`tuned=true`: the values in `conf/tuned.csv` that were best on held-out examples, by task, architecture and rule."""

import csv
from collections.abc import Mapping

from fa_jax.checks import BadOption, nearest
from fa_jax.cli.groups import CONF

TABLE = CONF / "tuned.csv"


def tuned_overrides(choices: Mapping[str, str]) -> list[str]:
    """Returns the overrides that were tuned for the choices of config groups.

    Raises:
      BadOption: if nothing was tuned for them, or only for another optimizer.
    """
    key = "/".join(choices[group] for group in ("task", "architecture", "rule"))
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = {"/".join((row["task"], row["architecture"], row["rule"])): row for row in csv.DictReader(file)}
    if key not in rows:
        tuned = ", ".join(dict.fromkeys(row.rpartition("/")[0] for row in sorted(rows)))
        raise BadOption(
            f"has no values for {key}{nearest(key, rows)}; it has values for most rules with {tuned}", "tuned=true"
        )
    row = rows[key]
    if row["optimizer"] != choices["optimizer"]:
        raise BadOption(
            f"has values for optimizer={row['optimizer']} with {key}; got optimizer={choices['optimizer']}",
            "tuned=true",
        )
    return row["overrides"].split()
