"""Candidates, disturbances, paired comparison: what eval.py does to a policy beyond running it."""
import numpy as np
import pytest

from minidiff.pusht import rollout
from minidiff.pusht.study.candidates import BATCH, best, decide
from minidiff.pusht.study.disturbances import DisturbedEnv
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.data.expert import demonstrate
from minidiff.pusht.geometry import pose_error


class Scripted:
    """A policy that hands out the plans it was given, as many as it is asked for."""
    obs_horizon, pred_horizon, action_horizon = 2, 16, 2

    def __init__(self, make):
        self.make = make

    def plan(self, obs, rng):
        return self.make(obs, rng)


def pushing_env():
    """In the middle of an episode of the demonstrator -> the world, and what the demonstrator does next."""
    shown = demonstrate(3)
    env = PushTEnv()
    env.reset(seed=3)
    env.simulate(shown.actions[:40])
    return env, shown.actions[40:56].astype(float)


# ---- candidates -----------------------------------------------------------------------------------------------------

def test_the_copy_of_the_world_forecasts_what_happens():
    """From position and velocity alone, with no history: within a quarter of a pixel after 16 steps of pushing."""
    env, actions = pushing_env()
    assert np.abs(env.motion[5:]).max() > 20  # the agent moves
    scratch = PushTEnv()
    scratch.reset(options={"state": env.motion, "order": "exact"})
    assert np.abs(scratch.simulate(actions) - env.simulate(actions))[:, :4].max() < 0.25


def test_of_many_plans_the_one_is_kept_after_which_the_block_is_nearest_to_its_goal():
    env, good = pushing_env()
    rng = np.random.default_rng(0)
    plans = np.concatenate([good[None] + rng.normal(0, 40, (7, 1, 2)), good[None], 0 * good[None] + env.state[:2]])
    chosen, outcome = best(env, PushTEnv(), plans)
    outcomes = []
    for plan in plans:  # in the world itself
        copy = PushTEnv()
        copy.restore(env.snapshot())
        outcomes.append(misfit(copy.simulate(plan)[:, 2:]).min())
    assert (chosen == plans[np.argmin(outcomes)]).all() and outcome == pytest.approx(min(outcomes), abs=0.01)
    assert min(outcomes) < misfit(env.state[2:]) - 0.05


def test_where_no_plan_reaches_the_block_the_first_is_taken():
    env = PushTEnv()
    env.reset(options={"state": [50, 50, 400, 400, 1], "order": "exact"})
    plans = np.random.default_rng(0).uniform(20, 80, (5, 16, 2))
    assert (best(env, PushTEnv(), plans)[0] == plans[0]).all()


def test_a_decision_tries_as_many_plans_as_it_was_told_to_or_as_there_is_time_for():
    env, good = pushing_env()
    policy = Scripted(lambda obs, rng: np.repeat(good[None], len(obs), 0))
    obs = np.stack([env.state, env.state])
    plan, tried, ms = decide(policy, env, PushTEnv(), obs, None, candidates=3)
    assert (plan == good).all() and tried == 3 and ms > 0
    assert decide(policy, env, PushTEnv(), obs, None, 1, budget_ms=1e-3)[1] == BATCH
    plan, tried, ms = decide(policy, env, PushTEnv(), obs, None, 1, budget_ms=100)
    assert tried > BATCH and tried % BATCH == 0


@pytest.mark.slow
def test_candidates_solve_what_their_first_plan_alone_does_not():
    """Plans that are the demonstrator's, each moved by 30 px of noise: trying 16 of them makes up for it."""
    shown = demonstrate(3)

    def noisy(obs, rng):
        k = np.argmin(np.abs(shown.states - obs[0, -1]).sum(1))
        plan = np.pad(shown.actions[k:k + 16], ((0, max(0, k + 16 - len(shown.actions))), (0, 0)), mode="edge")
        return plan + 30 * rng.standard_normal((len(obs), 1, 2))
    alone, = rollout.rollout(Scripted(noisy), [3], max_steps=200)
    judged, = rollout.rollout(Scripted(noisy), [3], max_steps=200, candidates=16)
    assert judged.score > alone.score and judged.candidates == 16 and judged.decision_ms > 0 and alone.decision_ms is None


