"""The pages keep their word: links lead where they say, quoted code is the repository's own, the
example runs, and each equation stands in the function it names, proved by the test it names.

    python tests/test_readme.py        puts line numbers and the lengths of files right
"""
import ast
import doctest
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PROOFS = ROOT / "tests" / "README.md"
PAGES = [README, PROOFS, ROOT / "minidiff/pusht/README.md", ROOT / "minidiff/pusht/RESULTS.md"]
LINK = re.compile(r"\[`(\w+)`\]\(([\w/.]+\.py)(?:#L\d+)?\)")
LENGTH = re.compile(r"^(\| \[[^|]+\]\(([\w/]+\.py)\) \| [^|]+ \|) \d+ \| \d+ \|$", re.M)
LINES_A_MINUTE = 10


def text(page):
    return page.read_text(encoding="utf-8")


def definition(name, path):
    """The function or class of that name in a file, or None."""
    for node in ast.walk(ast.parse(text(path))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return node
    return None


def corrected(page):
    """A page's text with the line number of every linked function put right."""
    def link(match):
        name, path = match[1], match[2]
        node = definition(name, page.parent / path)
        return f"[`{name}`]({path}#L{node.lineno if node else 0})"
    return LINK.sub(link, text(page))


def measured(page):
    """A page's text in which minutes (to the nearest five) and lines of files are right."""
    def length(match):
        lines = text(page.parent / match[2]).count("\n")
        minutes = 5 * max(1, round(lines / LINES_A_MINUTE / 5))
        return f"{match[1]} {minutes} | {lines} |"
    return LENGTH.sub(length, text(page))


def rows(page):
    """A table of equations: (number, the cells after the equation, each as links)."""
    found = re.findall(r"^\| (\d+|–) \| .+? \| (\[`.+) \|$", text(page), re.M)
    return [(number, [LINK.findall(cell) for cell in cells.split(" | ")])
            for number, cells in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_what_it_names(page):
    assert corrected(page) == text(page), "run: python tests/test_readme.py"
    assert "#L0)" not in text(page), "a link names a function that is not there"
    for path in re.findall(r"\]\((?!https?:)([\w./-]+?)(?:#[\w-]+)?\)", text(page)):
        assert (page.parent / path).exists(), path
    for path in re.findall(r"`((?:minidiff|tests)/[\w./]+)`", text(page)):
        assert (ROOT / path).exists(), path
    for path, anchor in re.findall(r"\]\((?!https?:)([\w./-]*)#((?!L\d)[\w-]+)\)", text(page)):
        assert anchor in anchors(page.parent / path if path else page), f"{path}#{anchor}"


def anchors(page):
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.+)$", text(page), re.M)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_the_readme_is_read_in_one_sitting():
    lines = text(README).splitlines()
    assert len(lines) <= 170 and README.stat().st_size <= 16_000
    assert lines.index(next(line for line in lines if line.startswith("$$"))) < 60
    assert lines.index("```python") < 80
    table = text(README).partition("<!-- table: readme -->")[2].partition("<!-- end -->")[0]
    assert len(re.findall(r"^\|", table, re.M)) <= 2 + 8


def test_the_reading_path_says_how_long_each_of_its_files_is():
    assert len(LENGTH.findall(text(README))) == 10
    assert measured(README) == text(README), "run: python tests/test_readme.py"


@pytest.mark.parametrize("page", [README, PROOFS], ids=["README", "tests/README"])
def test_every_equation_has_a_function_that_cites_it(page):
    table = rows(page)
    assert {str(n) for n in range(1, 15)} <= {number for number, _ in table}
    for number, (functions, *_) in table:
        assert functions, f"equation {number}"
        for name, path in functions:
            node = definition(name, page.parent / path)
            if number != "–":
                assert f"Eq. {number}:" in ast.get_docstring(node), f"{name} cites no eq. {number}"


def test_every_equation_has_a_proof():
    for number, (_, proofs) in rows(PROOFS):
        assert proofs, f"equation {number}"
        for name, path in proofs:
            assert path.startswith("test_") and name.startswith("test_"), name


def occurs(code, sources):
    """Whether a source has these lines, at the depth of a module, a function or a loop."""
    indented = [textwrap.indent(code, " " * columns) for columns in (0, 4, 8)]
    return any(lines in source for source in sources for lines in indented)


def test_the_loops_that_the_readme_quotes_are_the_code():
    package = [text(path) for path in (ROOT / "minidiff").glob("*.py")]
    blocks = re.findall(r"```python\n(.*?)```", text(README), re.S)
    quoted = [block for block in blocks if ">>>" not in block and "TASK" not in block]
    assert len(quoted) == 2
    for block in quoted:
        assert occurs(block, package), block


def test_the_lines_that_the_proofs_quote_are_those_of_the_tests():
    tests = [text(path) for path in (ROOT / "tests").rglob("*.py")]
    section = text(PROOFS).partition("## How a proof works")[2].partition("\n## ")[0]
    blocks = re.findall(r"^ +```python\n(.*?)^ +```", section, re.M | re.S)
    lines = [code for code in re.findall(r"`([^`\n]+)`", section) if re.search(r"[\[\"]|==", code)]
    assert len(blocks) == 1 and len(lines) == 7
    for code in [*map(textwrap.dedent, blocks), *lines]:
        assert occurs(code, tests), code


@pytest.mark.slow
def test_the_example_of_the_readme_runs():
    example = re.search(r"```python\n(>>> .*?)```", text(README), re.S)[1]
    parsed = doctest.DocTestParser().get_doctest(example, {}, "README.md", None, 0)
    results = doctest.DocTestRunner().run(parsed)
    assert results.attempted > 8 and results.failed == 0


@pytest.mark.slow
def test_the_task_of_the_readme_is_trained_and_scored_by_its_own_commands(tmp_path):
    from conftest import run  # here: as a script this file needs no minidiff
    task = re.search(r"```python\n# (reach.py)\n(.*?)```", text(README), re.S)
    (tmp_path / task[1]).write_text(task[2], encoding="utf-8")
    section = text(README).partition("## Your own task")[2].partition("\n## ")[0]
    assert len(section.strip().splitlines()) <= 25
    train, score = re.findall(r"`python (\w+\.py .*?)`", section)[:2]
    small = "--steps 300 --width 16 --T 10 --score-episodes 20".split()
    done = run(tmp_path, *train.split(), *small)
    assert done.returncode == 0 and "success 100.0%" in done.stdout, done.stderr
    done = run(tmp_path, *score.split(), "--episodes", "20")
    assert done.returncode == 0 and "success 100.0%" in done.stdout, done.stderr


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(corrected(page), encoding="utf-8")
        page.write_text(measured(page), encoding="utf-8")
