"""The receding-horizon policy, the lockstep rollouts that score it, and the intervals around the scores."""
import math
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from conftest import CONFIG, mirror
from hypothesis import given
from hypothesis import strategies as st
from laws import gaussian_denoiser

from minidiff import checkpoint, demos, policy
from minidiff.demos import Normaliser
from minidiff.diffusion import SCHEDULES
from minidiff.policy import DiffusionPolicy
from minidiff.pusht import rollout
from minidiff.pusht.env import GOAL_POSE, SUCCESS_COVERAGE, PushTEnv, coverage
from minidiff.pusht.features import PUSHT
from minidiff.pusht.rollout import Episode, EpisodeNoise


class Script:
    """A policy without a network: act(obs, noise) -> actions (B, 6, 2). It notes what it was shown."""
    obs_horizon, action_horizon = 3, 4

    def __init__(self, act):
        self.act, self.shown = act, []

    def plan(self, obs, rng):
        self.shown.append(obs)
        return self.act(obs, rng)


def stay(obs, rng):
    return np.repeat(obs[:, -1:, :2], 6, 1)


def wander(obs, rng):
    """Noise around the block: each episode's plan is computed alone, so batches cannot change it by rounding."""
    return obs[:, -1:, 2:4] + 60 * rng.standard_normal((len(obs), 6, 2))


# ---- the plan -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [{}, {"variance": "beta"}, {"sampler": "ddim", "steps": 3},
                                     {"sampler": "ddim", "steps": 5, "eta": 1.0}, {"start_noise": 0.2},
                                     {"sampler": "langevin"}, {"sampler": "pc"}], ids=str)
@pytest.mark.parametrize("schedule", [make(20) for make in SCHEDULES.values()], ids=list(SCHEDULES))
def test_with_the_ideal_denoiser_of_one_plan_the_policy_makes_exactly_that_plan(schedule, options):
    """eps = (x_t - sqrt(alpha_bar) c) / sqrt(1-alpha_bar): all of x_0 is at c, and so every sampler must end there."""
    rng = np.random.default_rng(0)
    c, scale = rng.uniform(-2, 2, (8, 2)), rng.uniform(5, 50, (8, 1))
    planner = DiffusionPolicy(gaussian_denoiser(schedule, c, 0), schedule, PUSHT,
                              Normaliser(np.zeros(43), np.ones(43), scale), 2, pred_horizon=8, **options)
    obs = rng.uniform(100, 400, (3, 2, 5))
    agent, axes = PUSHT.frame(obs)
    x, y = axes[:, None, :, 0], axes[:, None, :, 1]  # (3, 1, 2)
    expected = agent[:, None] + (c * scale)[:, :1] * x + (c * scale)[:, 1:] * y
    np.testing.assert_allclose(planner.plan(obs, rng), expected, rtol=0, atol=1e-2)


def test_the_ideal_plan_is_cut_off_at_the_clip():
    schedule, c = SCHEDULES["cosine"](20), np.array([[3.0, -0.5]] * 8)
    planner = DiffusionPolicy(gaussian_denoiser(schedule, c, 0), schedule, PUSHT,
                              Normaliser(np.zeros(43), np.ones(43), np.ones((8, 1))), 2, pred_horizon=8, clip=2)
    plan = planner.plan(np.zeros((1, 2, 5)), np.random.default_rng(0))
    np.testing.assert_allclose(plan[0], [[2, -0.5]] * 8, atol=1e-5)  # in the axes of a T that stands upright


def test_a_policy_in_a_mirror_does_what_is_seen_in_the_mirror(tiny_policy):
    """Whatever its weights: the frame sees to it (features.frame)."""
    obs = np.random.default_rng(0).uniform(100, 400, (5, 2, 5))
    plan, reflected = (tiny_policy().plan(o, np.random.default_rng(1)) for o in (obs, mirror(obs, obs)[0]))
    np.testing.assert_allclose(reflected, mirror(obs, plan)[1], atol=1e-3)
    assert np.ptp(plan, axis=1).max() > 5


