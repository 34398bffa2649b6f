"""Samplers and objectives by their names, and policies that are loaded by them."""
from minidiff import beyond, demos, policy, wall
from minidiff.beyond import OBJECTIVES, SAMPLERS, bind, options
from minidiff.beyond.guidance import ClassifierFree
from minidiff.diffusion import LOSSES, ancestral_sampling, l_simple
from minidiff.pusht import SHIPPED_POLICY
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT
from minidiff.training import Config, Trainer

import argparse
import functools
import inspect

import numpy as np
import pytest

OBS = np.random.default_rng(0).uniform(100, 400, (3, 1, 5))


def plan_of(planner):
    return planner.plan(OBS, np.random.default_rng(1))


@pytest.fixture(scope="module")
def saved(arrays, tmp_path_factory):
    """save(objective, **config): the file of an untrained policy."""
    folder = tmp_path_factory.mktemp("beyond")
    data = demos.check(arrays, PUSHT)

    @functools.cache
    def save(objective, **changes):
        config = Config(objective=objective, outputs=OBJECTIVES[objective].outputs, width=8,
                        blocks=1, T=16, pred_horizon=8, **changes)
        trainer = Trainer(config, PUSHT, data, OBJECTIVES[objective].loss)
        path = folder / f"{objective}{changes}.npz"
        policy.save(path, trainer)
        return path
    return save


# ---- the tables ----------------------------------------------------------------------------------

