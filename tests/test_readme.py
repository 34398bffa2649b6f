"""The README keeps its word: each equation stands in the function it names, at the line it names, proved by that test; and
files are as long as it says.

    python tests/test_readme.py        puts the line numbers right
"""
import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
LINK = re.compile(r"\[`(\w+)`\]\(([\w/]+\.py)(?:#L\d+)?\)")
LENGTH = re.compile(r"^\| \[([\w/]+\.py)\]\(\1\) \| \d+ \|", re.M)


def line_of(name, path):
    """The line on which a function or class of that name begins, or None."""
    nodes = ast.walk(ast.parse((ROOT / path).read_text()))
    return next((n.lineno for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == name), None)


def corrected(text):
    """The README's text with the line number of every linked function, and the length of every listed file, put right."""
    text = LENGTH.sub(lambda row: f"| [{row[1]}]({row[1]}) | {len((ROOT / row[1]).read_text().splitlines())} |", text)
    return LINK.sub(lambda link: f"[`{link[1]}`]({link[2]}#L{line_of(link[1], link[2])})", text)


def equations():
    """Rows of the equation table: number -> (links to functions, links to tests)."""
    section = README.read_text(encoding="utf-8").partition("## The equations")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+|–) \| (.+?) \| (.+?) \| (.+?) \|$", section, re.M)
    return [(number, LINK.findall(functions), LINK.findall(tests)) for number, _, functions, tests in rows]


def test_every_link_to_a_function_leads_to_its_line_and_every_file_has_its_length():
    text = README.read_text(encoding="utf-8")
    assert LINK.findall(text) and set(LENGTH.findall(text)) >= {f"minidiff/{p.name}" for p in (ROOT / "minidiff").glob("[a-z]*.py")}
    assert corrected(text) == text, "run: python tests/test_readme.py"


def test_every_equation_has_a_function_and_a_test():
    rows = equations()
    assert {str(n) for n in range(1, 15)} <= {number for number, _, _ in rows}
    for number, functions, tests in rows:
        assert functions and tests, f"equation {number}"
        assert all(path.startswith("minidiff/") for _, path in functions)
        assert all(path.startswith("tests/test_") and name.startswith("test_") for name, path in tests)


def test_the_functions_of_the_table_cite_their_equation():
    for number, functions, _ in equations():
        for name, path in functions:
            if number != "–" and path.endswith("diffusion.py"):
                node = next(n for n in ast.walk(ast.parse((ROOT / path).read_text()))
                            if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == name)
                assert f"Eq. {number}:" in ast.get_docstring(node), f"{name} does not cite equation {number}"


def test_the_files_that_the_readme_names_exist():
    text = README.read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([\w./-]+?)(?:#L\d+)?\)", text) + re.findall(r"`((?:minidiff|tests)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path


if __name__ == "__main__":
    README.write_text(corrected(README.read_text(encoding="utf-8")), encoding="utf-8")