@pytest.mark.parametrize("options", [{}, {"sampler": "ddim", "steps": 3, "eta": 0.5}, {"sampler": "sde"}, {"sampler": "pc"},
                                     {"sampler": "flow", "steps": 3}, {"sampler": "langevin"}], ids=str)
def test_a_plan_in_a_batch_is_the_plan_of_each_episode_alone(tiny_policy, options):
    seeds, planner = [3, 1, 4, 15], tiny_policy(**options)
    obs = np.random.default_rng(0).uniform(100, 400, (4, 2, 5))
    together = planner.plan(obs, EpisodeNoise(seeds, 0))
    assert together.shape == (4, 8, 2)
    for i, seed in enumerate(seeds):
        np.testing.assert_allclose(together[i:i + 1], planner.plan(obs[i:i + 1], EpisodeNoise([seed], 0)), atol=1e-2)
    assert np.abs(together[0] - planner.plan(obs[:1], EpisodeNoise([5], 0))).max() > 1  # another seed, another plan


def test_start_noise_scales_what_a_plan_starts_from(tiny_policy):
    """The prior is all that is random in DDIM with eta = 0: without it every plan is the same."""
    obs = np.random.default_rng(0).uniform(100, 400, (1, 2, 5))
    spread = [np.ptp([tiny_policy(sampler="ddim", steps=3, start_noise=scale).plan(obs, np.random.default_rng(seed))
                      for seed in range(4)], axis=0).max() for scale in (0, 0.1, 1)]
    assert spread[0] == 0 < spread[1] < spread[2] / 2


def test_guidance_is_handed_on_to_the_denoiser(tiny_policy):
    """With scale -1 the observation is forgotten: plans differ by where they start alone."""
    obs = np.random.default_rng(0).uniform(100, 400, (2, 2, 5))
    offsets = lambda **options: [(tiny_policy(sampler="ddim", steps=3, **options).plan(one[None], np.random.default_rng(0))
                                  - one[-1, :2]) @ PUSHT.frame(one[None])[1] for one in obs]
    assert np.abs(np.subtract(*offsets(guidance=-1))).max() < 1e-3 < 1 < np.abs(np.subtract(*offsets())).max()


@pytest.mark.parametrize("options, said", [
    ({"action_horizon": 0}, "action_horizon 0"), ({"action_horizon": 9}, "a plan has 8 actions"),
    ({"sampler": "euler"}, "'euler': choose from ancestral, ddim")])
def test_bad_options_are_refused_in_words(tiny_policy, options, said):
    with pytest.raises(ValueError, match=said):
        tiny_policy(**options)


@pytest.mark.parametrize("options, said", [
    ({"sampler": "ddim", "steps": 7}, "1 to T = 6 steps, not 7"), ({"sampler": "ddim", "steps": 0}, "not 0")])
def test_steps_that_the_chain_does_not_have_are_refused_in_words(tiny_policy, options, said):
    with pytest.raises(ValueError, match=said):
        tiny_policy(**options).plan(np.zeros((1, 2, 5)), np.random.default_rng(0))


def test_observations_of_another_horizon_are_refused_in_words(tiny_policy):
    with pytest.raises(ValueError, match=r"observations of shape \(B, 2, 5\), not \(3, 1, 5\)"):
        tiny_policy().plan(np.zeros((3, 1, 5)), np.random.default_rng(0))


# ---- a policy from its checkpoint ---------------------------------------------------------------------------------

@pytest.fixture
def saved(tmp_path, tiny_policy):
    """save(**changes): the tiny policy's checkpoint, some arrays or meta changed -> its path."""
    def save(arrays={}, **meta):
        planner = tiny_policy()
        theta = planner.eps_theta.net.theta
        checkpoint.save(tmp_path / "p.npz", {"ema": theta, "theta": 0 * theta, "beta": planner.schedule.beta[1:],
                                             **planner.normaliser._asdict()} | arrays,
                        {"task": "pusht", "config": CONFIG} | meta)
        return tmp_path / "p.npz"
    return save


