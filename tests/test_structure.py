"""The two storeys: the method knows nothing of the task and needs NumPy alone, and imports run one way."""
import ast
import subprocess
import sys

import pytest
from conftest import ROOT

METHOD = sorted((ROOT / "minidiff").glob("*.py"))
# each file imports from lines above it only
STOREYS = ["__init__", "tensor", "layers", "nn optim", "diffusion", "samplers guidance baselines", "demos checkpoint progress",
           "policy __main__"]
TASK_STOREYS = ["__init__", "env", "features draw disturb", "chart expert live", "candidates", "rollout",
                "collect modes watch record", "gallery"]
STOREY = {name: height for height, names in enumerate(STOREYS) for name in names.split()}
TASK_STOREY = {name: height for height, names in enumerate(TASK_STOREYS) for name in names.split()}


def imports(path, top_level_only=False):
    """The absolute names of all modules that a file imports, `from . import x` as package.x."""
    package = ".".join(path.relative_to(ROOT).parts[:-1])
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[:len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            for alias in node.names:  # a module of a package, or a name of its own
                is_module = (ROOT / module.replace(".", "/") / f"{alias.name}.py").exists()
                yield f"{module}.{alias.name}" if is_module else module


def names(paths):
    return [path.stem for path in paths]


@pytest.mark.parametrize("path", METHOD, ids=names(METHOD))
def test_the_method_imports_numpy_alone_and_nothing_of_the_task(path):
    for name in imports(path):
        top = name.partition(".")[0]
        optional = path.stem == "demos" and top == "zarr"  # imported only where someone brings zarr files
        assert top in sys.stdlib_module_names | {"numpy", "minidiff"} or optional, name
        assert not name.startswith("minidiff.pusht"), name
    assert "zarr" not in imports(path, top_level_only=True)


@pytest.mark.parametrize("path", METHOD, ids=names(METHOD))
def test_imports_within_the_method_run_one_way(path):
    for name in imports(path):
        if name.startswith("minidiff."):
            assert STOREY[name.split(".")[1]] < STOREY[path.stem], f"{path.stem} imports {name}"


TASK = sorted((ROOT / "minidiff" / "pusht").glob("*.py"))


@pytest.mark.parametrize("path", TASK, ids=names(TASK))
def test_imports_within_the_task_run_one_way(path):
    """When a module is loaded, that is: env.render() calls draw, which knows env."""
    for name in imports(path, top_level_only=True):
        if name.startswith("minidiff.pusht."):
            assert TASK_STOREY[name.split(".")[2]] < TASK_STOREY[path.stem], f"{path.stem} imports {name}"


def test_importing_the_method_loads_neither_pymunk_nor_pygame():
    program = (f"import sys; from minidiff import {', '.join(p.stem for p in METHOD if p.stem != '__init__')}; "
               "print([name for name in ('pymunk', 'pygame', 'zarr', 'minidiff.pusht') if name in sys.modules])")
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stderr
