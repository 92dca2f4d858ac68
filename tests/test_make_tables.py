"""Tables from evaluated experiments."""

import csv
import json

from tiny import command, train

from tools import make_tables


def test_tables_average_seeds_and_nothing_else(workspace, capsys):
    for name, arguments in (
        ("a", ["--seed", "0"]),
        ("b", ["--seed", "1"]),
        ("c", ["--seed", "1", "--set", "dropout=0.1"]),
    ):
        assert train(name, *arguments, overrides=["epochs=1"]) == 0
        assert command("eval", "--exp", name) == 0
    assert command("make_tables", "a", "b", module=make_tables) == 0
    assert command("make_tables", "c", module=make_tables) == 0
    with open(workspace / "results" / "results.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["score"] == "reconstruction"]
    assert {row["experiment"] for row in rows} == {"a", "b", "c"}
    auc = {row["experiment"]: 100 * float(row["auc"]) for row in rows}
    text = (workspace / "results" / "tables.md").read_text()
    mean, deviation = (auc["a"] + auc["b"]) / 2, abs(auc["a"] - auc["b"]) / 2**0.5
    assert f"| 0, 1 | {mean:.1f} ± {deviation:.1f} |" in text
    assert f"| 1 | {auc['c']:.1f} |" in text and "dropout: 0.0 → 0.1" in text
    for row in rows:
        assert row["trained_commit"] == row["commit"] and row["trained_device"].startswith("cpu")
    assert "side by side" not in text  # two scores only
    assert command("eval", "--exp", "c", "--checkpoint", "last") == 0
    content = json.loads((workspace / "checkpoints/c/results.json").read_text())
    unfinished = content | {"epochs": 9, "epoch": 5, "stages": {"udm": 3, "ndm": 2, "refine": 0}}
    (workspace / "checkpoints/c/results.json").write_text(json.dumps(unfinished))
    assert command("make_tables", "c", module=make_tables) == 0
    assert "| 3 + 2 + 0, of 9 in all |" in (workspace / "results" / "tables.md").read_text()
    assert command("make_tables", "d", module=make_tables) == 1
    (workspace / "checkpoints/c/results.json").write_text(json.dumps({"trained": None}))
    assert command("make_tables", "c", module=make_tables) == 1
    assert "checkpoints/c/results.json: of an older version" in capsys.readouterr().err


def test_many_scores_stand_side_by_side():
    common = dict.fromkeys(make_tables.FIELDS, "") | {
        "config": "ddad",
        "seed": "0",
        "epochs": "3",
        "checkpoint": "best",
        "precision": "fp32",
    }
    rows = [
        common | {"split": split, "score": score, "auc": auc}
        for split in ("test", "test, twins removed")
        for score, auc in (("rec", "0.5"), ("inter", "0.75"), ("ndm (one network)", "0.6"))
    ]
    rows += [{**row, "auc": "0.8"} for row in rows if "network" in row["score"]]
    text = "\n".join(make_tables.side_by_side(rows))
    assert "| configuration | epochs | split | seeds | in | inter | ndm (one network) | rec |" in text
    assert "| ddad | 3 | test | 0 | fp32 | 75.0 | 70.0 ± 14.1 | 50.0 |" in text
