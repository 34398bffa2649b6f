"""Every option of every command arrives: another value changes what the program does.

A row of the tables names an option, the arguments that stand before it, its other value, and what
must change. An option without a row fails, too.
"""
from minidiff import demos, policy
from minidiff.beyond import OBJECTIVES, load, tasks
from minidiff.beyond.options import FLAGS
from minidiff.pusht.data import collect
from minidiff.pusht.features import PUSHT
from minidiff.pusht.study import bound, compare, forks
from minidiff.pusht.view import films, record, watch, windows
from minidiff.scoring import rollout
from minidiff.scoring.scores import Episode
from minidiff.training import STATE, Config, Trainer

import argparse
import contextlib
import functools
import importlib
import os
import re
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT, play


class Enough(Exception):
    """All has been seen."""


def forget_tasks(patch):
    """Modules that were loaded from files of these names, and where they lay."""
    patch.setattr(sys, "path", [*sys.path])
    for name in ("wall_a", "wall_b"):
        patch.delitem(sys.modules, name, raising=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory, arrays):
    """A folder with runs, demonstrations, and a file that collect wrote."""
    folder = tmp_path_factory.mktemp("files")
    np.savez(folder / "d.npz", **arrays)
    np.savez(folder / "other.npz", **play(seed=1))
    data = demos.load(folder / "d.npz", PUSHT)
    for name, options in (("simple", {"drop_cond": 0.2}), ("hybrid", {}), ("mse", {})):
        objective = OBJECTIVES[name]
        config = Config(objective=name, outputs=objective.outputs, steps=8, width=8, blocks=1,
                        T=10, batch=16, ema=0.5, **options)
        trainer = Trainer(config, PUSHT, data, objective.loss)
        for _ in trainer:
            pass
        policy.save(folder / name / "checkpoint.npz", trainer, True, demos=[str(folder / "d.npz")])
    wall = (ROOT / "minidiff" / "wall.py").read_text(encoding="utf-8")
    (folder / "wall_a.py").write_text(wall)
    (folder / "wall_b.py").write_text(wall.replace("normal((0, -1), 0.05)", "normal((0, -1), 0.1)"))
    with pytest.MonkeyPatch.context() as patch:
        forget_tasks(patch)
        task = tasks.load(str(folder / "wall_a.py"))
    trainer = Trainer(Config(steps=1, width=8, blocks=1, T=10), task, demos.own(task))
    policy.save(folder / "wall" / "checkpoint.npz", trainer)
    more = {"noise": np.zeros_like(arrays["action"]), "seed": np.arange(4),
            "start": np.full((4, 5), np.nan)}
    recipe = ('{"samples": 3, "refine": 1, "stream": 5, "stop_coverage": 0.5, "max_steps": 50, '
              '"noise_every_other": 2.0}')
    np.savez(folder / "made.npz", **arrays, **more, recipe=np.array(recipe))
    return folder


def walk(env):
    """What is observed by an agent that runs in circles, until the episode is over."""
    state, _ = env.reset(seed=3)
    seen = [state]
    over = False
    while not over:
        angle = len(seen) / 5
        target = state[2:4] + 80 * np.array([np.cos(angle), np.sin(angle)])
        state, _, terminated, truncated, _ = env.step(np.clip(target, 0, 512))
        seen.append(state)
        over = terminated or truncated
    return np.array(seen)


def sampled(policy, noise_seed=0):
    """What a policy decides in one state."""
    first, _ = policy.task.make_env().reset(seed=1)
    obs = np.repeat(first[None, None], policy.obs_horizon, 1)
    return {"plan": policy.plan(obs, np.random.default_rng(noise_seed)),
            "carried out": policy.action_horizon}


# ---- what each command makes of its arguments, as a dictionary -----------------------------------

