"""train.py and eval.py in process: what they hand on, say and leave behind."""
from minidiff import checkpoint, demos, policy, stopping, wall
from minidiff.beyond import SAMPLERS, formats
from minidiff.optim import learning_rate
from minidiff.pusht import SHIPPED_POLICY
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.estimate import EstimatingEnv
from minidiff.pusht.features import PUSHT
from minidiff.pusht.study.disturbances import DisturbedEnv
from minidiff.pusht.view import charts, films
from minidiff.scoring import rollout, scores
from minidiff.scoring.rollout import Unfinished
from minidiff.scoring.scores import Episode
from minidiff.training import NETWORK, Config, Trainer

import contextlib
import dataclasses
import importlib
import json
import os
import re
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, play

PLAYED = [Episode(5000, 1.0, True, 80, 0.96, 3.0, 40.0),
          Episode(5001, 0.5, False, 300, 0.2, 3.0, 50.0)]


@pytest.fixture
def script(monkeypatch, tmp_path):
    """script(name, *arguments): the module of a script that is called so, in an empty folder."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)

    def load(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        return importlib.import_module(name)
    return load


# ---- eval.py -------------------------------------------------------------------------------------

@pytest.fixture
def evaluated(script, monkeypatch):
    """evaluated(arguments, outcome): with what eval.py lets episodes run, which end so."""
    def run(arguments, outcome=PLAYED):
        calls = []
        module = script("eval", *arguments.split())

        def evaluate(*given, **more):
            names = "policy", "seeds", "executor", "noise_seed"
            calls.append(SimpleNamespace(**more, **dict(zip(names, given))))
            given[-1](len(given[1]))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(module, "evaluate", evaluate)
        monkeypatch.setattr(module, "executor", lambda address, count, task: (
            calls.append(task), contextlib.nullcontext(count))[1])
        monkeypatch.setattr(module, "plan_ms", lambda policy: 7.4 * (policy.task is PUSHT))
        module.main()
        assert calls[0] is calls[1].policy.task
        return calls[1]
    return run


def test_eval_says_what_it_scores_and_how_it_ends(evaluated, capsys):
    evaluated("")
    _, meta = policy.read(SHIPPED_POLICY)
    first, how, score = capsys.readouterr().out.splitlines()
    assert first == (f"the policy that comes with minidiff: mlp, {meta['update']:,} of "
                     f"{meta['config']['steps']:,} steps, {meta['cpu_seconds']:.0f} CPU seconds, "
                     f"seed {meta['config']['seed']}")
    assert how == "ancestral, executing 4 of 8 actions: 7 ms a plan, 0 s in all"
    assert score == scores.sentence(scores.summary(PLAYED))


def test_eval_says_and_writes_what_was_made_harder_or_easier(evaluated, capsys):
    evaluated("--sampler ddim --sampler-steps 2 --candidates 3 --kick-block 50 45 "
              "--action-latency 2 --json new/a.json")
    _, how, _, last = capsys.readouterr().out.splitlines()
    assert how.startswith("ddim, sampler steps 2, kick block [50.0, 45.0], action latency 2, "
                          "the best of 3 plans tried in the simulator, 45 ms a decision, exec")
    assert last == "every episode: new/a.json"
    sheet = json.loads(open("new/a.json").read())
    assert sheet["checkpoint"] == str(SHIPPED_POLICY) and sheet["incomplete"] is None
    assert (sheet["options"]["action_latency"], sheet["options"]["kick_agent"]) == (2, 0)
    assert sheet["config"] == policy.read(SHIPPED_POLICY)[1]["config"]
    assert sheet["episodes"] == [episode._asdict() for episode in PLAYED]
    seconds = sheet["summary"].pop("seconds")
    assert 0 <= seconds < 5
    assert sheet["summary"] == scores.summary(PLAYED) | {"plan_ms": 7.4}


@pytest.mark.parametrize("arguments, workers", [
    ("--episodes 120 --workers 7", 3), ("--episodes 120 --workers 2", 2), ("--episodes 50", 1)])
def test_eval_starts_as_many_workers_as_there_are_chunks(arguments, workers, evaluated, capsys):
    call = evaluated(arguments)
    assert call.executor == workers and call.decide is None
    assert f"episodes {len(call.seeds)}/{len(call.seeds)} " in capsys.readouterr().err


def test_eval_says_how_it_meets_latency_and_noise(evaluated, capsys):
    for arguments, said in (("--action-latency 2", "action latency 2, queue ignore, exec"),
                            ("--action-latency 2 --queue skip", "latency 2, queue skip, exec"),
                            ("--obs-noise 4 --estimate 4", "the state estimated for noise of 4 px"),
                            ("--action-latency 8 --estimate 0", "estimated for noise of 0 px")):
        call = evaluated(arguments)
        assert said in capsys.readouterr().out
        assert call.queue == ("skip" if "skip" in arguments else "ignore")
        assert ("estimate" in arguments) == (type(call.make_env()) is EstimatingEnv)
        if "--obs-noise" in arguments:
            assert call.make_env().noise == call.make_env().env.obs_noise == 4


def test_eval_refuses_a_latency_that_plans_are_too_short_for(evaluated):
    for queue in ("hold", "skip"):
        with pytest.raises(ValueError, match="plan of 8 actions is too short: 5 are committed"):
            evaluated(f"--action-latency 5 --queue {queue}")
    with pytest.raises(ValueError, match="--queue hold: this sampler denoises nothing"):
        evaluated("--sampler shooting --action-latency 2 --queue hold")
    with pytest.raises(ValueError, match="--queue: many plans are tried as if no action waited"):
        evaluated("--action-latency 2 --queue hold --candidates 2")
    evaluated("--action-latency 5")
    evaluated("--action-latency 4 --queue hold")


def test_eval_hands_its_options_on(evaluated, capsys):
    world = f"{SHIPPED_POLICY} --max-steps 9 --seeding modern "
    call = evaluated(world + "--noise-seed 4 --candidates 2")
    env, decide = call.make_env(), call.decide
    assert (type(env), env.max_steps, env.seeding, call.noise_seed) == (PushTEnv, 9, "modern", 4)
    assert (decide.policy, decide.candidates, decide.budget_ms) == (call.policy, 2, None)
    call = evaluated(world + "--action-latency 3 --budget-ms 5")
    env = call.make_env()
    assert (type(env), env.max_steps, env.seeding) == (DisturbedEnv, 9, "modern")
    assert (env.action_latency, call.decide.budget_ms) == (3, 5)
    assert capsys.readouterr().out.startswith(f"{SHIPPED_POLICY}: mlp, ")


def test_eval_writes_what_is_over_and_fails_if_it_ends_early(evaluated, capsys):
    with pytest.raises(RuntimeError, match="^incomplete, stopped: 2 of 9. Success ends an episode "
                                           "early, so there are too many successes among them$"):
        evaluated("--json a.json", Unfinished("stopped: 2 of 9", PLAYED))
    sheet = json.loads(open("a.json").read())
    assert sheet["incomplete"] == "stopped: 2 of 9" and len(sheet["episodes"]) == 2
    assert "every episode: a.json" in capsys.readouterr().out
    with pytest.raises(Unfinished, match="^stopped$"):
        evaluated("--json b.json", Unfinished("stopped", []))
    assert os.listdir() == ["a.json"]


def test_eval_keeps_what_was_played_where_scores_lie_beyond_their_range(evaluated):
    odd = [PLAYED[0], PLAYED[1]._replace(score=7.0)]
    with pytest.raises(ValueError, match="scores from 1 to 7 lie beyond the task's score_range"):
        evaluated("--json a.json", odd)
    sheet = json.loads(open("a.json").read())
    assert [row["score"] for row in sheet["episodes"]] == [1.0, 7.0]
    assert sheet["summary"]["score"] == 4.0 and sheet["task"] == "pusht"


def test_eval_takes_the_place_of_its_own_files_alone(evaluated, tmp_path):
    path = tmp_path / "a.json"
    path.touch()
    evaluated("--json a.json")
    written = path.read_text()
    evaluated("--json a.json")
    path.write_text("mine")
    with pytest.raises(ValueError, match="^a.json: not a file that eval.py"):
        evaluated("--json a.json")
    assert path.read_text() == "mine" and "plan_ms" in written


@pytest.mark.parametrize("arguments, said", [
    ("--episodes 0", "argument --episodes: must be from 1 to 1000000, not 0"),
    ("--obs-noise nan", "argument --obs-noise: must be from 0 to 512, not nan"),
    ("--kick-block 50 -1", "argument --kick-block: must be from 0 to 512, not -1"),
    ("--kick-agent -1", "argument --kick-agent: must be from 0 to 512, not -1"),
    ("--action-latency 101", "argument --action-latency: must be from 0 to 100, not 101"),
    ("--max-steps 0", "argument --max-steps: must be from 1 to 1000000, not 0"),
    ("--seed -1", "argument --seed: must be from 0 to 4294967295, not -1"),
    ("--seeding new", "argument --seeding: invalid choice: 'new'"),
    ("--guidance inf", "argument --guidance: must be from -100 to 100, not inf"),
    ("--candidates 100000", "argument --candidates: must be from 1 to 10000, not 100000"),
    ("--budget-ms -1", "argument --budget-ms: must be from 0 to 1000000, not -1"),
    ("--workers 70000", "argument --workers: must be from 1 to 1000, not 70000"),
    ("--candidates 4 --budget-ms 10", "--budget-ms: not allowed with argument --candidates")])
def test_eval_refuses_what_it_cannot_do(arguments, said, script, capsys):
    with pytest.raises(SystemExit):
        script("eval", *arguments.split()).main()
    assert said in capsys.readouterr().err


def test_eval_takes_the_least_of_everything(script):
    least = "--episodes 1 --max-steps 1 --workers 1 --kick-agent 0 --action-latency 0".split()
    args = script("eval", *least, "--candidates", "1").parse_arguments()
    assert (args.episodes, args.max_steps, args.workers, args.candidates) == (1, 1, 1, 1)
    args = script("eval", *least, "--budget-ms", "0", "--seeding", "modern").parse_arguments()
    assert (args.budget_ms, args.seeding) == (0, "modern")
    assert (args.kick_block, args.obs_noise, args.json) == ((0, 0), 0, None)


RETURNS = "import minidiff.wall\nTASK = minidiff.wall.TASK._replace(name='a', score_range=None)\n"


def test_eval_knows_the_range_and_the_steps_of_another_task(evaluated, tmp_path, monkeypatch):
    (tmp_path / "eval_returns.py").write_text(RETURNS)
    monkeypatch.setattr(sys, "path", [*sys.path])
    task = wall.TASK._replace(name="a")
    trainer = Trainer(Config(steps=1, width=8, blocks=1, T=4), task, demos.own(task))
    policy.save(tmp_path / "a.npz", trainer)
    asked = "a.npz --task eval_returns.py --json b.json"
    played = [Episode(5000, -3.0, None, 9, -1.0), Episode(5001, -5.0, None, 9, -1.0)]
    assert evaluated(asked, played).policy.task.max_steps == wall.TASK.max_steps
    assert evaluated(asked + " --max-steps 9", played).policy.task.max_steps == 9
    assert json.loads(open("b.json").read())["summary"]["score"] == -4


def test_eval_says_where_a_world_fails_before_the_episodes(script):
    class Broken(wall.World):
        def reset(self, **options):
            raise KeyError("place")

    broken = SimpleNamespace(task=wall.TASK._replace(make_env=Broken), obs_horizon=1)
    with pytest.raises(ValueError, match="the world of the task 'wall' fails at its reset with seed"
                                         r" 0: KeyError: 'place' \(test_scripts.py, line \d+\)$"):
        script("eval").plan_ms(broken)


def test_the_time_of_a_plan_is_the_median_of_five(script, monkeypatch):
    clock, observed = 0.0, []

    def plan(obs, rng):
        nonlocal clock
        assert isinstance(rng, np.random.Generator)
        clock += (1, 2, 9, 3, 4)[len(observed)] / 1000
        observed.append(obs)

    module = script("eval")
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock))
    assert module.plan_ms(SimpleNamespace(plan=plan, obs_horizon=2, task=PUSHT)) == pytest.approx(3)
    assert [obs.shape for obs in observed] == [(1, 2, 5)] * 5


# ---- train.py ------------------------------------------------------------------------------------

SMALL = "--width 8 --blocks 1 --batch 16 --steps 4 --save-every 3".split()


@pytest.fixture
def trained(script, monkeypatch, demos_file):
    """trained(*arguments): what train.py has asked of its task, when it saved, its progress."""
    def run(*arguments, score=lambda name: {"n": 0, "name": name}):
        calls, saves, progress = [], [], []
        save = policy.save

        def note(path, trainer, *given, **more):
            saves.append((path.name, trainer.n))
            save(path, trainer, *given, **more)

        monkeypatch.setattr(policy, "save", note)
        monkeypatch.setattr(Trainer, "cpu_seconds", lambda trainer: 2.0)
        monkeypatch.setattr(rollout, "score", lambda policy, seeds, name: (
            calls.append((name, policy.sampler, list(seeds))), score(name))[1])
        monkeypatch.setattr(demos, "own", lambda task: formats.load(demos_file, task))
        monkeypatch.setattr(charts, "loss", lambda path, trainer: (
            calls.append((path.name, trainer.n))))
        monkeypatch.setattr(films, "film", lambda path, after, seeds, before: (
            calls.append((path.name, before, after, len(seeds)))))
        module = script("train", *(SMALL if "--resume" not in arguments else []), *arguments)
        monkeypatch.setattr(module, "Progress", lambda *given: SimpleNamespace(
            show=lambda *shown: progress.append((given, shown))))
        try:
            module.main()
        finally:
            monkeypatch.setattr(policy, "save", save)
        return calls, saves, progress
    return run


def test_train_says_each_thing_that_it_does(trained, demos_file, capsys):
    calls, saves, progress = trained("--score-episodes", "2", "--demos", str(demos_file))
    idle = formats.idle(formats.load(demos_file, PUSHT)).mean()
    lines = capsys.readouterr().out.splitlines()
    run = "runs/pusht-mlp-0"
    arrays, meta = checkpoint.load(f"{run}/checkpoint.npz")
    size = lines.pop(-3)
    assert re.fullmatch(rf"the run takes 0\.\d MB; to delete it: rm -r {run}", size)
    assert lines == [
        f"4 demonstrations, 139 windows ({idle:.1%} of the rows are idle); mlp with "
        f"{arrays['theta'].size:,} parameters; 4 steps; into {run}/",
        f"trained in 2 CPU seconds (500.0 ms a step); weights in {run}/checkpoint.npz",
        "ancestral: no episode is over", "ddim:      no episode is over",
        f"picture: {run}/loss.png", f"picture: {run}/rollouts.png (before and after training)",
        f"next: python eval.py {run} --episodes 500 --seed 300000    "
        "(eval.py --help lists faster samplers)",
        f"watch it plan: python -m minidiff.pusht watch {run}"]
    assert saves == [("checkpoint.npz", 3), ("checkpoint.npz", 4), ("policy.npz", 4)]
    assert progress[-1] == (("training", 4, 0), (4, f"loss {arrays['losses'].mean():.5f}"))
    notes = {"demos": [str(demos_file)], "drop_idle": False, "init": None}
    assert notes.items() <= meta.items()
    config = json.loads(open(f"{run}/config.json").read())
    assert config == {"task": "pusht", **notes, **meta["config"]} and config["steps"] == 4
    assert json.loads(open(f"{run}/scores.json").read()) == {
        name: {"n": 0, "name": name} for name in ("ancestral", "ddim")}
    (slow, quick, loss, (film, before, after, shown)) = calls
    assert (slow[::2], quick[::2]) == (("ancestral", [5000, 5001]), ("ddim", [5000, 5001]))
    assert loss == ("loss.png", 4)
    assert quick[1].keywords == {"steps": 4}
    assert (film, shown) == ("rollouts.png", 2)
    assert before.sampler.keywords == after.sampler.keywords == {"steps": 4}
    assert np.array_equal(weights(after), arrays["ema"])
    assert not np.array_equal(weights(before), arrays["ema"])


def weights(policy):
    return policy.eps_theta.net.theta


def test_the_loss_that_train_shows_is_the_mean_of_the_last_hundred(trained):
    *_, progress = trained("--score-episodes", "0", "--out", "a", "--steps", "103")
    losses = checkpoint.load("a/checkpoint.npz")[0]["losses"]
    means = [losses[max(0, n - 100):n].mean() for n in range(1, 104)]
    assert [text for _, (_, text) in progress] == [f"loss {mean:.5f}" for mean in means]


def test_train_without_episodes_scores_and_films_nothing(trained, capsys):
    calls, *_ = trained("--score-episodes", "0", "--out", "mine")
    assert calls == [("loss.png", 4)] and "rollouts" not in capsys.readouterr().out


def test_train_scores_regression_by_its_own_sampler_and_films_three(trained):
    (name, sampler, _), _, (*_, shown) = trained("--score-episodes", "9", "--objective", "mse")[0]
    assert (name, sampler, shown) == ("regression", SAMPLERS["regression"].function, 3)


def test_train_goes_on_where_it_was_stopped(trained, demos_file, monkeypatch, tmp_path):
    steps, step = [], Trainer.step

    def stop_after_two(trainer):
        steps.append(trainer.n)
        return step(trainer)

    (*_, whole), *_ = trained("--out", "whole", "--score-episodes", "1")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stop_after_two)
        patch.setattr(stopping, "asked", lambda: len(steps) >= 2)
        with pytest.raises(stopping.Stopped, match="^stopped at step 2 and saved; go on with: "
                                                   "python train.py --resume 'a run' "
                                                   "--score-episodes 0 --save-every 3$"):
            trained("--out", "a run", "--score-episodes", "0", "--demos", str(demos_file))
    assert sorted(os.listdir("a run")) == ["checkpoint.npz", "config.json", "log.csv"]
    (*_, film), saves, progress = trained("--resume", "a run", "--score-episodes", "1")
    assert all(np.array_equal(weights(a), weights(b)) for a, b in zip(whole[1:3], film[1:3]))
    assert saves == [("checkpoint.npz", 4), ("policy.npz", 4)]
    assert [given for given, _ in progress] == [("training", 4, 2)] * 2
    assert checkpoint.load("a run/checkpoint.npz")[1]["demos"] == [str(demos_file)]
    a, b = (checkpoint.load(f"{name}/checkpoint.npz")[0] for name in ("whole", "a run"))
    assert all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


def test_a_longer_run_says_what_it_adds_and_keeps_its_notes(trained, demos_file, capsys):
    trained("--out", "a", "--score-episodes", "0", "--demos", str(demos_file))
    trained("--resume", "a", "--score-episodes", "0")
    assert ("this run is finished; to make it longer: python train.py --resume a "
            "--score-episodes 0 --steps 8\n" in capsys.readouterr().out)
    with pytest.raises(ValueError, match="^--steps 3: a has done 4 steps already$"):
        trained("--resume", "a", "--steps", "3")
    _, saves, _ = trained("--resume", "a", "--steps", "6", "--score-episodes", "0")
    assert saves == [("checkpoint.npz", 6), ("policy.npz", 6)]
    _, meta = checkpoint.load("a/checkpoint.npz")
    assert meta["demos"] == [str(demos_file)] and meta["config"]["steps"] == 6
    assert json.loads(open("a/config.json").read())["steps"] == 6
    rows = open("a/log.csv").read().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4", "5", "6"]


def test_a_run_from_other_weights_takes_their_network(trained, capsys):
    trained("--out", "a", "--score-episodes", "0", "--steps", "9")
    first, _ = checkpoint.load("a/policy.npz")
    arguments = ["--init", "a", "--score-episodes", "1", "--out", "b", "--lr", "1e-9"]
    (*_, film), *_ = trained(*arguments, "--seed", "3")
    before = film[1]
    assert np.array_equal(weights(before), first["ema"])
    arrays, meta = checkpoint.load("b/checkpoint.npz")
    assert np.allclose(arrays["theta"], first["ema"], atol=1e-4)
    assert meta["init"] == os.path.abspath("a") and meta["config"]["seed"] == 3
    (*_, film), *_ = trained("--resume", "b", "--steps", "7", "--score-episodes", "1")
    assert np.array_equal(checkpoint.load("b/checkpoint.npz")[0]["mean"], first["mean"])
    with pytest.raises(ValueError, match="^--width: the weights of .*/a were trained with 8, not "
                                         "with 16; leave it out$"):
        trained("--init", "a", "--width", "16")
    with pytest.raises(FileNotFoundError, match="nowhere: no such checkpoint"):
        trained("--init", "nowhere")


OTHERS = ("--objective hybrid --net conv --no-precondition --obs-horizon 2 --pred-horizon 5 "
          "--clip 3 --schedule linear --T 6 --score-episodes 0").split()


def test_other_weights_bring_all_that_their_network_depends_on(trained):
    trained("--out", "a", *OTHERS)
    trained("--out", "b", "--init", "a", "--score-episodes", "0")
    a, b = (json.loads(open(f"{name}/config.json").read()) for name in "ab")
    assert [a[name] for name in NETWORK] == [b[name] for name in NETWORK] and b["outputs"] == 2
    assert {name for name in a if a[name] == getattr(Config(), name, None)}.isdisjoint(NETWORK)


def test_a_run_from_other_weights_goes_on_without_them(trained):
    trained("--out", "a", "--score-episodes", "0", "--steps", "9")
    trained("--out", "b", "--score-episodes", "0", "--init", "a")
    os.rename("a", "gone")
    trained("--resume", "b", "--score-episodes", "0", "--steps", "6")
    means = [checkpoint.load(f"{name}/checkpoint.npz")[0]["mean"] for name in ("gone", "b")]
    assert np.array_equal(*means)


def test_other_weights_count_more_than_the_recipe_of_the_task(script):
    config = Config(**wall.TASK.recipe | {"T": 4, "width": 8, "steps": 1})
    trainer = Trainer(config, wall.TASK, demos.own(wall.TASK))
    policy.save("a.npz", trainer)
    arguments = ["--task", "minidiff.wall", "--init", "a.npz"]
    _, _, config = script("train", *arguments).parse_arguments()
    assert (config.T, config.width, config.steps) == (4, 8, wall.TASK.recipe["steps"])


def test_the_command_that_goes_on_has_the_task_and_the_scores(script):
    module = script("train", "--resume", "a b", "--task", "minidiff.wall", "--score-every", "7")
    args, _, _ = module.parse_arguments()
    assert module.again(args, "a b") == ("python train.py --resume 'a b' --task minidiff.wall "
                                         "--score-every 7")


def test_what_a_run_leaves_out_of_its_tasks_own_demonstrations_is_known(trained, script):
    trained("--out", "a", "--score-episodes", "0")
    _, meta = checkpoint.load("a/checkpoint.npz")
    meta |= {"demos": [], "drop_idle": True, "init": "b"}
    notes, config = script("train").resumed("a", PUSHT, meta, None)
    assert notes == {"demos": [], "drop_idle": True, "init": "b"} and config.steps == 4


def test_a_score_that_is_incomplete_leaves_a_gap_in_the_log(trained, capsys):
    outcomes = [{"n": 0, "incomplete": "1 of 2"}]
    over = {"n": 0, "score": 3, "success": None}
    trained("--out", "a", "--score-every", "2", "--score-episodes", "2",
            score=lambda name: outcomes.pop() if outcomes else over)
    rows = [row.split(",")[-2:] for row in open("a/log.csv").read().splitlines()]
    assert rows[1:] == [["", ""], ["", ""], ["", ""], ["3", ""]]


class Unseen(wall.World):
    """A world as Gymnasium makes it where nobody asks for pictures."""
    render_mode = None

    def render(self):
        raise NotImplementedError


def test_a_world_that_renders_nothing_is_not_filmed(script, monkeypatch, capsys):
    filmed = []
    monkeypatch.setattr(films, "rendered", lambda *given: filmed.append(given))
    module = script("train")
    for world in (Unseen, object, wall.World):
        module.draw("a.png", None, SimpleNamespace(task=wall.TASK._replace(make_env=world)), 2)
    assert [list(given[-1]) for given in filmed] == [[5000, 5001]]
    said = "no film: the task's world has no render(), or its render_mode is None\n"
    assert capsys.readouterr().out.startswith(2 * said + "picture: a.png ")


def test_the_log_has_a_row_for_each_hundredth_and_for_each_score(trained, capsys):
    summary = {"n": 1, "score": 0.25, "success": 0.5, "score_ci95": [0, 1],
               "success_ci95": [0, 1], "steps_to_success": None, "first_seed": 1, "last_seed": 1}
    calls, *_ = trained("--out", "a", "--steps", "200", "--score-every", "99",
                        "--score-episodes", "2", score=lambda name: summary)
    assert [call[0] for call in calls[:2]] == ["ddim", "ddim"]
    assert "step 99: score 0.250, 95 % CI [0.000, 1.000]   success 50.0%" in capsys.readouterr().out
    head, *rows = [row.split(",") for row in open("a/log.csv").read().splitlines()]
    assert head[:4] == ["step", "loss", "learning rate", "CPU seconds"] and len(head) == 10
    steps = [int(row[0]) for row in rows]
    assert steps == sorted([*range(2, 201, 2), 99])
    losses = checkpoint.load("a/checkpoint.npz")[0]["losses"]
    for step, (_, loss, rate, seconds, *by_t, score, success) in zip(steps, rows):
        assert float(loss) == pytest.approx(losses[step - 2:step].mean(), rel=1e-5)
        assert float(rate) == pytest.approx(learning_rate(step - 1, 200, 5e-3, 100), rel=1e-5)
        assert seconds == "2" and min(map(float, by_t)) > 0
        assert (score, success) == (("0.25", "0.5") if step in (99, 198) else ("", ""))


@pytest.fixture
def with_pauses(arrays, tmp_path):
    """Demonstrations of which a sixth of the rows are idle."""
    times = np.where(np.arange(139) % 5 == 1, 2, 1)
    times[arrays["episode_ends"] - 1] = 1
    rows = np.repeat(np.arange(139), times)
    np.savez(tmp_path / "d.npz", state=arrays["state"][rows], action=arrays["action"][rows],
             episode_ends=np.cumsum(times)[arrays["episode_ends"] - 1])
    return str(tmp_path / "d.npz")


def test_train_leaves_out_idle_rows_and_goes_on_without_them(trained, with_pauses, capsys,
                                                             monkeypatch):
    data = formats.load(with_pauses, PUSHT)
    share = f"({formats.idle(data).mean():.1%} of the rows are idle and left out)"
    np.savez("left.npz", **formats.without_idle(data)._asdict())
    options = ("--score-episodes", "0", "--demos")
    trained("--out", "left", *options, "left.npz")
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "asked", lambda: True)
        with pytest.raises(stopping.Stopped):
            trained("--out", "a", *options, with_pauses, "--drop-idle")
    assert json.loads(open("a/config.json").read())["drop_idle"] is True
    trained("--resume", "a", "--score-episodes", "0")
    assert capsys.readouterr().out.count(share) == 2
    a, b = (checkpoint.load(f"{name}/checkpoint.npz")[0] for name in ("left", "a"))
    assert np.array_equal(a["theta"], b["theta"])


def test_train_resumes_a_run_that_knows_of_no_idle_rows(trained):
    trained("--out", "a", "--score-episodes", "0")
    arrays, meta = checkpoint.load("a/checkpoint.npz")
    del meta["drop_idle"]
    checkpoint.save("a/checkpoint.npz", arrays, meta)
    trained("--resume", "a", "--score-episodes", "0")
    assert checkpoint.load("a/checkpoint.npz")[1]["drop_idle"] is False


def test_train_warns_of_another_unit_in_each_file_of_demonstrations(trained, arrays, capsys):
    np.savez("d.npz", **arrays | {"action": arrays["action"] / 512})
    trained("--score-episodes", "0", "--demos", "d.npz")
    assert "d.npz: is it in the task's units? column 0 of 'action'" in capsys.readouterr().out


def test_train_says_why_there_is_no_score_or_no_picture(trained, capsys):
    def refuse(name):
        raise RuntimeError("pictures need pygame")

    trained(score=refuse)
    *_, why, _, following, _ = capsys.readouterr().out.splitlines()
    assert why == "no scores or no pictures: pictures need pygame" and following[:5] == "next:"


def test_train_fails_where_its_score_is_incomplete(trained, monkeypatch):
    def incomplete(name):
        return {"n": 0, "incomplete": "3 of 9"}

    with pytest.raises(ChildProcessError, match="^incomplete, 3 of 9; the run itself is complete, "
                                               "and this scores it again: python train.py --res"):
        trained("--out", "a", score=incomplete)
    assert json.loads(open("a/scores.json").read()) == {"ancestral": incomplete("")}

    def stop(name):
        monkeypatch.setattr(stopping, "asked", lambda: True)
        return incomplete(name)

    with pytest.raises(stopping.Stopped, match="^incomplete, 3 of 9; the run itself is complete"):
        trained("--out", "b", score=stop)


def test_train_stops_in_words_where_it_diverges(trained):
    said = (r"^\ndiverged at step \d: .*; nothing was saved yet. Try a smaller learning rate: "
            "--lr 3e[+]29$")
    with np.errstate(all="warn"), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SystemExit, match=said):
            trained("--lr", "1e30", "--warmup", "1000", "--steps", "60", "--save-every", "60")
    said = "; the last good checkpoint is kept in a/checkpoint.npz. Try"
    with pytest.raises(SystemExit, match=said):
        trained("--lr", "1e10", "--warmup", "1000", "--steps", "60", "--save-every", "1",
                "--out", "a")


@pytest.mark.parametrize("clip, warned", [("4", True), ("50", False)])
def test_train_warns_where_actions_are_clipped(clip, warned, trained, monkeypatch, capsys):
    monkeypatch.setattr(Trainer, "clipped", lambda trainer: 0.5 / trainer.config.clip**2)
    trained("--clip", clip, "--score-episodes", "0")
    said = ("warning: 3.1% of the numbers in the actions exceed --clip 4 standard deviations and "
            "are cut to it: try a larger --clip\n")
    assert (said in capsys.readouterr().out) == warned


@pytest.mark.parametrize("arguments, error, said", [
    ("--resume nowhere", FileNotFoundError, "^nowhere: there is no such folder"),
    ("--resume a --lr 1", SystemExit, "it takes no --lr\n$"),
    ("--resume a --demos b", SystemExit, "it takes no --demos\n$"),
    ("--resume a --drop-idle", SystemExit, "it takes no --drop-idle\n$"),
    ("--resume a --out b", SystemExit, "it takes no --out\n$"),
    ("--demos . ./", SystemExit, "is the same as .*: give it only once\n$"),
    ("--objective bound --weight bound", SystemExit,
     "error: --objective bound makes no use of --weight: leave it out\n$"),
    ("--objective mse --T 6", SystemExit, "--objective mse makes no use of --T: leave it out\n$"),
    ("--resume a --init b", SystemExit, "it takes no --init\n$"),
    ("--score-every 5 --score-episodes 0", SystemExit, "--score-episodes 0 leaves nothing to sc"),
    ("--lr -1", SystemExit, "error: --lr must be at least 1e-09, not -1.0\n$"),
    ("--save-every 0", SystemExit, "must be from 1 to 1000000000, not 0\n$"),
    ("--score-episodes -1", SystemExit, "must be from 0 to 1000000, not -1\n$"),
    ("--objective magic", SystemExit, "invalid choice: 'magic'")])
def test_train_refuses_what_it_cannot_do(arguments, error, said, script, capsys):
    with pytest.raises(error) as caught:
        script("train", *arguments.split()).main()
    assert re.search(said, capsys.readouterr().err or str(caught.value))


@pytest.mark.parametrize("change, said", [
    ({"demos": None}, "^a: the names of its demonstrations are damaged$"),
    ({"demos": "b.npz"}, "^a: the names of its demonstrations are damaged$"),
    ({"demos": [1]}, "^a: the names of its demonstrations are damaged$"),
    ({"config": 3}, "^a: "),
    ({"task": "wall"}, "^a: a run of the task 'wall', not of 'pusht': name its --task$"),
    ({"demos": ["b.npz", "b.npz"]}, "^a, with b.npz, b.npz: not the demonstrations that"),
    ({"demos": []}, "^a, with the demonstrations of the task 'pusht': not the dem")], ids=str)
def test_train_does_not_resume_what_does_not_fit(change, said, trained, monkeypatch):
    trained("--out", "a", "--score-episodes", "0")
    arrays, meta = checkpoint.load("a/checkpoint.npz")
    checkpoint.save("a/checkpoint.npz", arrays, meta | change)
    np.savez("b.npz", **play(seed=1))
    load = formats.load
    monkeypatch.setattr(formats, "load", lambda file, task, own=None: load("b.npz", task))
    with pytest.raises(ValueError, match=said):
        trained("--resume", "a")


# ---- the help of both ----------------------------------------------------------------------------

@pytest.mark.parametrize("name, takes", [
    ("train", ["--demos FILE [FILE ...]", "--out FOLDER", "--resume FOLDER", "--lr X"]),
    ("eval", ["--episodes N", "--max-steps N", "--workers N", "--candidates K", "--budget-ms MS",
              "--kick-block PX DEGREES", "--kick-agent PX", "--obs-noise PX",
              "--action-latency STEPS", "--json FILE"])])
def test_the_help_names_what_each_option_takes(name, takes, script, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    module = script(name, "--help")
    with pytest.raises(SystemExit):
        module.main()
    said = capsys.readouterr().out
    assert module.__doc__ in said and "--outputs" not in said
    for option in takes:
        assert re.search(rf"^  {re.escape(option)}(  |$)", said, re.M), option
    for field in dataclasses.fields(Config) if name == "train" else []:
        assert field.name == "outputs" or f"(default: {field.default})" in " ".join(said.split())
