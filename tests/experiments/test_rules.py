"""The pages of the rules are what the script writes from the code, the YAML files and the recorded results."""

import functools
import re

import pytest

from experiments.rules import asked, page, pages, sources
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.cli.groups import CONF, choices
from fa_jax.metrics.alignment import ALIGNMENT
from tests.conftest import CUT_MNIST

RULES = sorted(choices("rule"))
INDEX = sources.HERE / "README.md"
DEFAULT = "ifa"
"""The rule whose commands are checked by default."""
written = functools.cache(pages.written)
rules = functools.cache(sources.rules)


def test_a_page_is_what_the_script_writes():
    stale = [path.name for path, text in written().items() if not path.exists() or path.read_text() != text]
    assert stale == [], "these pages are not what `python -m experiments.rules.pages` writes"


def test_there_is_a_page_for_every_rule_and_no_other():
    assert sorted(path.stem for path in sources.HERE.glob("*.md") if path != INDEX) == RULES


def test_the_tables_answer_for_every_rule():
    needs = sources.needs()
    assert sorted(needs) == sorted(asked.recorded()) == RULES
    assert all(set(row) == set(page.QUESTIONS) and all(row.values()) for row in needs.values())
    for row in needs.values():
        assert row["weights"].partition(":")[0] in ("yes", "no", "signs")
        assert row["error"].partition(":")[0] in ("yes", "no", "signs", "number")
        assert row["pass"].partition(":")[0] in ("yes", "no")


@pytest.mark.parametrize("rule", RULES)
def test_a_page_has_equations_a_paper_and_a_meaning_for_every_option(rule):
    described = rules()[rule]
    assert re.search(r"^    \S", described.docstring.equations, re.MULTILINE)
    assert re.search(r"\b(19|20)\d\d\b", described.docstring.paper)
    assert [option.name for option in described.options if not option.meaning] == []


@pytest.mark.parametrize(
    "rule", [name if name == DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in RULES]
)
def test_commands_of_a_page_train_its_rule(rule):
    blocks = "".join(re.findall(r"```bash\n(.*?)```", written()[sources.HERE / f"{rule}.md"], re.DOTALL))
    commands = [line.split()[1:] for line in blocks.splitlines()]
    assert len(commands) >= 2
    for words in commands:
        data = [f"task.data_dir={CUT_MNIST}"] if "task=mnist" in words else []
        assert rule in [run.choices["rule"] for run in compose(parse([*words, *data])).runs]


def test_a_page_has_the_defaults_that_differ_by_architecture_and_task():
    text = written()[sources.HERE / "dfa.md"]
    tokens = (
        "| `architecture=transformer` | `feedback.shared_positions=true`, `feedback.scale=0.1` | One matrix for all"
    )
    assert tokens in text
    assert "| `task=linear` | `feedback.distribution=uniform`, `feedback.scale=0.5` |" in text
    alike = "`architecture=cnn`, `architecture=lenet`, `architecture=locally_connected`, `architecture=vgg`"
    assert f"| {alike} | `architecture.hidden_position=before_pooling` |" in written()[sources.HERE / "pepita.md"]
    composed = compose(parse(["rule=dfa", "task=digits", "architecture=transformer"])).runs[0].config
    assert composed["feedback"]["scale"] == 0.1
    paths = (CONF / "preset").glob("*rule*/**/*.yaml")
    assert {part for path in paths for part in path.parts if part in RULES} == {
        rule for rule, described in rules().items() if described.presets
    }


def test_links_of_the_pages_exist():
    missing = [
        (path.name, target)
        for path, text in written().items()
        for target in re.findall(r"\]\(((?!https?:)[^)#]+)\)", text)
        if not (path.parent / target).exists()
    ]
    assert missing == []


def test_links_within_the_index_lead_to_headings():
    text = written()[INDEX]
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    linked = {target for page in written().values() for target in re.findall(r"\((?:README\.md)?#([\w-]+)\)", page)}
    assert linked <= headings


def test_every_metric_of_the_probe_batch_is_described():
    columns = sources.logged_columns()
    assert {f"{metric.name}_i" for metric in ALIGNMENT.metrics} <= columns.keys()
    assert {name for answers in asked.recorded().values() for name in answers["logged"]} <= columns.keys()


def test_a_recorded_refusal_is_that_of_the_code():
    recorded = asked.recorded()["ifa"]["architecture"]
    assert recorded["cnn"] == asked.refusal("ifa", "architecture=cnn")
    assert "one dense layer" in recorded["cnn"]
    assert recorded["mlp"] is None


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_the_recorded_answers_are_those_of_the_code(rule):
    assert asked.ask(rule) == asked.recorded()[rule], "run `python -m experiments.rules.pages --ask`"


def test_a_rule_without_a_title_and_a_paper_is_refused(monkeypatch):
    monkeypatch.setattr(sources, "choices", lambda group: {"fa": "Feedback alignment."} if group == "rule" else {})
    with pytest.raises(ValueError, match=r"the first line of fa\.yaml must be"):
        sources.rules()