# ---- disturbances ---------------------------------------------------------------------------------------------------

def test_without_a_disturbance_nothing_changes():
    envs = PushTEnv(), DisturbedEnv()
    states = [[env.reset(seed=5)[0]] + [env.step((200 + 3 * k, 250))[0] for k in range(70)] for env in envs]
    np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("seed", range(5))
def test_a_kick_moves_the_block_once_by_what_it_says_and_the_clock_starts_again(seed):
    env = DisturbedEnv(kick_block=(50, 45), max_steps=100)
    poses, truncated = [env.reset(seed=seed)[0][2:]], False
    while not truncated:
        state, _, _, truncated, _ = env.step((20, 20))  # out of the way
        poses.append(state[2:])
    moved = np.diff(poses, axis=0)
    kicked, = np.flatnonzero(np.abs(moved).max(1) > 5)
    assert 20 <= kicked < 60 and len(poses) == 1 + kicked + 100
    turn = (np.degrees(moved[kicked, 2]) + 180) % 360 - 180
    assert abs(turn) == pytest.approx(45, abs=1e-6)
    assert np.hypot(*moved[kicked, :2]) == pytest.approx(50, abs=1e-6) or ((poses[kicked + 1][:2] - 80) % 352 < 1e-6).any()


def test_every_policy_meets_the_same_kick():
    jumps = []
    for target in ((20, 20), (20, 490)):
        env = DisturbedEnv(kick_block=(50, 45), kick_agent=60)
        states = np.array([env.reset(seed=1)[0]] + [env.step(target)[0] for _ in range(60)])
        moved = np.diff(states, axis=0)
        jumps.append(moved[np.abs(moved[:, 4]).argmax(), 2:])
    np.testing.assert_allclose(*jumps, atol=1e-6)


def test_late_orders_are_carried_out_late_and_the_agent_stays_until_then():
    prompt, late = PushTEnv(), DisturbedEnv(delay=3)
    prompt.reset(seed=2), late.reset(seed=2)
    here = prompt.state[:2]
    orders = np.random.default_rng(0).uniform(50, 450, (10, 2))
    expected = [prompt.step(order)[0] for order in [here] * 3 + list(orders[:7])]
    np.testing.assert_array_equal([late.step(order)[0] for order in orders], expected)


def test_weak_eyes_do_not_change_the_world():
    """Standard deviations of 600 x 5 draws within 6 standard errors (17 %), a false alarm of 1e-8."""
    env, clear = DisturbedEnv(obs_noise=3.0), PushTEnv()
    off = [env.reset(seed=2)[0] - clear.reset(seed=2)[0]]
    for _ in range(600):
        off.append(env.step((100, 100))[0] - clear.step((100, 100))[0])
    np.testing.assert_array_equal(env.state, clear.state)
    assert np.std(off, axis=0) == pytest.approx([3, 3, 3, 3, 0.05], rel=0.17)


# ---- comparison -----------------------------------------------------------------------------------------------------

def test_a_comparison_pairs_episodes_by_their_seed():
    sheet = lambda rows: [rollout.Episode(seed, score, score == 1, 9, 0.5) for seed, score in rows]
    a = sheet([(1, 0.5), (2, 1.0), (3, 0.25), (9, 1.0)])
    b = sheet([(3, 1.0), (2, 0.75), (1, 0.5), (7, 1.0)])
    d = rollout.compare(a, b)
    assert d["n"] == 3 and d["score"] == pytest.approx((0 - 0.25 + 0.75) / 3) and d["success"] == 0
    assert d["only_a"] == 1 and d["only_b"] == 1
    assert d["score_ci95"][0] < d["score"] < d["score_ci95"][1]
    with pytest.raises(ValueError, match="no seed in common"):
        rollout.compare(a[:1], b[:1])
