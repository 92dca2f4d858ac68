"""Figures of pixel maps against masks: by hand, and against their definitions written plainly."""

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, roc_auc_score

from dataloader import Split
from evaluation import localisation, metrics, report
from evaluation.scoring import Scored

# two regions in an image of 4 × 5: four pixels, all found before any false one, and a single one found last of all
MASKS = np.zeros((1, 4, 5), bool)
MASKS[0, :2, :2] = MASKS[0, 3, 4] = True
MAPS = np.arange(20.0).reshape(1, 4, 5)
MAPS[0, :2, :2] = 30
MAPS[0, 3, 4] = -1


def test_figures_are_worked_out_by_hand():
    found = localisation.figures(MASKS, MAPS, normals_threshold=25)
    assert found["pixel_auc"] == pytest.approx(4 / 5)  # four of five marked pixels above all 15 others
    assert found["aupro"] == pytest.approx(1 / 2)  # one of two regions, and nothing else up to 0.3
    assert found["pixel_average_precision"] == pytest.approx(4 / 5 + 1 / 5 * 5 / 20)
    assert found["dice_oracle"] == pytest.approx(2 * 4 / (4 + 5)) == found["dice_at_normals_threshold"]
    assert localisation.figures(MASKS, MAPS, -5)["dice_at_normals_threshold"] == pytest.approx(2 * 5 / (20 + 5))
    assert localisation.figures(MASKS, MAPS, 31)["dice_at_normals_threshold"] == 0
    assert "dice_at_normals_threshold" not in localisation.figures(MASKS, MAPS)


def test_a_map_that_is_the_mask_is_perfect_and_a_constant_one_a_guess():
    assert set(localisation.figures(MASKS, MASKS.astype(float), 0.5).values()) == {1.0}
    found = localisation.figures(MASKS, np.ones(MASKS.shape))
    assert found["pixel_auc"] == pytest.approx(0.5) and found["aupro"] == pytest.approx(0.15)  # 0.3² / 2 / 0.3
    assert found["dice_oracle"] == pytest.approx(10 / 25)


def plain_aupro(masks, maps):
    """Every threshold on its own, every region on its own."""
    regions = []
    for image, mask in enumerate(masks):
        numbers, count = label(mask, np.ones((3, 3)))
        regions += [(image, numbers == number + 1) for number in range(count)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        called = maps >= threshold
        overlap = np.mean([called[image][region].mean() for image, region in regions])
        points.append((called[~masks].mean(), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x0 < 0.3 and x1 > x0:
            end = min(x1, 0.3)
            area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / 0.3


@pytest.mark.parametrize("seed", range(6))
def test_figures_are_those_of_the_definitions(seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((4, 12, 13)) < 0.1
    masks[0] = False  # a normal image
    maps = (rng.normal(size=masks.shape) + 0.8 * masks).round(seed % 3).astype(np.float32)  # many ties, few, none
    found = localisation.figures(masks, maps, 0.5)
    marked, values = masks.ravel(), maps.ravel()
    assert found["aupro"] == pytest.approx(plain_aupro(masks, maps), rel=1e-9)
    assert abs(found["aupro"] - found["pixel_auc"]) > 0.05
    assert found["pixel_auc"] == pytest.approx(roc_auc_score(marked, values), rel=1e-9)
    assert found["pixel_average_precision"] == pytest.approx(average_precision_score(marked, values), rel=1e-9)
    dice = {t: 2 * (marked & (values >= t)).sum() / (marked.sum() + (values >= t).sum()) for t in (*values, 0.5)}
    assert found["dice_oracle"] == pytest.approx(max(dice.values()))
    assert found["dice_at_normals_threshold"] == pytest.approx(dice[0.5])


def test_a_vertical_step_at_the_end_of_the_range_is_not_counted():
    # 10 normal pixels: 3 of them, then the second region, then the rest
    masks = np.zeros((1, 1, 13), bool)
    masks[0, 0, [0, 6]] = True
    maps = -np.arange(13.0).reshape(1, 1, 13)
    maps[0, 0, [2, 4]] = maps[0, 0, 3]  # three normal pixels with one value
    masks[0, 0, 8] = True
    assert localisation.figures(masks, maps)["aupro"] == pytest.approx(plain_aupro(masks, maps))


def test_pixels_that_touch_at_a_corner_are_of_one_region():
    masks = np.eye(6, dtype=bool)[None]
    weights = localisation.region_weights(masks)
    assert weights[masks] == pytest.approx(1 / 6) and weights[~masks].sum() == 0
    assert localisation.region_weights(masks.repeat(3, 0)).sum() == pytest.approx(1)
    assert localisation.region_weights(MASKS)[0, 3, 4] == pytest.approx(1 / 2)


def split_of(masks, labels):
    n = len(labels)
    images = torch.zeros(masks.shape, dtype=torch.uint8)
    return Split(images, torch.tensor(labels), ["x"] * n, [str(i) for i in range(n)], torch.from_numpy(masks))


def test_what_is_left_out_and_where_the_threshold_is_from():
    masks = np.concatenate([MASKS, np.zeros_like(MASKS), np.zeros_like(MASKS)])
    maps = np.concatenate([MAPS, MAPS * 0, MAPS * 0 + 99])  # the last is anomalous, without a mask
    split = split_of(masks, [1, 0, 1])
    scored = Scored({"a": np.array([3.0, 1.0, 2.0])}, maps={"a": maps})
    own = Scored({"a": np.arange(30.0)}, maps={"a": np.arange(20.0).reshape(1, 4, 5)})
    found = localisation.measure(split, scored, own, 0.1)
    assert found["pixel_images"] == {"normal": 1, "anomalous": 1}
    # of 20 pixels 2 are above 17, and 0.1 · 21 is 2
    assert found["localisation"]["a"] == localisation.figures(masks[:2], maps[:2], np.nextafter(18.0, np.inf))
    assert "dice_at_normals_threshold" not in localisation.measure(split, scored, None, 0.1)["localisation"]["a"]
    assert localisation.measure(split_of(masks * False, [1, 0, 1]), scored, own, 0.1) == {}
    assert localisation.measure(split, Scored(scored.image), own, 0.1) == {}
    with pytest.raises(metrics.MetricError, match="1 of 40 scores of pixels of a map are not finite"):
        maps[0, 0, 0] = np.nan
        localisation.measure(split, scored, own, 0.1)


def test_the_summary_shows_them():
    masks = np.concatenate([MASKS, np.zeros_like(MASKS), np.zeros_like(MASKS)])
    results = {"classes": {"normal": 1, "anomalous": 2}}
    results |= localisation.measure(
        split_of(masks, [1, 0, 1]), Scored({}, maps={"a": np.concatenate([MAPS] * 3)}), None, 0.05
    )
    (line,) = report.pixel_lines(results)
    assert "map of a, %: pixel AUC" in line and "AUPRO" in line and "oracle Dice" in line
    assert "(of 1 of 2 anomalous images: the others have no mask, or none that a pixel is left of)" in line
