"""The suite finds planted defects: a sample of tests/mutants.py, another one each time the list changes."""
import pytest
from mutants import MUTANTS, hunt


def test_there_are_enough_mutants_of_every_file_that_the_method_consists_of():
    assert sum(map(len, MUTANTS.values())) >= 60
    assert set(MUTANTS) >= {"tensor", "layers", "nn", "optim", "diffusion", "samplers"}


@pytest.mark.slow
def test_planted_defects_are_found():
    assert hunt(every=20) == []
