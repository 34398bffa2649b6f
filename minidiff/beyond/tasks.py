"""A task by its name: a Python file, a module, or an environment of Gymnasium.

    load("reach.py")           the Task that stands in it as TASK
    load("mypackage.reach")    likewise
    load("Pendulum-v1")        any environment of Gymnasium whose actions are a Box of floats
"""
import functools
import importlib
import pickle
import re
import sys
from pathlib import Path

import numpy as np

from .. import stopping
from ..demos import Task
from ..training import Config


def load(name):
    """The Task of that name. The code of its file or module is run.

    ValueError where it has no Task, or one that cannot be used; FileNotFoundError.
    """
    if Path(name).is_file() and not name.endswith(".py"):
        raise ValueError(f"{name}: the name of a task's file must end in .py")
    if name.endswith(".py"):
        module, stem = from_file(Path(name)), Path(name).stem
    elif re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name):
        module, stem = imported(name, name), name.rpartition(".")[2]
    else:
        return of_gymnasium(name)
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise ValueError(f"{name}: there is no TASK = minidiff.demos.Task(...) in it")
    task = task._replace(name=task.name or stem)
    if isinstance(task.demos, (str, Path)):  # relative to the task's file
        task = task._replace(demos=Path(module.__file__).parent / task.demos)
    try:
        Config(**task.recipe)
        low, high = task.score_range or (0, 1)
        if not -np.inf < low < high < np.inf:
            raise ValueError(f"score_range ({low}, {high}) must be finite, the lower number first")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: the recipe or score_range of its TASK: {error}") from None
    try:
        pickle.dumps(task)
    except Exception as error:
        raise ValueError(f"{name}: its TASK cannot be sent to other processes, which run the "
                         "episodes: write its functions as def at the top of the file, not as "
                         f"lambda ({error})") from None
    return task


def from_file(path):
    """The module in a file. It is imported by a name under which other processes find it, too."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of a task")
    if "." in path.stem:
        raise ValueError(f"{path}: the name of a task's file has one dot, that of .py")
    folder, name = path.absolute().parent, path.stem
    while (folder / "__init__.py").exists():  # it is part of a package
        folder, name = folder.parent, f"{folder.name}.{name}"
    sys.path.append(str(folder))
    module = imported(name, path)
    if not (module.__file__ and Path(module.__file__).samefile(path)):
        raise ValueError(f"{path}: another module has the name '{name}' ({module.__file__}): give "
                         "the file another name")
    return module


def imported(module, name):
    """Import a module. Any error becomes a ValueError that calls the module `name`."""
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ValueError(f"{name}: cannot be imported: {stopping.located(error)}") from error


def of_gymnasium(name):
    """The Task of an environment of Gymnasium.

    The features are all numbers that it observes; actions are clipped to the limits of its space.
    The score of an episode is its return, the sum of its rewards. ValueError where there is no such
    environment, or its actions are not a Box of floats.
    """
    try:
        import gymnasium
    except ImportError:
        raise ValueError(f"'{name}' is no file and no module, and for an environment of Gymnasium "
                         "one more package is needed: pip install 'minidiff[gymnasium]'") from None
    try:
        env = gymnasium.make(name)
    except Exception as error:
        raise ValueError(f"{name}: gymnasium.make: {type(error).__name__}: {error}") from None
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or space.dtype.kind != "f":
        raise ValueError(f"{name}: its actions are {space}; only numbers can be planned, a Box of "
                         "floats")
    pictures = "rgb_array" in env.metadata.get("render_modes", ())
    make = functools.partial(made, name, render_mode="rgb_array" if pictures else None)
    return Task(re.sub("[/:]", "-", name), make_env=make,
                max_steps=env.spec.max_episode_steps or Task().max_steps)


def made(name, **options):
    """That environment, wrapped so that observations and actions are rows of numbers."""
    import gymnasium
    env = gymnasium.wrappers.FlattenObservation(gymnasium.make(name, **options))
    within = functools.partial(fitted, env.action_space)
    return gymnasium.wrappers.TransformAction(env, within, None)


def fitted(space, action):
    """A row of numbers as an action of that space, clipped to its limits."""
    return np.clip(np.reshape(action, space.shape), space.low, space.high).astype(space.dtype)
