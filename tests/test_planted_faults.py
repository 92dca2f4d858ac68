"""That every planted fault still has a place, and that its tests are there."""

import re

import planted_faults
import pytest
from conftest import ROOT


@pytest.mark.parametrize("planted", planted_faults.FAULTS, ids=lambda planted: planted.what)
def test_a_planted_fault_applies_and_its_tests_exist(planted):
    text = (ROOT / planted.file).read_text(encoding="utf-8")
    assert text.count(planted.old) == planted.count and planted.new != planted.old
    for test in planted.tests:
        file, name = test.split("::")
        assert re.search(
            rf"^def {re.escape(name.partition('[')[0])}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE
        )
