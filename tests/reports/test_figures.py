"""Figures are readable with one run and with many, and show what they are asked to."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection

from fa_jax.checks import BadOption
from fa_jax.reports import figures
from fa_jax.reports.curves import LINE_WIDTH
from fa_jax.reports.figures import angles_figure, comparison_figure, curves_figure
from fa_jax.reports.options import figure_options
from tests.reports.conftest import make_run

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def run_of(rule, seeds=2, **options):
    return make_run(rule, np.linspace(5.0, 6.0, seeds), **options)


@pytest.fixture
def many():
    """Six rules with six rates."""
    return [run_of(rule, rate=rate) for rule in ("bp", "fa", "dfa", "ifa", "usf", "shallow") for rate in RATES]


def share_of_legends(figure):
    """The share of the figure that its legends cover."""
    figure.draw_without_rendering()
    boxes = [legend.get_window_extent() for legend in figure.findobj(mpl.legend.Legend)]
    width, height = figure.get_size_inches() * figure.dpi
    return sum(box.width * box.height for box in boxes) / (width * height)


def test_up_to_eight_curves_share_a_panel_and_of_more_each_rule_has_one(many):
    assert len(curves_figure(many[:8]).findobj(mpl.axes.Axes)) == 1
    figure = curves_figure(many)
    titles = [axes.get_title() for axes in figure.findobj(mpl.axes.Axes)]
    assert titles == ["BP", "FA", "DFA", "IFA", "uSF", "shallow"]
    assert all(len(axes.lines) == len(RATES) for axes in figure.findobj(mpl.axes.Axes))


def test_legends_stay_small_and_lines_equally_thick(many):
    long = [run_of("fa", options={"a_rather_long_option_of_a_rule": f"value number {i} " * 4}) for i in range(8)]
    for runs in (many, many[:8], long, many[:1]):
        figure = curves_figure(runs)
        assert share_of_legends(figure) < 1 / 3
        assert {line.get_linewidth() for axes in figure.findobj(mpl.axes.Axes) for line in axes.lines} == {LINE_WIDTH}


@pytest.mark.parametrize(("seeds", "kind"), [(1, None), (4, LineCollection), (5, PolyCollection)])
def test_fewer_than_five_seeds_are_drawn_one_by_one_instead_of_a_band(seeds, kind):
    (axes,) = curves_figure([run_of("fa", seeds)]).findobj(mpl.axes.Axes)
    assert [type(drawn).__bases__[0] if kind is PolyCollection else type(drawn) for drawn in axes.collections] == (
        [] if kind is None else [kind]
    )


def test_no_matplotlibrc_changes_a_figure(tmp_path):
    for name, settings in (("plain", {}), ("hostile", {"text.usetex": True, "lines.linestyle": ":", "font.size": 40})):
        with mpl.rc_context(settings):  # as of a file in the working folder
            figures.save(curves_figure([run_of("fa")]), tmp_path / name, ["png"])
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "hostile.png").read_bytes()


def test_each_task_and_each_metric_has_its_panel():
    runs = [run_of("fa"), run_of("fa", task="linear", metric="nse"), run_of("bp")]
    figure = curves_figure(runs)
    assert [(axes.get_ylabel(), axes.get_yscale()) for axes in figure.findobj(mpl.axes.Axes)] == [
        ("test error (%)", "linear"),
        ("test NSE", "log"),
    ]


def test_title_size_letters_axis_and_layers_are_as_asked(tmp_path):
    runs = [run_of("fa"), run_of("bp")]
    options = figure_options("$ours", "6x3", "7", "epochs")
    figure = curves_figure(runs, "test_error", options)
    assert tuple(figure.get_size_inches()) == (6, 3)
    assert figure.get_suptitle() == r"\$ours"
    (axes,) = figure.findobj(mpl.axes.Axes)
    assert axes.get_xlabel() == "epochs"
    assert axes.lines[0].get_xdata().tolist() == [0, 1]
    assert axes.xaxis.label.get_size() == 7
    (of_layer,) = angles_figure(runs, figure_options(layers="1")).findobj(mpl.axes.Axes)
    assert "layer 1" in of_layer.get_ylabel()
    comparison_figure(runs, tmp_path / "a", options=options, formats=["svg"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("rules", [("fa", "shallow"), ("fa", "dfa", "usf", "shallow")])
def test_no_angle_is_cut(rules, seeds):
    runs = [run_of(rule, seeds, rate=rate) for rule in rules for rate in RATES[:3]]
    for i, run in enumerate(runs):
        run.metrics["signal_angle_0"][-seeds:] = 95 + 5 * i
    for axes in angles_figure(runs, figure_options(layers="0")).findobj(mpl.axes.Axes):
        assert axes.get_ylim()[1] > 95 + 5 * i


def test_notes_below_the_panels_can_be_left_out():
    def texts(notes):
        return [text.get_text() for text in curves_figure([run_of("fa")], options=figure_options(notes=notes)).texts]

    assert texts("false") == texts(False) == []
    assert texts(None) == ["line: mean over seeds; thin lines: single seeds, where there are fewer than 5"]
    narrow = curves_figure([run_of("fa", 5)], options=figure_options(size="3x3"))
    assert [len(line) <= 67 for text in narrow.texts for line in text.get_text().split("\n")] == [True, True]


@pytest.mark.parametrize(("last", "scale"), [(700, "linear"), (900, "log")])
def test_runs_that_are_short_against_others_are_drawn_over_a_logarithmic_axis(last, scale):
    runs = [run_of("fa", 5), run_of("bp", 5)]
    runs[1].metrics["examples"][-5:] = last
    (axes,) = curves_figure(runs).findobj(mpl.axes.Axes)
    assert axes.get_xscale() == scale
    drawn = axes.transData.transform(axes.lines[0].get_xydata())
    assert np.isfinite(drawn).all(1).tolist() == [scale == "linear", True]  # 0 is not far to the left of the axis


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "6"}, "^size must be a width and a height in inches, such as 6x4; got '6'"),
        ({"size": (0, 3)}, "^size must be a finite number at least 1"),
        ({"font_size": "big"}, "^font_size must be a finite number"),
        ({"axis": "steps"}, "^axis must be one of examples, epochs; got 'steps'"),
        ({"layers": "x"}, "^layers must be an integer of at least 0; got 'x'"),
        ({"layers": "7"}, "^layers must be of those whose angles are recorded, 0, 1; got 7"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(options, message):
    with pytest.raises(BadOption, match=message):
        angles_figure([run_of("fa")], figure_options(**options))


def test_settings_that_diverged_are_named(many):
    many[0].metrics["test_loss"][:] = np.nan
    texts = [text.get_text() for text in curves_figure(many).findobj(mpl.text.Text)]
    assert "diverged: 0.01" in texts
    few = curves_figure(many[:2])
    assert "BP learning_rate=0.01 (all diverged)" in [text.get_text() for text in few.findobj(mpl.text.Text)]


def test_angles_of_many_curves_are_a_figure_of_their_own(many, tmp_path, monkeypatch):
    saved = {}
    monkeypatch.setattr(figures, "save", lambda figure, path, *_: saved.update({path.name: figure}))
    comparison_figure(many[:2], tmp_path / "comparison")
    assert list(saved) == ["comparison"]
    comparison_figure(many, tmp_path / "comparison")
    assert list(saved) == ["comparison", "angles"]
    assert "BP" not in [axes.get_title() for axes in saved["angles"].findobj(mpl.axes.Axes)]


def test_a_hundred_settings_are_drawn_without_bands():
    runs = [run_of("fa", rate=1 + i) for i in range(20)]
    (axes,) = curves_figure(runs).findobj(mpl.axes.Axes)
    (lines,) = axes.collections
    assert len(lines.get_segments()) == 20
    assert not axes.lines
