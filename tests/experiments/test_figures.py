"""Figures of the experiments: the colours of the program's own, and classes with a legend."""

from matplotlib.figure import Figure

from experiments.kao2019 import figures as kao2019
from experiments.lillicrap2014.common import NAMES
from experiments.representations import draw
from fa_jax.reports.looks import OTHERS, PAPER, colour_of


def test_a_rule_has_the_same_colour_in_all_figures():
    assert {rule: NAMES[rule][1] for rule in PAPER} == PAPER
    assert {curve: NAMES[curve][1] for curve in ("bp3", "fa3")} == {"bp3": PAPER["bp"], "fa3": PAPER["fa"]}
    assert {colour for kind, (_, colour, _) in kao2019.KINDS.items() if kind.startswith("bp")} == {PAPER["bp"]}
    assert {colour for kind, (_, colour, _) in kao2019.KINDS.items() if kind.startswith("al")} <= set(OTHERS)
    assert len({(colour, line) for _, colour, line in kao2019.KINDS.values()}) == len(kao2019.KINDS)
    assert colour_of("dfa") == OTHERS[0]


def test_classes_of_a_map_have_a_legend_with_the_colours_of_its_points():
    figure = Figure()
    draw.add_legend(figure, 10)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [str(c) for c in range(10)]
    assert [line.get_color() for line in legend.get_lines()] == [draw.colour_of_class(c) for c in range(10)]
    assert len({draw.colour_of_class(c) for c in range(10)}) == 10
    draw.add_legend(many := Figure(), 100)
    assert len(many.legends[0].get_texts()) == draw.MOST_CLASSES
