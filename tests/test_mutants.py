"""The suite finds planted defects: a sample of tests/mutants.py, another one as it changes."""
import mutants
import pytest


def test_there_are_enough_defects_of_every_file_of_the_method():
    assert len(mutants.chosen()) >= 200
    method = {"tensor", "layers", "nn", "optim", "diffusion", "demos", "training", "policy"}
    assert set(mutants.MUTANTS) >= method | {"beyond/samplers", "beyond/guidance"}
    assert set(mutants.MUTANTS) == set(mutants.TESTS)


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_every_defect_has_one_place_and_leaves_a_program(name):
    text = mutants.source(mutants.ROOT, name).read_text(encoding="utf-8")
    for _, old, new in mutants.chosen([name]):
        defective = mutants.planted(text, old, new)
        assert defective != text
        compile(defective, name, "exec")


@pytest.mark.slow
def test_planted_defects_are_found():
    assert mutants.hunt(every=100) == []