def train(patch, arguments):
    script = importlib.import_module("train")
    saves, seen = [], {}
    save = policy.save
    patch.setattr(policy, "save", lambda path, *given, **more: (
        saves.append(path), save(path, *given, **more)))
    patch.setattr(rollout, "score", lambda policy, seeds, name: (
        seen.update({name: seeds}), {"n": 0, "score": 0, "success": None})[1])
    patch.setattr(script, "draw", lambda *given: None)
    patch.setattr(sys, "argv", ["train.py", *arguments])
    script.main()
    run = saves[-1].parent
    made, made_for = policy.read(run / "checkpoint.npz", STATE)
    trained, _ = load(run, tasks.load("wall_a.py") if made_for["task"] == "wall" else PUSHT)
    return {"run": run, "weights": made["theta"], "averages": made["ema"],
            "steps": len(made["losses"]), "saves": len(saves), "scores": seen,
            "task": made_for["task"], "log": logged(run / "log.csv"),
            "plan": trained.pred_horizon, "seen": trained.obs_horizon}


def logged(path):
    """The last columns of a run's log.csv: score and success."""
    return [line.split(",")[-2:] for line in path.read_text().splitlines()]


def evaluate(patch, arguments):
    script = importlib.import_module("eval")
    seen = {"file": None}

    def evaluate(policy, seeds, executor, noise_seed, progress, make_env, decide, queue):
        seen.update(sampled(policy, noise_seed), seeds=list(seeds), workers=executor,
                    world=walk(make_env()) if policy.task is PUSHT else make_env().reset(seed=0)[0],
                    candidates=decide and decide.candidates,
                    budget=decide and decide.budget_ms, queue=queue)
        return [Episode(seed, 0.5, False, 3, 0.5, 1.0, 2.0) for seed in seeds]

    patch.setattr(script, "evaluate", evaluate)
    patch.setattr(script, "executor", lambda address, count, task: (
        contextlib.nullcontext(address or count)))
    patch.setattr(sys, "argv", ["eval.py", *arguments])
    script.main()
    if os.path.exists("scores.json"):
        seen["file"] = compare.read("scores.json")
    return seen


def film(patch, arguments):
    seen = {}

    def film(path, policy, seeds, noise_seed):
        seen.update(sampled(policy, noise_seed), path=path, seeds=list(seeds))

    patch.setattr(films, "film", film)
    films.main([*arguments, "film.png"])
    return seen


def played(patch, module, arguments):
    """The game that a command opens a window for."""
    games = []
    patch.setattr(windows, "run", games.append)
    module.main(arguments)
    return games[0]


def watched(patch, arguments):
    game = played(patch, watch, arguments)
    player = game.player
    first, second, *_ = [sampled(policy, player.noise_seed) for policy in game.policies.values()]
    return first | {"start": player.env.motion, "names": list(game.policies), "seed": game.seed,
                    "candidates": player.candidates, "second": second["plan"],
                    "last step": player.max_steps, "others": list(game.others)}


def recorded(patch, arguments):
    game = played(patch, record, [*arguments])
    return {"path": game.path, "seed": game.seed, "start": game.env.motion}


def forked(patch, arguments):
    seen = []
    def measured(move, states, shown):
        seen.append((move, states))
        return {"forks": 1.0}

    patch.setattr(forks, "measure", measured)
    patch.setattr(forks, "demonstrated", lambda *given, **more: None)
    patch.setattr(forks, "sentence", lambda *given: "")
    forks.main(arguments)
    (again, states), (policy, _) = seen
    return {"states": len(states), "first": states[0], "written": os.listdir(),
            "plans": [again.keywords["count"], policy.keywords["count"]],
            "policy": sampled(policy.args[0])["plan"]}


def bounded(patch, arguments):
    bound.main(arguments)
    return {"written": os.listdir()}


def compared(patch, arguments):
    compare.main(arguments)


def collected(patch, arguments):
    seen = {}

    def make(seeds, executor, part, starts=None, **options):
        seen.update(options, seeds=list(seeds), workers=executor, starts=starts)
        return collect.read("made.npz")[0]

    patch.setattr(collect, "make", make)
    patch.setattr(collect, "executor", lambda address, count: (
        contextlib.nullcontext(address or count)))
    patch.setattr(collect, "visited_by", lambda path, seeds, executor: f"those of {path}")
    before = set(os.listdir())
    collect.main(arguments)
    path, = set(os.listdir()) - before
    return seen | {"path": path, "episodes": len(np.load(path)["seed"])}


# ---- the options: arguments before it, the option with its other value, what changes -------------

