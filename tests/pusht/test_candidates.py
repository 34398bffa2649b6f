"""Candidates tried in the simulator, and worlds in which things go wrong."""
from minidiff.pusht.data.expert import demonstrate
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.geometry import pose_error
from minidiff.pusht.rollout import rollout
from minidiff.pusht.study.candidates import BATCH, BestOf, best
from minidiff.pusht.study.disturbances import DisturbedEnv

from functools import partial

import laws
import numpy as np
import pytest


class Scripted:
    """A policy whose plans come from make(obs, rng) -> (B, 16, 2)."""
    obs_horizon, pred_horizon, action_horizon = 2, 16, 2

    def __init__(self, make):
        self.make = make

    def plan(self, obs, rng):
        return self.make(obs, rng)


def pushing_env():
    """In the middle of a demonstration -> the world, and the demonstrator's next 16 actions."""
    demonstration = demonstrate(3)
    env = PushTEnv()
    env.reset(seed=3)
    env.simulate(demonstration.actions[:40])
    return env, demonstration.actions[40:56].astype(float)


# ---- candidates ----------------------------------------------------------------------------------

def test_the_copy_of_the_world_forecasts_what_happens():
    """From position and velocity alone: within a quarter of a pixel after 16 steps of pushing."""
    env, actions = pushing_env()
    assert np.abs(env.motion[5:]).max() > 20  # the agent moves
    scratch = PushTEnv()
    scratch.reset(options={"state": env.motion, "order": "exact"})
    off = scratch.simulate(actions) - env.simulate(actions)
    assert np.abs(off[:, :4]).max() < 0.25


def test_the_plan_is_kept_that_brings_the_block_nearest_to_its_goal():
    env, good = pushing_env()
    noisy = good + np.random.default_rng(0).normal(0, 40, (7, 1, 2))
    resting = 0 * good + env.state[:2]
    plans = np.concatenate([noisy, good[None], resting[None]])
    chosen, outcome = best(env, PushTEnv(), plans)
    outcomes = []
    for plan in plans:  # in the world itself
        copy = PushTEnv()
        copy.restore(env.snapshot())
        outcomes.append(pose_error(copy.simulate(plan)[:, 2:]).min())
    assert (chosen == plans[np.argmin(outcomes)]).all()
    assert outcome == pytest.approx(min(outcomes), abs=0.01)
    assert min(outcomes) < pose_error(env.state[2:]) - 0.05


def test_where_no_plan_reaches_the_block_the_first_is_taken():
    env = PushTEnv()
    env.reset(options={"state": [50, 50, 400, 400, 1], "order": "exact"})
    plans = np.random.default_rng(0).uniform(20, 80, (5, 16, 2))
    chosen, _ = best(env, PushTEnv(), plans)
    assert (chosen == plans[0]).all()


def test_a_decision_tries_as_many_plans_as_it_was_told_to():
    env, good = pushing_env()
    policy = Scripted(lambda obs, rng: np.repeat(good[None], len(obs), 0))
    obs = np.stack([env.state, env.state])
    decide = BestOf(policy, candidates=3)
    assert (decide(env, obs, None) == good).all()
    tried, ms = decide.cost()
    assert tried == 3 and ms > 0


def test_a_decision_tries_as_many_plans_as_there_is_time_for():
    env, good = pushing_env()
    policy = Scripted(lambda obs, rng: np.repeat(good[None], len(obs), 0))
    obs = np.stack([env.state, env.state])
    hurried, patient = BestOf(policy, 1, budget_ms=1e-3), BestOf(policy, 1, budget_ms=100)
    for decide in (hurried, patient):
        assert (decide(env, obs, None) == good).all()
    assert hurried.cost()[0] == BATCH
    tried, _ = patient.cost()
    assert tried > BATCH and tried % BATCH == 0


def test_each_episode_counts_the_costs_of_its_own_decisions():
    env, good = pushing_env()
    policy = Scripted(lambda obs, rng: np.repeat(good[None], len(obs), 0))
    decide = BestOf(policy, candidates=3)
    decide(env, np.stack([env.state, env.state]), None)
    anew = decide.start()
    assert anew.tried == [] and anew.candidates == 3 and decide.tried == [3]


@pytest.mark.slow
def test_candidates_solve_what_their_first_plan_alone_does_not():
    """The demonstrator's plans, each moved by 30 px of noise: 16 candidates make up for it."""
    demonstration = demonstrate(3)

    def noisy(obs, rng):
        k = np.argmin(np.abs(demonstration.states - obs[0, -1]).sum(1))
        plan = demonstration.actions[k:k + 16]
        plan = np.pad(plan, ((0, 16 - len(plan)), (0, 0)), mode="edge")
        return plan + 30 * rng.standard_normal((len(obs), 1, 2))

    policy, world = Scripted(noisy), partial(PushTEnv, max_steps=200)
    alone, = rollout(policy, [3], make_env=world)
    judged, = rollout(policy, [3], make_env=world, decide=BestOf(policy, 16))
    assert judged.score > alone.score
    assert judged.candidates == 16 and judged.decision_ms > 0 and alone.decision_ms is None


# ---- disturbances --------------------------------------------------------------------------------

def test_without_a_disturbance_nothing_changes():
    paths = []
    for env in (PushTEnv(), DisturbedEnv()):
        path = [env.reset(seed=5)[0]]
        for k in range(70):
            path.append(env.step((200 + 3 * k, 250))[0])
        paths.append(path)
    np.testing.assert_array_equal(*paths)


@pytest.mark.parametrize("seed", range(5))
def test_a_kick_moves_the_block_once_and_the_clock_starts_again(seed):
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
    at_the_margin = (poses[kicked + 1][:2] - 80) % 352 < 1e-6  # 80 or 432
    assert np.hypot(*moved[kicked, :2]) == pytest.approx(50, abs=1e-6) or at_the_margin.any()


def test_every_policy_meets_the_same_kick():
    jumps = []
    for target in ((20, 20), (20, 490)):
        env = DisturbedEnv(kick_block=(50, 45), kick_agent=60)
        states = [env.reset(seed=1)[0]]
        for _ in range(60):
            states.append(env.step(target)[0])
        moved = np.diff(states, axis=0)
        jumps.append(moved[np.abs(moved[:, 4]).argmax(), 2:])
    np.testing.assert_allclose(*jumps, atol=1e-6)


def test_with_action_latency_the_agent_stays_until_the_first_action_comes():
    prompt, late = PushTEnv(), DisturbedEnv(action_latency=3)
    prompt.reset(seed=2)
    late.reset(seed=2)
    here = prompt.state[:2]
    actions = np.random.default_rng(0).uniform(50, 450, (10, 2))
    expected = [prompt.step(action)[0] for action in [here] * 3 + list(actions[:7])]
    np.testing.assert_array_equal([late.step(action)[0] for action in actions], expected)


def test_observation_noise_does_not_change_the_world():
    env, clear = DisturbedEnv(obs_noise=3.0), PushTEnv()
    noise = [env.reset(seed=2)[0] - clear.reset(seed=2)[0]]
    for _ in range(600):
        noise.append(env.step((100, 100))[0] - clear.step((100, 100))[0])
    np.testing.assert_array_equal(env.state, clear.state)
    expected = np.array([3, 3, 3, 3, 0.05])
    laws.assert_close(np.std(noise, axis=0), expected, expected / np.sqrt(2 * 601))
