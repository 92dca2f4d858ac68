"""CheXpert by disease: labels from the CSV and from diseases.txt, and the table of an evaluation."""

import csv
import re

import numpy as np
import pytest
import torch
from test_data import write_image
from tiny import TINY, command

import configs
from dataloader import DataError, Split, build_dataset
from dataloader.chexpert import DISEASES
from evaluation import by_disease
from evaluation.scoring import Scored
from experiments.folder import Experiment
from tools import paper_table


def chexpert(root):
    return build_dataset(configs.build("simsid_chexpert", ["image_size=64", "train_normal_fraction=1"]), str(root))


def make_csv(root, patients=60):
    """The official CSV: odd patients have no finding, even ones Edema or Fracture, and an uncertain Pneumonia."""
    columns = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", *DISEASES, "Support Devices"]
    rows = []
    for p in range(patients):
        path = f"CheXpert-v1.0-small/train/patient{p:05d}/study1/view1_frontal.jpg"
        write_image(root / path.split("/", 1)[1], 40 + 3 * p, (48, 48))
        row = dict.fromkeys(columns, "") | {"Path": path, "Frontal/Lateral": "Frontal", "AP/PA": "PA"}
        if p % 2:
            row["No Finding"] = "1.0"
        else:
            row |= {"Fracture" if p % 4 else "Edema": "1.0", "Pneumonia": "-1.0", "Support Devices": "1.0"}
        rows.append(row)
    with open(root / "train.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def make_folders(root, diseases="a.png/Edema/pleural effusion\nabnormal_256/b.png/Fracture/Support Devices\n"):
    for split in ("train_256_pa", "val_256_pa", "our_test_256_pa"):
        write_image(root / split / "normal_256" / "n.png", size=(48, 48))
        for name in ("a.png", "b.png", "c.png"):
            write_image(root / split / "abnormal_256" / name, size=(48, 48))
    (root / "our_test_256_pa" / "diseases.txt").write_text(diseases)


def test_the_csv_marks_diseases(tmp_path):
    make_csv(tmp_path)
    for items in chexpert(tmp_path).items.values():
        for item in items:
            patient = int(re.search(r"patient(\d+)", str(item.path))[1])
            assert item.diseases == (() if patient % 2 else ("Fracture",) if patient % 4 else ("Edema",))


def test_diseases_txt_marks_them_in_the_folder_layout(tmp_path):
    make_folders(tmp_path)
    data = chexpert(tmp_path)
    test = data.split("test")
    assert test.diseases == [(), ("Edema", "Pleural Effusion"), ("Fracture",), ()]
    assert not any(data.split("val").diseases)
    (tmp_path / "our_test_256_pa" / "diseases.txt").rename(tmp_path / "diseases.txt")  # for all splits
    assert chexpert(tmp_path).split("val").diseases == test.diseases


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png/Edma", r"diseases.txt, line 1: unknown disease 'Edma'; known are Enlarged"),
        ("Edema/Fracture", r"diseases.txt, line 1: must be 'file/disease"),
        ("p1/a.png/Edema\n\np2/a.png/Fracture", r"diseases.txt, line 3: a.png is listed twice"),
    ],
)
def test_bad_lines_of_diseases_txt_are_named(tmp_path, line, message):
    make_folders(tmp_path, line)
    with pytest.raises(DataError, match=message):
        _ = chexpert(tmp_path).items


def test_figures_by_hand():
    split = Split(
        images=torch.zeros(6, 1, 1), labels=torch.tensor([0, 0, 1, 1, 1, 1]), kinds=["x"] * 6, ids=["x"] * 6,
        diseases=[(), (), ("Edema",), ("Edema", "Fracture"), ("Fracture",), ()],
    )  # fmt: skip
    scored = Scored({"s": np.array([1.0, 3.0, 2.0, 4.0, 5.0, 9.0])}, {}, {}, None)
    edema, pneumonia = by_disease.figures(split, scored, ("Edema", "Pneumonia"))
    assert (edema["images"], edema["auc"]) == (2, 3 / 4)  # 2 > 1; 4 > 1 and 3
    assert edema["auc_others_as_normal"] == 3 / 8  # of 2 against 1, 3, 5, 9 and of 4 against the same
    assert edema["average_precision"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert (pneumonia["images"], pneumonia["auc"], pneumonia["auc_others_as_normal"]) == (0, None, None)
    split.diseases = [()] * 6
    with pytest.raises(DataError, match="No evaluated image is labelled with a disease"):
        by_disease.figures(split, scored, ("Edema",))


def test_asking_for_what_does_not_exist(tmp_path):
    make_folders(tmp_path)
    data = chexpert(tmp_path)
    assert by_disease.wanted("disease", data) == DISEASES and len(DISEASES) == 12
    assert by_disease.wanted("disease=lung lesion", data) == ("Lung Lesion",)
    with pytest.raises(DataError, match="unknown disease. Did you mean 'Pneumothorax'"):
        by_disease.wanted("disease=Pneumotorax", data)
    with pytest.raises(DataError, match="write --by disease"):
        by_disease.wanted("patient", data)
    with pytest.raises(DataError, match="DigitAnatomy does not label"):
        by_disease.wanted("disease", build_dataset(configs.build("digit_quick")))


def test_a_table_in_one_evaluation(workspace, capsys):
    make_csv(workspace / "data" / "chexpert")
    tiny = [o for o in TINY["simsid"][1] if not o.startswith(("dataset", "digit", "epochs"))]
    tiny += ["epochs=1", "train_normal_fraction=0.9"]
    assert command("main", "--exp", "c", "--config", "simsid_chexpert", "--device", "cpu", "--set", *tiny) == 0
    assert command("eval", "--exp", "c", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert all(disease in shown for disease in DISEASES) and "other diseases as normal" in shown
    with open(workspace / "checkpoints" / "c" / "by_disease.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and {row["score"] for row in rows} == {"discriminator", "reconstruction"}
    assert sum(int(row["images"]) for row in rows if row["score"] == "discriminator") == 3
    main = [row for row in rows if row["score"] == "discriminator" and row["auc"]]
    assert paper_table.main_row(Experiment("c"))["kind"] == {row["disease"]: float(row["auc"]) for row in main} != {}
    assert command("eval", "--exp", "c", "--device", "cpu", "--by", "disease=Edema") == 0
    assert len((workspace / "checkpoints" / "c" / "by_disease.csv").read_text().splitlines()) == 3
    assert command("eval", "--exp", "c", "--device", "cpu", "--by", "disease=Flu") == 1
    assert "unknown disease" in capsys.readouterr().err
