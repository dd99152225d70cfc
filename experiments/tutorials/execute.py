"""Executes the notebooks, each in an empty folder, and keeps their outputs: all, or those that are named."""

import base64
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

TUTORIALS = Path(__file__).parent
PNG = "image/png"
WIDGET = "application/vnd.jupyter.widget-view+json"
SECONDS = 900
"""The longest that a cell may take."""


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Returns a notebook with the outputs of its execution in a folder.

    Args:
      path: of the notebook, which stays as it is.
      folder: the working folder of the notebook.

    Raises:
      nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    # Commands of the terminal, such as `!fa-jax`, are those of this environment.
    search_path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env={**os.environ, "PATH": search_path})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_of_progress_bar(output)]
            for output in cell.outputs:
                if PNG in output.get("data", {}):
                    output.data[PNG] = _smaller(output.data[PNG])
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return notebook


def _is_of_progress_bar(output: nbformat.NotebookNode) -> bool:
    """Returns whether an output is a progress bar that has disappeared: a widget that is gone, or no text."""
    if output.output_type not in ("display_data", "execute_result"):
        return False
    shows_text = set(output.data) <= {"text/plain", "text/html"}
    return WIDGET in output.data or (shows_text and not output.data.get("text/plain", "").strip())


def _smaller(png: str) -> str:
    """Returns a figure, as notebooks hold it, with at most 64 colours: a third of the bytes, for the same lines."""
    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(64).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main(names: Sequence[str]) -> None:
    """Executes the notebooks of these names, by default all, and writes them."""
    for path in [TUTORIALS / f"{name}.ipynb" for name in names] or sorted(TUTORIALS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