LEARN = "--demos d.npz --width 8 --blocks 1 --T 6 --batch 16 --steps 4 --score-episodes 0"
TRAIN = [(LEARN, *row) for row in (
    ("--demos other.npz", "weights"),
    ("--drop-idle", "weights"),
    ("--net conv", "weights"),
    ("--width 16", "weights"),
    ("--blocks 2", "weights"),
    ("--no-precondition", "weights"),
    ("--obs-horizon 2", "seen"),
    ("--no-relabel", "weights"),
    ("--finish 1", "weights"),
    ("--pred-horizon 7", "plan"),
    ("--clip 0.5", "weights"),
    ("--schedule linear", "weights"),
    ("--T 7", "weights"),
    ("--weight uniform", "weights"),
    ("--drop-cond 0.5", "weights"),
    ("--steps 5", "steps"),
    ("--batch 17", "weights"),
    ("--lr 0.01", "weights"),
    ("--warmup 1", "weights"),
    ("--weight-decay 0.5", "weights"),
    ("--ema 0.1", "averages"),
    ("--seed 1", "weights"),
    ("--out mine", "run"),
    ("--save-every 1", "saves"),
    ("--score-episodes 2", "scores"))] + [
    (LEARN.replace("--T 6", ""), "--objective mse", "weights"),
    (LEARN.replace("--demos d.npz", ""), "--task wall_a.py", "task"),
    (LEARN.replace("episodes 0", "episodes 1"), "--score-every 2", "log"),
    ("--demos d.npz --batch 16 --steps 4 --score-episodes 0", "--init simple", "weights"),
    ("--score-episodes 0 --resume simple", "--steps 12", "steps"),
    ("--score-episodes 0 --resume simple", "--resume hybrid", "run")]

DDIM = "simple --sampler ddim --sampler-steps 3"
SAMPLING = [  # of eval.py, watch and film
    ("", "simple", "plan"),
    ("simple", "--sampler ddim", "plan"),
    ("simple --sampler ddim", "--sampler-steps 3", "plan"),
    ("simple --sampler flow", "--sampler-steps 3", "plan"),
    ("simple --sampler sde", "--sampler-steps 3", "plan"),
    ("simple --sampler langevin", "--sampler-steps 3", "plan"),
    (DDIM, "--ddim-eta 1", "plan"),
    ("hybrid", "--variance beta-tilde", "plan"),
    ("hybrid", "--variance beta", "plan"),
    ("simple --sampler langevin", "--langevin-repeats 1", "plan"),
    ("simple --sampler pc", "--langevin-repeats 2", "plan"),
    ("simple --sampler langevin", "--langevin-size 0.2", "plan"),
    ("simple --sampler pc", "--langevin-size 0.2", "plan"),
    ("mse", "--spread 0.5", "plan"),
    (DDIM, "--guidance 1", "plan"),
    (DDIM, "--temperature 1", "plan"),
    (DDIM, "--action-horizon 3", "carried out"),
    (DDIM, "--noise-seed 1", "plan")]

WALK = DDIM + " --max-steps 70"
EVAL = [(WALK, *row) for row in (
    ("--episodes 3", "seeds"),
    ("--seed 7", "seeds"),
    ("--max-steps 20", "world"),
    ("--seeding modern", "world"),
    ("--workers 1", "workers"),
    ("--scheduler tcp://here:1", "workers"),
    ("--candidates 3", "candidates"),
    ("--budget-ms 5", "budget"),
    ("--kick-block 30 0", "world"),
    ("--kick-block 0 30", "world"),
    ("--kick-agent 30", "world"),
    ("--obs-noise 1", "world"),
    ("--action-latency 1", "world"),
    ("--queue skip", "queue"),
    ("--estimate 2", "world"),
    ("--json scores.json", "file"))] + [
    ("wall --task wall_a.py", "--task wall_b.py", "world")]
FILM = [(DDIM, "--episodes 2", "seeds"), (DDIM, "--seed 7", "seeds")]
WATCH = [(DDIM, *row) for row in (
    ("--seed 7", "start"),
    ("--candidates 3", "candidates"),
    ("--max-steps 9", "last step"),
    ("--beside mse", "others"),
    ("--seeding modern", "start"))] + [
    ("simple", "--guidance 1", "second"),
    ("simple", "--temperature 1", "second")]