def test_a_loaded_policy_plans_as_the_saved_one_with_the_averaged_weights(saved, tiny_policy):
    obs = np.random.default_rng(0).uniform(100, 400, (2, 2, 5))
    loaded, meta = policy.load(saved(), PUSHT, sampler="ddim", steps=2)
    assert meta["config"] == CONFIG
    np.testing.assert_array_equal(loaded.plan(obs, np.random.default_rng(1)),
                                  tiny_policy(sampler="ddim", steps=2).plan(obs, np.random.default_rng(1)))


def test_a_short_plan_is_carried_out_whole_unless_told_otherwise(saved):
    assert policy.load(saved(), PUSHT)[0].action_horizon == 2
    path = saved({"scale": np.ones((1, 1)), "ema": np.zeros_like(short_theta())}, config=CONFIG | {"pred_horizon": 1})
    assert policy.load(path, PUSHT)[0].action_horizon == 1


def short_theta():
    return policy.build(CONFIG | {"pred_horizon": 1}, PUSHT, 43, np.random.default_rng(0))[1].net.theta


def test_checkpoints_that_do_not_fit_are_refused_in_words(saved):
    for path, said in ((lambda: saved(task="chess"), "for the task 'chess', not for 'pusht'"),
                       (lambda: saved({"ema": np.zeros(3)}), "do not fit"),
                       (lambda: saved({"beta": np.full(6, 0.1)}), "do not fit"),
                       (lambda: saved(config=CONFIG | {"width": 24}), "do not fit")):
        with pytest.raises(ValueError, match=said):
            policy.load(path(), PUSHT)


# ---- the receding horizon -----------------------------------------------------------------------------------------

def test_the_policy_sees_the_latest_observations_and_acts_out_the_first_of_its_plan():
    """Before the first observation there is the first one again; of 6 planned actions 4 are carried out."""
    script = Script(wander)
    (episode,), (states,) = rollout.rollout(script, [7], noise_seed=1, max_steps=10, record=True)
    assert episode.steps == 10 and states.shape == (11, 5)
    starts = [0, 4, 8]  # the steps at which it planned
    assert len(script.shown) == len(starts)
    for start, obs in zip(starts, script.shown):
        np.testing.assert_array_equal(obs[0], [states[max(0, start + k)] for k in (-2, -1, 0)])
    env, noise = PushTEnv(), EpisodeNoise([7], 1)
    np.testing.assert_array_equal(env.reset(seed=7)[0], states[0])
    for start, obs in zip(starts, script.shown):
        for step, action in enumerate(wander(obs, noise)[0][:4], start + 1):
            if step <= 10:
                np.testing.assert_array_equal(env.step(action)[0], states[step])


def test_an_episode_does_not_depend_on_who_else_runs():
    together, states = rollout.rollout(Script(wander), [5, 2, 9, 4], max_steps=30, record=True)
    for i, seed in enumerate([5, 2, 9, 4]):
        alone, (path,) = rollout.rollout(Script(wander), [seed], max_steps=30, record=True)
        assert alone == [together[i]]
        np.testing.assert_array_equal(path, states[i])


def test_an_episodes_noise_does_not_depend_on_who_else_is_still_active():
    alone, together = EpisodeNoise([8], 3), EpisodeNoise([1, 8, 2], 3)
    for active in ([0, 1, 2], [1, 2], [1]):
        together.active = active
        np.testing.assert_array_equal(together.standard_normal((len(active), 4, 2), np.float32)[active.index(1)],
                                      alone.standard_normal((1, 4, 2), np.float32)[0])
    first, other = (EpisodeNoise([8], noise_seed).standard_normal((1, 4)) for noise_seed in (3, 4))
    assert (first != other).all()


