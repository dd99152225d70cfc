"""A rule has one colour and one marker, a setting one line, in every figure of a comparison."""

import numpy as np
import pytest

from fa_jax.reports.labels import NAMES, describe, labels
from fa_jax.reports.looks import DASHES, OTHERS, PAPER, _lightness, looks, shade
from tests.reports.conftest import make_run


def colours(*runs):
    return [look.colour for look in looks(runs)]


def run_of(rule, rate=0.1, **display):
    return make_run(rule, [1.0, 2.0], rate=rate, options={"display": display} if display else {})


def shades(colour, n):
    return [shade(colour, i / (n - 1)) for i in range(n)]


def test_rules_of_the_paper_have_its_colours_and_others_their_own_in_any_company():
    assert colours(run_of("bp"), run_of("fa")) == [PAPER["bp"], PAPER["fa"]]
    alone, among = colours(run_of("dfa")), colours(run_of("usf"), run_of("dfa"), run_of("bp"))
    assert alone[0] == among[1]
    assert among == [colours(run_of("usf"))[0], alone[0], PAPER["bp"]]


def test_colours_of_up_to_eighteen_rules_differ():
    rules = list(NAMES)
    several = [*rules[:14], *(rule for rule in PAPER if rule not in rules[:14])]
    assert len(set(colours(*map(run_of, several)))) == len(several) <= len(OTHERS) + len(PAPER)
    assert len(colours(*map(run_of, [*rules, "mine", "yours"]))) == len(rules) + 2


def test_a_setting_has_the_same_line_under_every_rule():
    runs = [run_of(rule, rate) for rule in ("fa", "dfa") for rate in (1.0, 0.1, 0.3)]
    shown = looks(runs)
    assert [look.dash for look in shown] == ["dot", "solid", "dash"] * 2  # in the order of the numbers
    assert {look.colour for look in shown[:3]} == {PAPER["fa"]}
    assert len({look.marker for look in shown[:3]}) == 1
    assert shown[0].marker != shown[3].marker


def test_more_settings_than_lines_are_shades_from_light_to_dark():
    runs = [run_of("fa", rate) for rate in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)]
    shown = looks(runs)
    greens = [int(look.colour[1:3], 16) for look in shown]
    assert greens == sorted(greens, reverse=True)
    assert len({look.colour for look in shown}) == 6 > len(DASHES)
    assert [look.dash for look in shown] == [*DASHES, *DASHES[:2]]
    assert shade("#000000", 1) == "#000000"
    for colour in (*OTHERS, *PAPER.values()):  # lightness falls in equal steps, of 8 at least among six
        lightness = [_lightness([int(s[i : i + 2], 16) / 255 for i in (1, 3, 5)]) for s in shades(colour, 6)]
        np.testing.assert_allclose(np.diff(lightness), np.diff(lightness).mean(), atol=0.5)
        assert np.diff(lightness).mean() < -8


def test_controls_are_grey():
    for control in ("shallow", "frozen_blocks"):
        red, green, blue = (colours(run_of("fa"), run_of(control))[1][i : i + 2] for i in (1, 3, 5))
        assert red == green == blue, control


def test_a_rule_can_choose_its_label_and_its_colour():
    runs = [run_of("bp"), run_of("mine", label="FA (ours)", colour="#cc3311")]
    assert labels(runs) == ["BP", "FA (ours)"]
    assert colours(*runs) == ["#000000", "#CC3311"]
    taken = colours(run_of("mine", colour=PAPER["fa"]), run_of("fa"))
    assert taken[0] != taken[1]


@pytest.mark.parametrize("display", [{"label": 3, "colour": "url(x)"}, {"label": " ", "colour": ["#000000"]}])
def test_a_recorded_label_or_colour_that_is_none_is_not_used(display):
    (run,) = [run_of("mine", **display)]
    assert labels([run]) == ["mine"]
    assert colours(run)[0] in OTHERS


def test_labels_differ_also_if_short_numbers_do_not():
    runs = [run_of("fa", rate) for rate in (0.100001, 0.100002)]
    assert labels(runs) == ["FA learning_rate=0.100001", "FA learning_rate=0.100002"]
    assert labels([run_of("fa", label="X"), run_of("dfa", label="X")]) == ["X", "X (2)"]
    assert describe(runs)[0].setting == (("optimizer.learning_rate", "0.100001"),)
