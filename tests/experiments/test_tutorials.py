"""The notebooks are committed as they were executed, say nothing of the machine, and run."""

import json
import re
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "experiments" / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
MACHINE = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|work|usr|opt|var|mnt|private|srv|data)/|\b[A-Z]:\\\\?\w")
"""An absolute path."""
MOST_BYTES = 300_000

by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def texts(path):
    """The sources and the outputs of a notebook, images aside."""
    for cell in json.loads(path.read_text())["cells"]:
        yield "".join(cell["source"])
        for output in cell.get("outputs", []):
            yield "".join(output.get("text", []))
            yield from ("".join(text) for kind, text in output.get("data", {}).items() if kind.startswith("text/"))


def test_every_notebook_has_a_line_in_the_readme():
    assert len(NOTEBOOKS) == 5
    table = (TUTORIALS / "README.md").read_text()
    assert re.findall(r"^\| \[\w+\]\((\w+\.ipynb)\)", table, re.MULTILINE) == [path.name for path in NOTEBOOKS]


@by_name
def test_a_notebook_was_executed_in_order_without_an_error(path):
    cells = cells_of(path, "code")
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < MOST_BYTES


@by_name
def test_a_notebook_says_nothing_of_the_machine(path):
    for text in texts(path):
        assert not MACHINE.search(text), text
        assert not re.search(r"https?://", text), text
    assert json.loads(path.read_text())["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


@by_name
def test_links_of_a_notebook_exist(path):
    prose = "".join("".join(cell["source"]) for cell in cells_of(path, "markdown"))
    targets = re.findall(r"\]\(([^)#]+)\)", prose)
    assert [target for target in targets if not (path.parent / target).exists()] == []


FIRST = "1_feedback_alignment"
"""The notebook that is executed where the packages are installed; the others take longer."""


@pytest.mark.optional
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem == FIRST else pytest.mark.slow, id=path.stem) for path in NOTEBOOKS],
)
def test_a_notebook_runs(path, folder):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from experiments.tutorials.execute import executed

    notebook = executed(path, folder)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1
