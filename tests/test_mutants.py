"""The suite finds defects of published code: one here, all by `python tests/mutants.py`."""
import re

import mutants
import pytest

SOURCE = re.compile(r"[\w.-]+/[\w.-]+(#\d+|@[0-9a-f]{7})|.+ \d{4}, arXiv \d{4}\.\d{5}")


def test_every_file_with_defects_has_tests():
    assert set(mutants.DEFECTS) == set(mutants.TESTS)
    for tests in mutants.TESTS.values():
        assert all((mutants.ROOT / "tests" / f"{test}.py").exists() for test in tests)


@pytest.mark.parametrize("name", mutants.DEFECTS)
def test_every_defect_has_a_source_and_one_place(name):
    text = mutants.source(mutants.ROOT, name).read_text(encoding="utf-8")
    for _, defect in mutants.chosen([name]):
        assert SOURCE.fullmatch(defect.source) and defect.wrong
        defective = mutants.planted(text, defect)
        assert defective != text
        compile(defective, name, "exec")


@pytest.mark.slow
def test_a_planted_defect_is_found():
    assert mutants.hunt(mutants.chosen(["optim"])[:1]) == []