def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_has_the_arguments_of_ancestral_sampling_and_options(name):
    function, own = SAMPLERS[name]
    shared = ["schedule", "eps_theta", "x_T", "cond", "rng"]
    assert parameters(function)[:5] == shared
    assert sorted(parameters(function)[5:]) == sorted([*own, "clip"])
    defaults = [p.default for p in inspect.signature(function).parameters.values()][5:]
    assert inspect.Parameter.empty not in defaults
    assert inspect.isgeneratorfunction(function)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["mlp", "conv"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_network_learns_by_every_objective(name, net):
    """150 steps take a quarter off the loss, and more than 1 off the -log p of a mixture."""
    objective = OBJECTIVES[name]
    config = Config(net=net, objective=name, outputs=objective.outputs, blocks=1, T=20, batch=64,
                    width=16 if net == "mlp" else 8, pred_horizon=4, steps=150, warmup=10, lr=5e-3)
    data = demos.check(wall.demonstrations(5), wall.TASK)
    losses = np.array(list(Trainer(config, wall.TASK, data, objective.loss)))
    before, after = losses[:10].mean(), losses[-50:].mean()
    assert after < (before - 1 if name == "mixture" else 0.75 * before)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_has_the_arguments_of_l_simple_and_its_samplers(name):
    objective = OBJECTIVES[name]
    assert parameters(objective.loss)[:7] == parameters(l_simple)
    assert set(objective.samplers) <= set(SAMPLERS)
    if name in LOSSES:
        assert objective.loss is LOSSES[name] and objective.samplers[0] == "ancestral"


def test_binding_sets_the_options_of_a_sampler():
    assert bind("ancestral") is ancestral_sampling
    bound = bind("ddim", steps=3, eta=0.5)
    assert bound.func is SAMPLERS["ddim"].function
    assert bound.keywords == {"steps": 3, "eta": 0.5}


@pytest.mark.parametrize("name, given, said", [
    ("euler", {}, "sampler 'euler': choose from ancestral, ddim, sde, flow"),
    ("ancestral", {"steps": 3}, "the sampler ancestral takes no steps, but variance"),
    ("ddim", {"variance": "beta"}, "the sampler ddim takes no variance, but steps and eta"),
    ("shooting", {"spread": 1}, "the sampler shooting takes no spread, but no options")])
def test_a_sampler_or_option_that_does_not_exist_is_refused_in_words(name, given, said):
    with pytest.raises(ValueError) as error:
        bind(name, **given)
    assert str(error.value).startswith(said)


# ---- policies by the name of a sampler -----------------------------------------------------------

@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_loads_with_each_of_its_samplers(saved, objective):
    """Without a name, with the first of them."""
    path = saved(objective)
    for name in OBJECTIVES[objective].samplers:
        planner, meta = beyond.load(path, PUSHT, name)
        assert meta["config"]["objective"] == objective
        assert plan_of(planner).shape == (3, 8, 2) and np.isfinite(plan_of(planner)).all()
    default, _ = beyond.load(path, PUSHT)
    first, _ = beyond.load(path, PUSHT, OBJECTIVES[objective].samplers[0])
    assert np.array_equal(plan_of(default), plan_of(first))


def test_a_policy_by_name_is_that_of_policy_load_with_the_function(saved):
    path = saved("simple")
    named, _ = beyond.load(path, PUSHT, "ddim", steps=2, action_horizon=5, temperature=0.5)
    direct, _ = policy.load(path, PUSHT, bind("ddim", steps=2), action_horizon=5, temperature=0.5)
    assert named.action_horizon == 5 and named.temperature == 0.5
    assert np.array_equal(plan_of(named), plan_of(direct))


def test_a_learned_variance_is_the_default_where_it_was_learned(saved):
    path = saved("hybrid")
    plans = []
    for given in ({}, {"variance": "learned"}, {"variance": "beta"}):
        planner, _ = beyond.load(path, PUSHT, **given)
        plans.append(plan_of(planner))
    assert np.array_equal(plans[0], plans[1]) and np.abs(plans[0] - plans[2]).max() > 0.1


def test_guidance_forgets_the_observation_at_scale_minus_1(saved):
    """Then plans differ by where they start alone."""
    path = saved("simple", drop_cond=0.2)

    def offsets(guidance):
        planner, _ = beyond.load(path, PUSHT, "ddim", guidance, steps=3)
        found = []
        for obs in OBS[:, None]:
            plan = planner.plan(obs, np.random.default_rng(0))
            found.append(demos.to_frame(plan, PUSHT.frame(obs)))
        return planner, np.ptp(found, axis=0).max()

    guided, spread = offsets(-1.0)
    assert isinstance(guided.eps_theta, ClassifierFree) and guided.eps_theta.scale == -1
    plain, spread_plain = offsets(0.0)
    assert not isinstance(plain.eps_theta, ClassifierFree)
    assert spread < 1e-3 < 1 < spread_plain


def test_a_learned_variance_is_sampled_with_guidance_too(saved):
    path = saved("hybrid", drop_cond=0.2)
    plain, _ = beyond.load(path, PUSHT)
    guided, _ = beyond.load(path, PUSHT, guidance=1.5)
    plan = plan_of(guided)
    assert np.isfinite(plan).all() and np.abs(plan - plan_of(plain)).max() > 0.1


@pytest.mark.parametrize("objective, given, said", [
    ("simple", {"sampler": "regression"}, "trained by --objective simple, so its plans come from "
                                          "the sampler ancestral or ddim"),
    ("mse", {"sampler": "ddim"}, "plans come from the sampler regression or shooting, not from"),
    ("simple", {"sampler": "euler"}, "sampler 'euler': choose from"),
    ("simple", {"steps": 3}, "the sampler ancestral takes no steps"),
    ("simple", {"variance": "learned"}, "which learns no variance"),
    ("simple", {"guidance": 1.0}, "trained with --drop-cond above 0"),
    ("simple", {"sampler": "shooting", "guidance": 1.0}, "the sampler shooting takes no guidance"),
    ("mse", {"guidance": 1.0}, "the sampler regression takes no guidance"),
    ("mse", {"temperature": 0.5}, "the sampler regression takes no temperature"),
    ("simple", {"sampler": "shooting", "temperature": 1}, "shooting takes no temperature"),
    ("simple", {"action_horizon": 9}, "a plan has 8 actions")], ids=str)
def test_what_a_network_was_not_trained_for_is_refused_in_words(saved, objective, given, said):
    with pytest.raises(ValueError, match=said):
        beyond.load(saved(objective), PUSHT, **given)


@pytest.mark.parametrize("steps", [0, 17])
def test_steps_that_the_chain_does_not_have_are_refused_in_words(saved, steps):
    with pytest.raises(ValueError, match=f"its chain takes 1 to T = 16 steps, not {steps}"):
        beyond.load(saved("simple"), PUSHT, "ddim", steps=steps)
    beyond.load(saved("simple"), PUSHT, "ddim", steps=min(max(steps, 1), 16))


# ---- as options of a command line ----------------------------------------------------------------

def parsed(*arguments):
    parser = argparse.ArgumentParser("eval.py")
    options.add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


@pytest.mark.parametrize("arguments, given, said", [
    ((), {}, "ancestral"),
    (("--sampler", "ddim", "--sampler-steps", 4), {"sampler": "ddim", "steps": 4},
     "ddim, sampler steps 4"),
    (("--sampler", "ddim", "--ddim-eta", 0.5), {"sampler": "ddim", "eta": 0.5},
     "ddim, ddim eta 0.5"),
    (("--sampler", "ddim", "--ddim-eta", 0, "--temperature", 0),
     {"sampler": "ddim", "temperature": 0}, "ddim, ddim eta 0.0, temperature 0"),
    (("--variance", "beta"), {"variance": "beta"}, "ancestral, variance beta"),
    (("--sampler", "pc", "--langevin-repeats", 2, "--langevin-size", 0.3),
     {"sampler": "pc", "repeats": 2, "size": 0.3}, "pc, langevin repeats 2, langevin size 0.3"),
    (("--guidance", 1.5, "--temperature", 0.5, "--action-horizon", 4),
     {"guidance": 1.5, "temperature": 0.5, "action_horizon": 4},
     "ancestral, guidance 1.5, temperature 0.5"),
], ids=str)
def test_options_of_a_command_line_are_those_of_load_and_said_in_words(
        saved, arguments, given, said):
    path = saved("simple", drop_cond=0.2)
    planner, meta, description = options.load_policy(parsed(path, *arguments), PUSHT, "nowhere")
    expected, _ = beyond.load(path, PUSHT, **given)
    assert description == said and meta["task"] == "pusht"
    assert planner.action_horizon == expected.action_horizon
    assert np.array_equal(plan_of(planner), plan_of(expected))


def test_without_a_run_the_default_policy_is_loaded(saved):
    args = parsed("--sampler", "regression", "--spread", 0.5)
    planner, meta, description = options.load_policy(args, PUSHT, saved("mse"))
    assert meta["config"]["objective"] == "mse" and description == "regression, spread 0.5"
    _, _, description = options.load_policy(parsed(), PUSHT, saved("mse"))
    assert description == "regression"  # the sampler of the objective


@pytest.mark.parametrize("flag, value, said", [
    ("--sampler-steps", 0, "must be from 1 to 100000, not 0"),
    ("--ddim-eta", 1.5, "must be from 0 to 1, not 1.5"),
    ("--langevin-size", -1, "must be from 1e-06 to 1, not -1"),
    ("--langevin-repeats", 0, "must be from 1 to 1000, not 0"),
    ("--spread", "nan", "must be from 0 to 10, not nan"),
    ("--spread", "wide", "invalid number value: 'wide'"),
    ("--guidance", 101, "must be from -100 to 100, not 101"),
    ("--temperature", -0.5, "must be from 0 to 100, not -0.5"),
    ("--action-horizon", 0, "must be from 1 to 100000, not 0"),
    ("--action-horizon", "two", "invalid whole number value: 'two'"),
    ("--noise-seed", -1, "must be from 0 to 9223372036854775808, not -1"),
    ("RUN", "", "is empty: is a variable not set?")])
def test_an_option_outside_its_range_is_refused_by_name(flag, value, said, capsys):
    with pytest.raises(SystemExit):
        parsed(*[flag] * (flag != "RUN"), value)
    assert f"argument {flag}: {said}" in capsys.readouterr().err


def test_the_ends_of_a_range_are_accepted():
    args = parsed("--ddim-eta", 0, "--langevin-size", 1)
    assert (args.ddim_eta, args.langevin_size, args.guidance) == (0, 1, 0)


def test_the_seeds_are_those_of_the_world():
    """Which knows as many as numpy.random.RandomState."""
    last = 2**32 - 1
    PushTEnv().reset(seed=last)
    assert (options.seed("0"), options.seed(f"{last}")) == (0, last)
    args = argparse.Namespace(seed=last - 1, episodes=2)
    assert list(options.seeds(args)) == [last - 1, last]
    args.episodes = 3
    for refused in (lambda: options.seeds(args), lambda: PushTEnv().reset(seed=last + 1)):
        with pytest.raises(ValueError):
            refused()
    with pytest.raises(argparse.ArgumentTypeError):
        options.seed(f"{last + 1}")


def test_the_usage_names_what_each_option_takes(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit):
        parsed("--help")
    usage, _, _ = capsys.readouterr().out.partition("\n\n")
    assert usage.split() == """usage: eval.py [-h]
        [--sampler {ancestral,ddim,sde,flow,langevin,pc,regression,mip,mixture,shooting}]
        [--sampler-steps N] [--ddim-eta ETA] [--variance {beta-tilde,beta,learned}]
        [--langevin-repeats N] [--langevin-size SIZE] [--spread S] [--guidance W]
        [--temperature S] [--action-horizon N] [--noise-seed N] [RUN]""".split()


@pytest.mark.parametrize("other", ["a", "folder/../a", "link", "hard link"])
def test_one_file_given_twice_is_refused(other, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "hard link").hardlink_to(tmp_path / "a")
    names = [str(tmp_path / name) for name in ("a", "nowhere", "b", "nowhere", other)]
    with pytest.raises(ValueError, match=f"{other} is the same as .*/a: give it only once"):
        options.distinct(names)
    options.distinct(names[:-1])


def test_the_temperature_by_default_is_the_policys_and_none_for_baselines():
    for given, temperature in (({}, 0.7), ({"temperature": 0.0}, 0), ({"temperature": 1.0}, 1),
                               ({"sampler": "shooting"}, 1)):
        assert beyond.load(SHIPPED_POLICY, PUSHT, **given)[0].temperature == temperature
