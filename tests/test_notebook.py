"""notebook.ipynb runs from its first cell to its last, as on a machine that has no more than the notebook."""

import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from PIL import Image
from tiny import COMMANDS, TINY

import configs

NOTEBOOK = ROOT / "notebook.ipynb"
CELLS = nbformat.read(NOTEBOOK, as_version=4).cells
CODE = [cell for cell in CELLS if cell.cell_type == "code"]


def test_it_is_kept_without_outputs():
    assert not [cell for cell in CODE if cell.outputs or cell.execution_count is not None]
    assert json.loads(NOTEBOOK.read_text(encoding="utf-8"))["metadata"]["kernelspec"]["name"] == "python3"


def test_its_commands_can_be_parsed(monkeypatch):
    found = re.findall(r"^!\{sys\.executable\} (\w+)\.py (.*)$", "\n".join(cell.source for cell in CODE), re.MULTILINE)
    assert [name for name, _ in found] == ["main", "eval", "predict"]
    for name, words in found:
        monkeypatch.setattr(sys, "argv", [name, *words.replace("{OPTIONS}", "").split()])
        args = COMMANDS[name].arguments()
        if name == "main":
            configs.build(args.config, args.set)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """One to clone, with the files as they are now."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # no hooks, no signatures
    git = ["git", "--git-dir", tmp_path / "repository", "--work-tree", ROOT, "-c", "user.name=a", "-c", "user.email=a"]
    for words in (["init"], ["add", "--all"], ["commit", "--message", "all"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    return tmp_path / "repository"


@pytest.mark.slow
def test_it_runs_through(repository, tmp_path, monkeypatch):
    monkeypatch.delenv("ANOMALY_DATA_ROOT", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # nothing is installed
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    first = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    options = f"--device cpu --set {' '.join(TINY['squid'][1])} epochs=1"
    first.source = f"REPOSITORY, OPTIONS = {str(repository)!r}, {options!r}"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()  # raises where one does

    place = tmp_path / "anomaly"
    folder = place / "checkpoints" / "digit_quick"
    assert json.loads((folder / "results.json").read_text())["images"] == "400 normal, 400 anomalous"
    kinds = ["flipped", "misordered", "missing", "normal", "zero"]
    assert sorted(path.stem for path in (folder / "predictions" / "images").iterdir()) == kinds
    rows = (folder / "predictions" / "scores.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["path", *(f"data/pictures/{kind}.png" for kind in kinds)]
    for path in (folder / "predictions" / "images").iterdir():
        Image.open(path).verify()

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    data = [output.data for output in outputs if "data" in output]
    assert sum("image/png" in each for each in data) == 2 + len(kinds)
    (page,) = (each["text/html"] for each in data if "text/html" in each)
    assert page.count("data:image/") > 800 and not re.search("&quot;(figures|strips)/", page)
