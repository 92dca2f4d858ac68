"""The map of docs/rooms.md holds: every import runs down, and no two files need each other."""

import ast
import re

import pytest
from conftest import ROOT

# a room may import from itself and from those named after it
ROOMS = ("commands", "training", "evaluation", "experiments", "methods", "dataloader", "configs", "models", "system")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imported(path):
    """The modules of ours that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {name for name in names if name in MODULES}
    return found - {module_of(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down(path):
    room = path.relative_to(ROOT).parts[0]
    above = ROOMS[: ROOMS.index(room)]
    assert not [name for name in imported(path) if name.split(".")[0] in above]


def test_settings_are_checked_without_the_networks():
    used = {name for path in (ROOT / "configs").glob("*.py") for name in imported(path) if name.startswith("models")}
    assert used <= {"models", "models.sizes"}
    assert "torch" not in {
        name.split(".")[0]
        for node in ast.walk(ast.parse((ROOT / "models" / "sizes.py").read_text()))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [])
    }


def test_no_two_files_need_each_other():
    needs = {name: imported(path) for name, path in MODULES.items()}
    # a package's __init__ gathers its files, which import each other by their own names
    needs = {name: {n for n in of if MODULES[n].name != "__init__.py" or n.split(".")[0] != name.split(".")[0]}
             for name, of in needs.items()}  # fmt: skip
    done, path = set(), []

    def visit(name):
        assert name not in path, f"a circle: {' → '.join([*path[path.index(name) :], name])}"
        if name not in done:
            path.append(name)
            for other in sorted(needs[name]):
                visit(other)
            done.add(path.pop())

    for name in sorted(needs):
        visit(name)


def test_every_folder_with_code_is_a_room_or_stands_above_them():
    above = {"tools", "benchmarks", "tests"}
    folders = {path.relative_to(ROOT).parts[0] for path in ROOT.glob("*/*.py")} - {".venv"}
    assert folders == {*ROOMS, *above}
    for room in ROOMS:  # and nothing in a room needs what stands above
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom):
                    assert node.module.split(".")[0] not in above, path


def test_the_map_names_every_room_in_this_order():
    text = (ROOT / "docs" / "rooms.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE) == list(ROOMS)