# ---- many episodes on any executor --------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [lambda p: p(), lambda p: Script(wander)], ids=["network", "script"])
def test_results_do_not_depend_on_the_workers(make, tiny_policy, monkeypatch):
    monkeypatch.setattr(rollout, "CHUNK", 3)
    policy, seeds, results, done = make(tiny_policy), range(20, 28), [], []
    for executor in (ThreadPoolExecutor(1), ThreadPoolExecutor(3), ProcessPoolExecutor(1), ProcessPoolExecutor(2)):
        with executor:
            results.append(rollout.evaluate(policy, seeds, executor, 5, done.append, max_steps=12))
    assert [e.seed for e in results[0]] == list(seeds)
    assert results[1:] == results[:-1]
    assert done == [3, 6, 8] * 4
    assert len({e.final_coverage for e in results[0]}) > 1


def test_results_do_not_depend_on_the_chunks(monkeypatch):
    results = []
    for chunk in (1, 3, 50):
        monkeypatch.setattr(rollout, "CHUNK", chunk)
        with ThreadPoolExecutor(2) as executor:
            results.append(rollout.evaluate(Script(wander), range(7), executor, max_steps=15))
    assert results[0] == results[1] == results[2]


def test_when_one_chunk_fails_those_not_begun_are_cancelled(monkeypatch):
    """Else Ctrl-C would have to wait for every episode that was asked for."""
    monkeypatch.setattr(rollout, "CHUNK", 1)

    def fail(obs, rng):
        raise KeyboardInterrupt

    script = Script(fail)
    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyboardInterrupt):
        rollout.evaluate(script, range(1000), executor)
    assert len(script.shown) < 1000


# ---- scores -------------------------------------------------------------------------------------------------------

def shifted(covered):
    """A pose that covers so much of the goal: the T moved along its bar."""
    d = 6300 * (1 - covered) / 120
    return GOAL_POSE[0] + d * math.cos(GOAL_POSE[2]), GOAL_POSE[1] + d * math.sin(GOAL_POSE[2]), GOAL_POSE[2]


@pytest.fixture
def starts(monkeypatch):
    """A table, seed -> start, to be filled by a test: the worlds of a rollout then begin there."""
    table = {}

    class World(PushTEnv):
        def reset(self, *, seed):
            return super().reset(options={"state": table[seed], "order": "exact"})

    monkeypatch.setattr(rollout, "PushTEnv", World)
    return table


def test_the_scores_of_a_policy_that_does_nothing_are_those_of_its_starts(starts):
    starts |= {1: (20, 20, *GOAL_POSE), 2: (20, 20, *shifted(0.9)), 3: (490, 490, 100, 100, 0),
               4: (20, 20, *shifted(0.96))}
    on_goal, near, far, just = rollout.rollout(Script(stay), [1, 2, 3, 4], max_steps=9)
    assert on_goal == Episode(1, 1.0, True, 1, pytest.approx(1.0))
    assert near == Episode(2, pytest.approx(0.9 / 0.95), False, 9, pytest.approx(0.9))
    assert far == Episode(3, 0.0, False, 9, 0.0)
    assert just == Episode(4, 1.0, True, 1, pytest.approx(0.96))


def test_the_score_is_the_best_moment_and_the_final_coverage_the_last(starts):
    """The agent comes from the left and pushes the T off its goal."""
    starts[1] = (60, 340, *shifted(0.94))
    push = Script(lambda obs, rng: np.full((len(obs), 6, 2), (230.0, 340.0)))
    (episode,), (states,) = rollout.rollout(push, [1], max_steps=20, record=True)
    covered = [coverage(state[2:]) for state in states[1:]]
    assert episode.score == pytest.approx(max(covered) / SUCCESS_COVERAGE) and not episode.success
    assert episode.final_coverage == pytest.approx(covered[-1])
    assert covered[-1] < 0.7 < 0.9 < max(covered)