RECORD = [("a.npz", "--seed 7", "start"), ("a.npz", "--seeding modern", "start")]
FORKS = [("simple --states 3", "--states 2", "states"), ("mse --states 3", "--plans 4", "plans"),
         ("simple --states 3", "--off 5", "first"),
         ("simple --states 3", "--json f.json", "written")]
BOUND = [("simple d.npz", "--json f.json", "written")]
MAKE = "--out a.npz --workers 2"
COLLECT = [(f"{MAKE} --seed 4", "--add-to made.npz", "episodes"),
           (f"{MAKE} --seed 4", "--add-to made.npz", "refine")] + [(MAKE, *row) for row in (
    ("--out b.npz", "path"),
    ("--again made.npz", "seeds"),
    ("--again made.npz", "samples"),
    ("--visited simple", "starts"),
    ("--episodes 3", "seeds"),
    ("--seed 7", "seeds"),
    ("--stream 1", "stream"),
    ("--samples 9", "samples"),
    ("--refine 9", "refine"),
    ("--stop-coverage 0.9", "stop_coverage"),
    ("--noise-every-other 2", "noise_every_other"),
    ("--max-steps 200", "max_steps"),
    ("--workers 1", "workers"),
    ("--scheduler tcp://here:1", "workers"))] + [
    (MAKE + " --seed 4", "--add-to made.npz", "episodes"),
    (MAKE + " --seed 4", "--add-to made.npz", "refine")]
TABLES = {train: TRAIN, evaluate: SAMPLING + EVAL, film: SAMPLING + FILM, watched: SAMPLING + WATCH,
          recorded: RECORD, forked: FORKS, collected: COLLECT, bounded: BOUND, compared: []}
ROWS = [pytest.param(command, *row, id=f"{command.__name__} {row[1]} after {row[0]}")
        for command, rows in TABLES.items() for row in rows]


def same(a, b):
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


@pytest.fixture(scope="module")
def seen(files, tmp_path_factory):
    """(command, arguments) -> what the command makes of them; once for each."""
    @functools.cache
    def see(command, arguments):
        folder = tmp_path_factory.mktemp("run") / "files"
        shutil.copytree(files, folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(ROOT)
            patch.chdir(folder)
            forget_tasks(patch)
            return command(patch, arguments.split())
    return see


@pytest.mark.slow
@pytest.mark.parametrize("command, before, option, changes", ROWS)
def test_another_value_changes_what_is_done(command, before, option, changes, seen):
    first = seen(command, before)[changes]
    other = seen(command, f"{before} {option}")[changes]
    assert not same(first, other), f"{option} changes nothing: {changes} is {first}"


@pytest.fixture
def parser(request, monkeypatch):
    """The parser of a command."""
    def parse(parser, *given, **more):
        raise Enough(parser)

    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    with pytest.raises(Enough) as enough:
        request.param(monkeypatch, [])
    return enough.value.args[0]


every_command = pytest.mark.parametrize("parser", TABLES, indirect=True)


@pytest.mark.parametrize("command, parser", [*zip(TABLES, TABLES)], indirect=["parser"])
def test_every_option_has_a_row(command, parser):
    rows = {option.split()[0].replace("--no-", "--") for _, option, _ in TABLES[command]}
    names = {name for action in parser._actions for name in action.option_strings[:1]}
    assert names - {"-h"} == {row for row in rows if row.startswith("--")}


@every_command
def test_the_default_that_the_help_names_is_the_one_that_counts(parser):
    """But where None stands for what the policy's file or its sampler says."""
    for action in parser._actions:
        said = re.search(r"\(default: ([\w.]+)\)", action.help or "")
        if said and action.default != argparse.SUPPRESS:
            given = action.default is not None
            assert given or action.dest in (*FLAGS, "action_horizon", "temperature", "task"), \
                action.dest
            assert not given or said[1] == f"{action.default:{'' if action.choices else 'g'}}"
            assert not given or action.default in (action.choices or [action.default])


@every_command
def test_an_argument_that_is_empty_is_refused(parser):
    """As that of an unset variable is."""
    for action in parser._actions:
        if action.nargs != 0 and not action.choices:
            with pytest.raises((argparse.ArgumentTypeError, ValueError)):
                action.type("")
