"""The layout: the path needs NumPy alone and nothing that lies below it; imports run one way."""
import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT

PACKAGE = ROOT / "minidiff"
FILES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix()
               for path in PACKAGE.rglob("*.py"))
PATH = [name for name in FILES if "/" not in name]
TASK = [name for name in FILES if name.startswith("pusht/")]
SCRIPTS = ["train", "eval"]

# each file imports, when it is loaded, from lines above its own only
LAYERS = """
__init__
tensor
progress
layers stopping folders
nn optim checkpoint
diffusion demos
training
policy
__main__ wall
beyond/samplers beyond/guidance beyond/realtime beyond/baselines beyond/formats beyond/tasks
beyond/__init__
beyond/options
scoring/__init__ scoring/scores scoring/workers
scoring/rollout scoring/cluster
pusht/__init__ pusht/data/__init__ pusht/study/__init__ pusht/view/__init__
pusht/geometry
pusht/features
pusht/env
pusht/estimate pusht/data/expert pusht/study/disturbances
pusht/study/candidates pusht/study/compare pusht/study/bound pusht/study/forks pusht/data/collect
pusht/study/rests pusht/view/player
pusht/view/drawing
pusht/view/charts pusht/view/films pusht/view/windows pusht/gym
pusht/view/scene
pusht/view/watch pusht/view/record
pusht/__main__
"""
HEIGHT = {name: height for height, line in enumerate(LAYERS.splitlines()) for name in line.split()}


def tree(name):
    folder = ROOT if name in SCRIPTS else PACKAGE
    return ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))


def imports(name, when_loaded=False):
    """(module, imported name) of all that a file imports; absolute names."""
    nodes = tree(name).body if when_loaded else ast.walk(tree(name))
    package = ["minidiff", *name.split("/")[:-1]]
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) + 1 - node.level] if node.level else []
            module = ".".join(above + ([node.module] if node.module else []))
            for alias in node.names:
                yield module, alias.name


def files(name, when_loaded=False):
    """The files of the package that a file imports."""
    for module, imported in imports(name, when_loaded):
        place = module.removeprefix("minidiff").strip(".").replace(".", "/")
        if not module.startswith("minidiff"):
            continue
        candidates = [f"{place}/{imported}".strip("/"), place, f"{place}/__init__".strip("/")]
        yield next(file for file in candidates if file in FILES)


def test_every_file_has_its_layer():
    assert sorted(HEIGHT) == FILES


@pytest.mark.parametrize("name", PATH)
def test_the_path_imports_numpy_and_the_path(name):
    for module, _ in imports(name):
        top = module.partition(".")[0]
        assert top in sys.stdlib_module_names | {"numpy", "minidiff"}, module
    assert set(files(name)) <= set(PATH)


@pytest.mark.parametrize("name", FILES)
def test_imports_run_one_way(name):
    for file in files(name, when_loaded=True):
        assert HEIGHT[file] < HEIGHT[name], f"{name} imports {file}"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("beyond/")])
def test_beyond_knows_nothing_of_the_task(name):
    assert not [file for file in files(name) if file.startswith("pusht/")]


@pytest.mark.parametrize("name", TASK + SCRIPTS)
def test_pygame_is_imported_by_the_view_alone(name):
    loaded = {module.partition(".")[0] for module, _ in imports(name)}
    assert "pygame" not in loaded or name.startswith("pusht/view/")
    if name.count("/") == 1 and name not in ("pusht/env", "pusht/gym"):
        assert not [file for file in files(name) if file.startswith("pusht/view/")]


@pytest.mark.parametrize("name", FILES + SCRIPTS)
def test_no_private_name_crosses_a_file(name):
    for module, imported in imports(name):
        private = [part for part in [*module.split("."), imported or ""]
                   if part.startswith("_") and not part.startswith("__")]
        assert not private, f"{name} imports {module}.{imported}"
    modules = {imported for module, imported in imports(name) if module.startswith("minidiff")}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            public = not node.attr.startswith("_") or node.attr.startswith("__")
            allowed = node.attr in ("_fields", "_asdict", "_replace")  # of a NamedTuple
            assert public or allowed or node.value.id not in modules, f"{name}: {node.attr}"


@pytest.mark.parametrize("name", FILES)
def test_nothing_in_the_package_runs_a_script_or_ends_the_program(name):
    loaded = {module for module, _ in imports(name)}
    assert "subprocess" not in loaded and "runpy" not in loaded
    calls = [ast.unparse(node.func) for node in ast.walk(tree(name)) if isinstance(node, ast.Call)]
    assert not {"os.system", "exec", "eval"} & set(calls)
    assert name.endswith(("__main__", "wall")) or not {"sys.exit", "exit", "quit"} & set(calls)
    for module in loaded:
        assert module.partition(".")[0] not in ("train", "eval", "tests", "conftest")


@pytest.mark.parametrize("name", FILES + SCRIPTS)
def test_no_dictionary_of_lambdas_is_a_switch(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Dict):
            assert not [value for value in node.values if isinstance(value, ast.Lambda)]


def test_the_name_of_a_test_has_fewer_than_70_characters():
    for path in (ROOT / "tests").rglob("test_*.py"):
        names = re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
        assert not [name for name in names if len(name) >= 70], path
        assert len(set(names)) == len(names), f"{path}: two tests of one name, of which one runs"


def test_the_oldest_packages_are_the_lower_bounds_that_pyproject_names():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    bounds = []
    for line in re.findall(r"^(?:dependencies|pusht|test) = .*", text, re.M):
        bounds += [f"{name}=={bound}.*" for name, bound in re.findall(r'"(\w+)>=([\d.]+)', line)]
    oldest = (ROOT / "tests" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    assert oldest[1:] == bounds and len(bounds) == 6


def loads(program):
    """Which of the packages below the path a program has loaded at its end."""
    asked = ("pymunk", "pygame", "zarr", "gymnasium", "pyarrow", "minidiff.beyond",
             "minidiff.pusht")
    program += f"; import sys; print([name for name in {asked} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stderr
    return ast.literal_eval(result.stdout)


def test_importing_the_path_loads_nothing_below_it():
    names = ", ".join(name for name in PATH if name != "__init__")
    assert loads(f"from minidiff import {names}") == []


@pytest.mark.slow
def test_features_and_a_training_set_need_numpy_alone():
    program = ("from minidiff import demos; from minidiff.pusht import EXPERT_DEMOS, features; "
               "data = demos.load(EXPERT_DEMOS, features.PUSHT); "
               "demos.training_set(data, features.PUSHT, 1, 16, 4.0)")
    assert loads(program) == ["minidiff.pusht"]