def test_an_episode_ends_with_its_success_while_others_go_on(starts):
    starts |= {1: (20, 20, *shifted(0.9)), 2: (20, 20, *GOAL_POSE), 3: (20, 20, *shifted(0.5))}
    script = Script(lambda obs, rng: stay(obs, rng) + rng.standard_normal((len(obs), 6, 2)))
    episodes, states = rollout.rollout(script, [1, 2, 3], max_steps=6, record=True)
    assert [e.steps for e in episodes] == [6, 1, 6]
    assert [len(s) for s in states] == [7, 2, 7]
    assert [len(obs) for obs in script.shown] == [3, 2]  # at step 0 and at step 4
    np.testing.assert_allclose(script.shown[1][:, -1, 2:], [shifted(0.9), shifted(0.5)])
    assert rollout.rollout(script, [3], max_steps=6) == episodes[2:]


# ---- intervals ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("successes, n, low, high", [
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)])
def test_wilsons_interval_has_its_published_values(successes, n, low, high):
    """Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3."""
    assert rollout.wilson(successes, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_a_part_of_0_to_1_around_the_share_and_symmetric(k_n):
    k, n = k_n
    low, high = rollout.wilson(k, n)
    assert 0 <= low <= k / n + 1e-15 and k / n - 1e-15 <= high <= 1 and low < high
    assert rollout.wilson(n - k, n) == (pytest.approx(1 - high, abs=1e-12), pytest.approx(1 - low, abs=1e-12))
    for bound in (low, high):  # at its bounds the share is 1.96 standard errors away
        assert (k / n - bound) ** 2 == pytest.approx(1.959964**2 * bound * (1 - bound) / n, abs=1e-12)
    wider = rollout.wilson(k, n)[1] - low
    assert rollout.wilson(4 * k, 4 * n)[1] - rollout.wilson(4 * k, 4 * n)[0] < wider


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_the_bootstrap_interval_lies_around_the_mean(values):
    low, high = rollout.bootstrap(np.array(values), resamples=200)
    assert min(values) - 1e-9 <= low <= np.mean(values) + 1e-9 and np.mean(values) - 1e-9 <= high <= max(values) + 1e-9


def test_the_bootstrap_interval_of_many_normal_values_is_that_of_the_normal_law():
    values = np.random.default_rng(0).normal(0.5, 0.1, 2000)
    half = 1.96 * values.std() / math.sqrt(2000)
    np.testing.assert_allclose(rollout.bootstrap(values), [values.mean() - half, values.mean() + half], atol=0.1 * half)


def test_a_summary_says_what_the_episodes_say():
    episodes = [Episode(11, 1.0, True, 80, 0.96), Episode(12, 0.4, False, 300, 0.1), Episode(13, 1.0, True, 120, 0.97),
                Episode(10, 0.6, False, 300, 0.57)]
    s = rollout.summary(episodes)
    assert s["n"] == 4 and s["first_seed"] == 10 and s["last_seed"] == 13
    assert s["score"] == pytest.approx(0.75) and s["success"] == 0.5 and s["below_half"] == 0.25
    assert s["final_coverage"] == pytest.approx(0.65) and s["steps_to_success"] == 100
    assert s["success_ci95"] == list(rollout.wilson(2, 4))
    assert s["score_ci95"] == pytest.approx(list(rollout.bootstrap(np.array([1.0, 0.4, 1.0, 0.6]))))
    for word in ("0.750", "50.0%", "median 100 steps", "4 episodes, seeds 10..13"):
        assert word in rollout.sentence(s)


def test_a_summary_without_success_has_no_steps_to_success():
    s = rollout.summary([Episode(0, 0.1, False, 300, 0.1)])
    assert s["steps_to_success"] is None and s["success"] == 0 and "median" not in rollout.sentence(s)
