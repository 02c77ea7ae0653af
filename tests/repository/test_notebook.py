"""docs/notebook.ipynb: valid, small, and running from the first cell to the last on the committed records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import PROJECT

NOTEBOOK = PROJECT / "docs" / "notebook.ipynb"
MAX_BYTES = 100_000


def test_the_notebook_is_small_and_names_no_folder_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < MAX_BYTES
    assert not re.search(r"/(home|root|tmp|Users)/|C:\\\\", text)
    notebook = json.loads(text)
    assert notebook["nbformat"] == 4
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="pip install 'drloss-harness[test]' brings the notebook's kernel")
    nbclient = pytest.importorskip("nbclient", reason="pip install 'drloss-harness[test]' brings the notebook's kernel")
    pytest.importorskip("ipykernel", reason="pip install 'drloss-harness[test]' brings the notebook's kernel")
    for name, folder in (
        ("HARNESS_RUNS", tmp_path / "runs"),
        ("HARNESS_RESULTS", PROJECT / "results"),
        ("IPYTHONDIR", tmp_path / "ipython"),
        ("MPLCONFIGDIR", tmp_path / "matplotlib"),
        ("JUPYTER_RUNTIME_DIR", tmp_path / "jupyter"),
    ):
        monkeypatch.setenv(name, str(folder))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [
        output for output in outputs if output.output_type in ("error", "stream") and output.get("name") != "stdout"
    ]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert sum("text/html" in output.get("data", {}) for output in outputs) == 4  # the frames
