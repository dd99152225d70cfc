"""The study of depth: its rules are defined on its deepest network, and its table has margins above a control."""

import pytest

from experiments.controlled import Study
from experiments.depth import rows
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose


@pytest.mark.parametrize("rule", ["shallow", "kolen_pollack"])
def test_rows_are_composed_on_the_deepest_network(rule):
    (run,) = compose(parse(list(rows.STUDY.overrides("16x64", rule, 30)))).runs
    assert run.config["architecture"]["hidden"] == [64] * 16
    assert run.config["architecture"]["init_scale"] == float(rows.SCALE)
    assert run.config.get("feedback", {}).get("scale", 1.0) == (float(rows.SCALE) if rule == "kolen_pollack" else 1.0)


def test_the_table_has_margins_above_the_control_by_depth(monkeypatch):
    def row(network, rule, error, above="", **more):
        margins = {f"above shallow{part}": above for part in ("", ", low", ", high")}
        marks = {"at the edge of the grid": "False", "diverged": "0", "n": "5"}
        return {"network": network, "rule": rule, "test error": error, **marks, **margins, **more}

    recorded = [
        row("2x64", "shallow", "9.00"),
        row("2x64", "fa", "4.00", "+5.00"),
        row("8x64", "fa", "7.00", "-1.00", diverged="1", n="4", **{"at the edge of the grid": "True"}),
    ]
    monkeypatch.setattr(Study, "recorded", lambda study, epochs: recorded)
    control, fa = ([cell.strip() for cell in line.split("|")[1:-1]] for line in rows.tables().splitlines()[2:])
    assert control == ["shallow", "9.00", *[""] * 7]
    assert fa[1:4] == ["4.00", "", "7.00 (1 of 5 diverged, edge)"]
    assert fa[5:8] == ["+5.00 (+5.00 to +5.00)", "", "-1.00 (-1.00 to -1.00)"]
