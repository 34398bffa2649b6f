"""The receding-horizon policy: its plan, an episode with it, and the file that it comes from."""
from minidiff import beyond, checkpoint, demos, policy
from minidiff.beyond import OBJECTIVES, bind
from minidiff.demos import BOUND, Normaliser
from minidiff.diffusion import SCHEDULES, ancestral_sampling
from minidiff.policy import DiffusionPolicy, Tempered, history, run_episode
from minidiff.pusht.features import PUSHT
from minidiff.tensor import Tape, Tensor
from minidiff.training import Config, Diverged, Trainer

import dataclasses
import functools
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CONFIG, mirror
from laws import gaussian_denoiser


def unscaled(scale):
    """A Normaliser that leaves features as they are."""
    return Normaliser(np.zeros(43), np.ones(43), np.zeros(2), scale)


def some_obs(n, seed=0):
    return np.random.default_rng(seed).uniform(100, 400, (n, 2, 5))


# ---- the plan ------------------------------------------------------------------------------------

@pytest.mark.parametrize("sampler, options", [
    ("ancestral", {}), ("ancestral", {"variance": "beta"}), ("ddim", {"steps": 3}),
    ("ddim", {"steps": 5, "eta": 1.0}), ("langevin", {}), ("pc", {})], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_ideal_denoiser_of_one_plan_makes_exactly_that_plan(
        schedule, temperature, sampler, options):
    """eps = (x_t - sqrt(alpha_bar) c) / sqrt(1-alpha_bar): all of x_0 is at c.

    So every sampler must end there.
    """
    schedule = SCHEDULES[schedule](20)
    rng = np.random.default_rng(0)
    c = rng.uniform(-2, 2, (8, 2))
    scale = rng.uniform(5, 50, (8, 1))
    planner = DiffusionPolicy(gaussian_denoiser(schedule, c, 0), schedule, PUSHT,
                              unscaled(scale), obs_horizon=2,
                              pred_horizon=8, sampler=bind(sampler, **options),
                              temperature=temperature)
    obs = some_obs(3)
    agent, axes = PUSHT.frame(obs)
    x, y = axes[:, None, :, 0], axes[:, None, :, 1]  # (3, 1, 2)
    expected = agent[:, None] + (c * scale)[:, :1] * x + (c * scale)[:, 1:] * y
    np.testing.assert_allclose(planner.plan(obs, rng), expected, rtol=0, atol=1e-2)


def test_the_network_is_shown_the_standardised_features(tiny_policy):
    """At every step of the chain, those of the observations in their own frame."""
    planner = tiny_policy()
    shown = []

    def spy(x_t, t, cond):
        shown.append(cond)
        return planner.eps_theta(x_t, t, cond)

    obs = some_obs(3)
    plan = dataclasses.replace(planner, eps_theta=spy).plan(obs, np.random.default_rng(1))
    assert np.array_equal(plan, planner.plan(obs, np.random.default_rng(1)))
    features = PUSHT.features(obs, PUSHT.frame(obs))
    expected = (features - planner.normaliser.mean) / planner.normaliser.std
    expected = np.clip(expected, -BOUND, BOUND).astype(np.float32)
    assert len(shown) == 6
    for cond in shown:
        np.testing.assert_array_equal(cond, expected)


def test_a_plan_looks_at_its_observations_once(tiny_policy):
    """Frame and features do not change while the chain goes down."""
    calls = []

    def frame(obs):
        calls.append("frame")
        return PUSHT.frame(obs)

    def features(obs, frame):
        calls.append("features")
        return PUSHT.features(obs, frame)

    task = PUSHT._replace(frame=frame, features=features)
    planner = dataclasses.replace(tiny_policy(), task=task)
    planner.plan(some_obs(3), np.random.default_rng(0))
    assert calls == ["frame", "features"]
    calls.clear()
    assert len(list(planner.denoise(some_obs(3), np.random.default_rng(0)))) == 7
    assert calls == ["frame", "features"]


def test_a_frame_that_is_given_to_features_is_that_of_the_plan(tiny_policy):
    origin = np.full((3, 2), 7.0)
    axes = np.tile(np.eye(2), (3, 1, 1))
    given = []

    def features(obs, frame):
        given.append(frame)
        return np.zeros((len(obs), 43))

    task = PUSHT._replace(frame=lambda obs: (origin, axes), features=features)
    planner = dataclasses.replace(tiny_policy(), task=task)
    plan = planner.plan(some_obs(3), np.random.default_rng(0))
    (seen_origin, seen_axes), = given
    assert seen_origin is origin and seen_axes is axes
    origin += 100
    moved = planner.plan(some_obs(3), np.random.default_rng(0))
    np.testing.assert_allclose(moved, plan + 100, rtol=0, atol=1e-9)


def test_a_task_without_a_frame_plans_in_its_own_units(tiny_policy):
    """Actions are then x_0 times the scale, about the centre, wherever the observations are."""
    def nothing(obs, frame):
        assert frame is None
        return np.zeros((len(obs), 43))

    normaliser = tiny_policy().normaliser
    normaliser = normaliser._replace(centre=np.array([3.0, -5.0]),
                                     scale=np.arange(1.0, 17).reshape(8, 2))
    task = PUSHT._replace(frame=None, features=nothing)
    planner = dataclasses.replace(tiny_policy(), task=task, normaliser=normaliser)
    plan = planner.plan(some_obs(3), np.random.default_rng(0))
    elsewhere = planner.plan(some_obs(3, seed=9), np.random.default_rng(0))
    assert np.array_equal(plan, elsewhere)
    steps = list(planner.denoise(some_obs(3), np.random.default_rng(0)))
    assert np.array_equal(steps[-1], plan)
    x_T = np.random.default_rng(0).standard_normal((3, 8, 2), dtype=np.float32)
    expected = x_T * np.arange(1.0, 17).reshape(8, 2) + [3.0, -5.0]
    np.testing.assert_allclose(steps[0], expected, rtol=1e-6, atol=1e-5)


def test_the_ideal_plan_is_cut_off_at_the_clip():
    schedule = SCHEDULES["cosine"](20)
    c = np.array([[3.0, -0.5]] * 8)
    planner = DiffusionPolicy(gaussian_denoiser(schedule, c, 0), schedule, PUSHT,
                              unscaled(np.ones((8, 1))), 2,
                              pred_horizon=8, clip=2)
    plan = planner.plan(np.zeros((1, 2, 5)), np.random.default_rng(0))
    # in the axes of a T that stands upright
    np.testing.assert_allclose(plan[0], [[2, -0.5]] * 8, atol=1e-5)


def test_a_policy_in_a_mirror_does_what_is_seen_in_the_mirror(tiny_policy):
    """Whatever its weights: the frame sees to it (pusht.features.frame)."""
    obs = some_obs(5)
    reflected, _ = mirror(obs, obs)
    plan = tiny_policy().plan(obs, np.random.default_rng(1))
    reflected_plan = tiny_policy().plan(reflected, np.random.default_rng(1))
    np.testing.assert_allclose(reflected_plan, mirror(obs, plan)[1], atol=1e-3)
    assert np.ptp(plan, axis=1).max() > 5


@pytest.mark.parametrize("sampler, length", [(ancestral_sampling, 7), (bind("ddim", steps=3), 4)],
                         ids=["ancestral", "ddim"])
def test_denoise_yields_each_step_of_the_chain_and_the_plan_last(tiny_policy, sampler, length):
    """The first is x_T, from the same noise that the plan is made of."""
    planner = tiny_policy(sampler=sampler)
    obs = some_obs(3)
    steps = list(planner.denoise(obs, np.random.default_rng(1)))
    assert len(steps) == length and {step.shape for step in steps} == {(3, 8, 2)}
    assert np.array_equal(steps[-1], planner.plan(obs, np.random.default_rng(1)))
    x_T = np.random.default_rng(1).standard_normal((3, 8, 2), dtype=np.float32)
    start = planner.normaliser.denormalise(x_T, PUSHT.frame(obs))
    np.testing.assert_array_equal(steps[0], start)


@pytest.mark.parametrize("sampler, options", [
    ("ddim", {"steps": 3}), ("ddim", {"eta": 1.0}), ("ancestral", {}), ("sde", {})], ids=str)
def test_temperature_scales_all_noise_that_a_sampler_draws(sampler, options, tiny_policy):
    """Without noise every plan is the same."""
    obs = some_obs(1)
    spread = []
    for temperature in (0, 0.1, 1):
        planner = tiny_policy(sampler=bind(sampler, **options), temperature=temperature)
        plans = [planner.plan(obs, np.random.default_rng(seed)) for seed in range(4)]
        spread.append(np.ptp(plans, axis=0).max())
    assert spread[0] == 0 < spread[1] < spread[2] / 2


def test_tempered_numbers_are_scaled_in_their_precision():
    for dtype in np.float32, np.float64:
        plain = np.random.default_rng(3).standard_normal((2, 3), dtype)
        scaled = Tempered(np.random.default_rng(3), 0.3).standard_normal((2, 3), dtype)
        assert scaled.dtype == dtype
        np.testing.assert_array_equal(scaled, plain * dtype(0.3))


@pytest.mark.parametrize("options, said", [
    ({"action_horizon": 0}, "action_horizon 0: a plan has 8"),
    ({"action_horizon": 9}, "a plan has 8 actions")])
def test_horizons_that_do_not_fit_together_are_refused_in_words(tiny_policy, options, said):
    with pytest.raises(ValueError, match=said):
        tiny_policy(**options)


@pytest.mark.parametrize("horizon, width", [(1, 5), (2, 6)])
def test_observations_of_another_shape_are_refused_in_words(horizon, width, tiny_policy):
    said = rf"observations of shape \(B, 2, 5\), not \(3, {horizon}, {width}\)"
    with pytest.raises(ValueError, match=said):
        tiny_policy().plan(np.zeros((3, horizon, width)), np.random.default_rng(0))


# ---- an episode ----------------------------------------------------------------------------------

class Counter:
    """A world that counts its steps: an observation is their number, a reward ten times that."""

    def __init__(self, steps, truncates=False):
        self.steps = steps
        self.truncates = truncates
        self.actions = []

    def reset(self, *, seed=None, options=None):
        self.started_with = seed, options
        return np.array([0.0]), {"step": 0}

    def step(self, action):
        self.actions.append(action)
        n = len(self.actions)
        over = n == self.steps
        return (np.array([float(n)]), 10.0 * n, over and not self.truncates,
                over and self.truncates, {"step": n})


class Planner:
    """Notes what it observes; a plan says where it was made, and the place of each action in it."""
    obs_horizon = 3
    action_horizon = 2

    def __init__(self):
        self.observed = []

    def plan(self, obs, rng):
        self.observed.append(obs[0, :, 0].tolist())
        assert obs.shape == (1, 3, 1)
        now = obs[0, -1, 0]
        return np.array([[[now, place] for place in range(4)]])


def test_a_history_is_the_last_observations_and_repeats_the_first():
    seen = [np.array([k, -k]) for k in range(4)]
    assert history(seen, 3)[:, 0].tolist() == [1, 2, 3]
    assert history(seen, 3)[:, 1].tolist() == [-1, -2, -3]
    assert history(seen[:2], 4)[:, 0].tolist() == [0, 0, 0, 1]
    assert history(seen[:1], 1).tolist() == [[0, 0]]


@pytest.mark.parametrize("truncates", [False, True])
def test_an_episode_observes_plans_and_acts_until_the_world_ends_it(truncates):
    """Each plan is carried out for two actions, the last one for as long as the episode goes on."""
    world = Counter(5, truncates)
    planner = Planner()
    episode = list(run_episode(planner, world, None, seed=7, options={"a": 1}))
    assert world.started_with == (7, {"a": 1})
    assert [obs.item() for obs, _, _ in episode] == [0, 1, 2, 3, 4, 5]
    assert [reward for _, reward, _ in episode] == [0, 10, 20, 30, 40, 50]
    assert [info["step"] for _, _, info in episode] == [0, 1, 2, 3, 4, 5]
    assert planner.observed == [[0, 0, 0], [0, 1, 2], [2, 3, 4]]
    made_at_and_place = [[0, 0], [0, 1], [2, 0], [2, 1], [4, 0]]
    assert np.array_equal(world.actions, made_at_and_place)


def test_decide_takes_the_place_of_the_plan():
    world = Counter(3)
    planner = Planner()
    rng = np.random.default_rng(0)
    asked = []

    def decide(env, obs, rng):
        asked.append((env, obs.copy(), rng))
        return np.full((4, 1), 9.0)

    episode = list(run_episode(planner, world, rng, decide=decide))
    assert len(episode) == 4 and planner.observed == []
    assert world.actions == [9, 9, 9]
    for env, obs, noise in asked:
        assert env is world and obs.shape == (3, 1) and noise is rng
    assert [obs[-1, 0] for _, obs, _ in asked] == [0, 2]


def test_an_episode_of_a_network_is_made_of_its_plans(tiny_policy):
    """On a world that stands still: each pair of actions is the start of a plan for it."""
    planner = tiny_policy(action_horizon=3)
    obs = some_obs(1)[0, 0]
    executed = []

    def step(action):
        executed.append(action)
        return obs, 0.0, False, len(executed) == 6, {}

    still = SimpleNamespace(reset=lambda seed, options: (obs, {}), step=step)
    for _ in run_episode(planner, still, np.random.default_rng(1)):
        pass
    rng = np.random.default_rng(1)
    seen = np.stack([obs, obs])[None]
    plans = [planner.plan(seen, rng)[0, :3] for _ in range(2)]
    assert np.array_equal(executed, np.concatenate(plans))


# ---- a policy from its Trainer, and from its file ------------------------------------------------

def plan_of(planner, seed=1):
    return planner.plan(some_obs(2), np.random.default_rng(seed))


def test_a_policy_has_the_averaged_weights_of_its_trainer(trainer):
    planner = policy.from_trainer(trainer)
    assert np.array_equal(planner.eps_theta.net.theta, trainer.optimiser.ema)
    assert (planner.eps_theta.net.theta != trainer.net.theta).any()
    assert not np.shares_memory(planner.eps_theta.net.theta, trainer.optimiser.ema)
    assert np.array_equal(planner.schedule.alpha_bar, trainer.schedule.alpha_bar)
    assert (planner.obs_horizon, planner.pred_horizon, planner.clip) == (2, 8, 4.0)
    assert planner.action_horizon == 4 and planner.task is PUSHT
    for own, trained in zip(planner.normaliser, trainer.normaliser):
        assert np.array_equal(own, trained)


def test_gradients_flow_through_a_policy_but_not_into_its_weights(trainer):
    eps_theta = policy.from_trainer(trainer).eps_theta
    x = Tensor(np.zeros((1, 8, 2), np.float32))
    with Tape() as tape:
        eps_hat = eps_theta(x, 3, np.ones((1, 43), np.float32))
    tape.backward(eps_hat)
    assert np.abs(x.grad).max() > 0
    for net, kind in (eps_theta.net, np.ndarray), (trainer.net, Tensor):  # which goes on learning
        assert all(type(p) is kind for p in net.params.values())


@pytest.mark.parametrize("resumable", [False, True])
def test_a_policy_comes_back_from_its_file_as_it_was(trainer, resumable, tmp_path):
    path = tmp_path / "policy.npz"
    policy.save(path, trainer, resumable, demos=["a.npz"])
    loaded, meta = policy.load(path, PUSHT)
    assert np.array_equal(plan_of(loaded), plan_of(policy.from_trainer(trainer)))
    assert meta["config"] == dataclasses.asdict(trainer.config)
    assert (meta["task"], meta["update"], meta["demos"]) == ("pusht", 6, ["a.npz"])
    assert meta["demos_sha256"] == trainer.demos_sha256 and meta["cpu_seconds"] > 0
    arrays, _ = checkpoint.load(path)
    needed_to_go_on = {"theta", "m", "v", "losses", "loss_by_t"}
    assert (needed_to_go_on <= set(arrays)) == resumable
    assert ("rng" in meta) == resumable


def test_options_of_a_policy_reach_it(trainer, tmp_path):
    policy.save(tmp_path / "p.npz", trainer)
    sampler = bind("ddim", steps=2)
    options = {"action_horizon": 5, "temperature": 0.3, "clip": 1.5}
    loaded, _ = policy.load(tmp_path / "p.npz", PUSHT, sampler, **options)
    direct = policy.from_trainer(trainer, sampler, **options)
    for planner in (loaded, direct):
        assert planner.sampler is sampler
        assert (planner.action_horizon, planner.temperature, planner.clip) == (5, 0.3, 1.5)
    assert np.array_equal(plan_of(loaded), plan_of(direct))


def test_the_folder_of_a_run_stands_for_its_file(trainer, tmp_path):
    """policy.npz, or checkpoint.npz as long as the run has one."""
    policy.save(tmp_path / "policy.npz", trainer, note="policy")
    assert policy.load(tmp_path, PUSHT)[1]["note"] == "policy"
    assert policy.load(str(tmp_path), PUSHT)[1]["note"] == "policy"
    policy.save(tmp_path / "checkpoint.npz", trainer, resumable=True, note="checkpoint")
    assert policy.load(tmp_path, PUSHT)[1]["note"] == "checkpoint"
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(FileNotFoundError, match="policy.npz: no such checkpoint"):
        policy.load(tmp_path, PUSHT)


def small_trainer(arrays, **options):
    """An untrained Trainer."""
    config = Config(**{"width": 8, "blocks": 1, "T": 5, "obs_horizon": 2, "pred_horizon": 8}
                    | options)
    return Trainer(config, PUSHT, demos.check(arrays, PUSHT))


def test_a_short_plan_is_carried_out_whole_unless_told_otherwise(arrays):
    short = small_trainer(arrays, pred_horizon=1)
    assert policy.from_trainer(short).action_horizon == 1
    longer = small_trainer(arrays, pred_horizon=5)
    assert policy.from_trainer(longer).action_horizon == 4
    assert policy.from_trainer(longer, action_horizon=3).action_horizon == 3


def test_a_task_without_a_frame_in_a_small_unit_has_a_file_too(arrays, tmp_path):
    """Each dimension has a scale of its own, which may be far below 1."""
    task = PUSHT._replace(frame=None, features=lambda obs, frame: obs[:, -1])
    metres = {name: arrays[name] / 1000 for name in ("state", "action")}
    trainer = Trainer(CONFIG, task, demos.check(arrays | metres, task))
    policy.save(tmp_path / "p.npz", trainer)
    loaded, _ = policy.load(tmp_path / "p.npz", task)
    assert loaded.normaliser.scale.shape == (8, 2)
    assert np.array_equal(plan_of(loaded), plan_of(policy.from_trainer(trainer)))


def test_a_plan_is_clipped_where_the_demonstrations_were(arrays):
    assert policy.from_trainer(small_trainer(arrays, clip=1.5)).clip == 1.5
    assert policy.from_trainer(small_trainer(arrays, clip=1.5), clip=2.5).clip == 2.5


def test_a_plan_uses_the_very_schedule_that_is_in_the_file(trainer, tmp_path):
    """Another machine may compute another last digit from the same config."""
    arrays, meta = policy.contents(trainer)
    beta = np.nextafter(arrays["beta"], 1)
    checkpoint.save(tmp_path / "p.npz", arrays | {"beta": beta}, meta)
    loaded, _ = policy.load(tmp_path / "p.npz", PUSHT)
    assert np.array_equal(loaded.schedule.beta[1:], beta)


def test_a_learned_variance_is_what_a_plan_is_sampled_with(arrays):
    learner = small_trainer(arrays, objective="hybrid", outputs=2)
    learned = functools.partial(ancestral_sampling, variance="learned")
    beta = functools.partial(ancestral_sampling, variance="beta")
    plan = plan_of(policy.from_trainer(learner))
    assert np.array_equal(plan, plan_of(policy.from_trainer(learner, learned)))
    assert np.abs(plan - plan_of(policy.from_trainer(learner, beta))).max() > 0.1


def test_a_guided_policy_with_a_learned_variance_can_be_pickled(arrays, tmp_path):
    """Rollouts send policies to other processes; the copy plans as the policy does."""
    learner = small_trainer(arrays, objective="hybrid", outputs=2, drop_cond=0.2)
    policy.save(tmp_path / "p.npz", learner)
    plain, _ = policy.load(tmp_path / "p.npz", PUSHT)
    guided, _ = beyond.load(tmp_path / "p.npz", PUSHT, guidance=1.5)
    plan = plan_of(guided)
    assert np.isfinite(plan).all() and np.abs(plan - plan_of(plain)).max() > 0.1
    for planner in (plain, guided):
        assert np.array_equal(plan_of(pickle.loads(pickle.dumps(planner))), plan_of(planner))


def test_regression_is_refused_by_the_path_and_loads_beyond_it(arrays, tmp_path):
    learner = small_trainer(arrays, objective="mse", outputs=OBJECTIVES["mse"].outputs)
    policy.save(tmp_path / "p.npz", learner)
    with pytest.raises(ValueError, match="it predicts no noise: minidiff.beyond.load knows"):
        policy.load(tmp_path / "p.npz", PUSHT)
    with pytest.raises(ValueError, match="it predicts no noise"):
        policy.from_trainer(learner)
    loaded, meta = beyond.load(tmp_path / "p.npz", PUSHT)
    assert meta["config"]["objective"] == "mse"
    assert np.array_equal(plan_of(loaded), plan_of(loaded, seed=2))  # nothing of it is random


@pytest.mark.parametrize("arrays_changed, meta_changed, said", [
    ({}, {"task": "chess"}, "a policy for the task 'chess', not for 'pusht'"),
    ({"mean": np.zeros(42)}, {}, "which do not fit"),
    ({"std": np.zeros(43)}, {}, "std and scale must be above 0"),
    ({"scale": np.zeros((8, 1))}, {}, "std and scale must be above 0"),
    ({"scale": np.ones((8, 2))}, {}, "which do not fit"),
    ({"centre": np.zeros(3)}, {}, "its actions are of 3 numbers, not of 2"),
    ({"std": np.full(43, np.nan)}, {}, "array 'std' is not made of finite numbers"),
    ({"beta": np.full(6, 1)}, {}, "array 'beta' is not made of finite numbers"),
    ({}, {"update": "many"}, "cannot have done many"),
    ({}, {"cpu_seconds": None}, "'cpu_seconds' cannot be None"),
    ({}, {"cpu_seconds": float("nan")}, "'cpu_seconds' cannot be nan"),
    ({}, {"cpu_seconds": 10**400}, "'cpu_seconds' cannot be 1000000000"),
    ({}, {"config": None}, "its config is not one of this version"),
    ({}, {"config": {"colour": "red"}}, "its config is not one of this version"),
    ({}, {"T": 0}, "--T must be at least 1, not 0"),
    ({"ema": np.zeros(3)}, {}, "do not fit the config"),
    ({"beta": np.full(6, 0.1)}, {}, "do not fit the config"),
    ({}, {"width": 24}, "do not fit the config"),
    ({"mean": np.full(43, np.nan)}, {}, "'mean' is not made of finite numbers"),
    ({"scale": np.full((8, 1), -1.0)}, {}, "std and scale must be above 0"),
    ({"scale": np.ones((7, 1))}, {}, "which do not fit"),
    ({"std": np.ones(44)}, {}, "which do not fit"),
    ({"ema": np.zeros(3, int)}, {}, "'ema' is not made of finite numbers"),
    ({"beta": np.array(["a"])}, {}, "'beta' is not made of finite numbers"),
    ({}, {"config": {}}, "its config lacks objective, outputs, net"),
    ({}, {"config": {"seed": 1, "T": 6}}, "its config lacks objective, outputs, net"),
    ({"ema": np.full(3, 3e38)}, {}, "'ema' is not made of finite numbers within +-1e+09"),
    ({"mean": np.full(43, -2e9)}, {}, "'mean' is not made of finite numbers within +-1e+09"),
    ({"std": np.full(43, 2e9)}, {}, "'std' is not made of finite numbers within +-1e+09"),
    ({"centre": np.full(2, 2e9)}, {}, "'centre' is not made of finite numbers within +-1e+09"),
    ({"scale": np.full((8, 1), 1e308)}, {}, "'scale' is not made of finite numbers within +-1e+09"),
    ({}, {"config": {"depth": 3}}, "its config is not one of this version"),
    ({}, {"width": 8000, "blocks": 900}, "is too large"),
    ({}, {"width": "16"}, "--width must be of the type int, not '16'"),
    ({}, {"T": 6.0}, "--T must be of the type int, not 6.0"),
    ({}, {"blocks": True}, "--blocks must be of the type int, not True"),
    ({}, {"precondition": 1}, "--precondition must be of the type bool, not 1"),
    ({}, {"clip": float("nan")}, "--clip must be at least 0.001, not nan"),
    ({}, {"clip": float("inf")}, "--clip must be at most 1000000.0, not inf"),
    ({}, {"T": 10**12}, "--T must be at most 100000, not 1000000000000"),
    ({}, {"net": ["mlp"]}, "--net must be of the type str, not ['mlp']"),
    ({}, {"objective": "mse"}, "trained by --objective mse, so it predicts no noise")], ids=str)
def test_files_that_do_not_fit_are_refused_in_words(
        trainer, arrays_changed, meta_changed, said, tmp_path):
    arrays, meta = policy.contents(trainer)
    for name, value in meta_changed.items():
        if name in meta["config"]:
            meta["config"][name] = value
        else:
            meta[name] = value
    checkpoint.save(tmp_path / "p.npz", arrays | arrays_changed, meta)
    with pytest.raises(ValueError) as error:
        policy.load(tmp_path / "p.npz", PUSHT)
    assert str(error.value).startswith(f"{tmp_path / 'p.npz'}: ") and said in str(error.value)


def test_features_of_another_number_than_the_file_is_for_are_refused(trainer, tmp_path):
    arrays, meta = policy.contents(trainer)
    meta["config"]["obs_horizon"] = 6
    checkpoint.save(tmp_path / "p.npz", arrays, meta)
    loaded = policy.load(tmp_path / "p.npz", PUSHT)[0]
    with pytest.raises(ValueError, match="for 43 features, not for 63"):
        loaded.plan(np.full((1, 6, 5), 100.0), np.random.default_rng(0))


def test_a_plan_that_is_not_finite_is_refused(trainer):
    obs = np.full((1, 2, 5), np.inf)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="a plan is not finite"):
        policy.from_trainer(trainer).plan(obs, np.random.default_rng(0))


def test_a_file_that_lacks_an_array_is_refused_by_its_name(trainer, tmp_path):
    arrays, meta = policy.contents(trainer)
    checkpoint.save(tmp_path / "p.npz", {"ema": arrays["ema"]}, meta)
    with pytest.raises(ValueError, match="lacks beta, mean, std, centre, scale"):
        policy.load(tmp_path / "p.npz", PUSHT)
    policy.save(tmp_path / "p.npz", trainer)
    with pytest.raises(ValueError, match="lacks theta, m"):
        policy.read(tmp_path / "p.npz", needs=("theta", "m"))


@pytest.mark.parametrize("number", [np.nan, np.inf, -2e9])
@pytest.mark.parametrize("name", ["theta", "v"])
def test_numbers_that_no_file_may_hold_are_never_saved(name, number, arrays, tmp_path):
    broken = small_trainer(arrays)
    broken.state()[name][3] = number
    with pytest.raises(Diverged, match=f"diverged at step 0: array '{name}' is not made of finite"):
        policy.save(tmp_path / "p.npz", broken)
    assert not (tmp_path / "p.npz").exists()
