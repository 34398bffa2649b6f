"""Candidates tried in the simulator, and worlds in which things go wrong."""
from minidiff.pusht.data.expert import demonstrate
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT
from minidiff.pusht.geometry import GOAL_POSE, pose_error
from minidiff.pusht.study import candidates
from minidiff.pusht.study.candidates import BATCH, BestOf, best
from minidiff.pusht.study.disturbances import DisturbedEnv
from minidiff.scoring.rollout import rollout

from functools import partial
from types import SimpleNamespace

import laws
import numpy as np
import pytest


class Scripted:
    """A policy whose plans come from make(obs, rng) -> (B, 16, 2)."""
    obs_horizon, pred_horizon, action_horizon, task = 2, 16, 2, PUSHT

    def __init__(self, make):
        self.make = make
        self.asked = []

    def plan(self, obs, rng):
        self.asked.append((obs, rng))
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


def test_a_plan_is_worth_its_best_moment():
    """The first passes near the goal, the second ends nearer than that one. A plan here is the
    states that it leads to."""
    plans = np.tile([0, 0, *GOAL_POSE], (2, 3, 1))
    plans[:, :, 2] += [[50, 1, 90], [60, 40, 20]]
    scratch = SimpleNamespace(reset=lambda options: None, simulate=lambda plan: plan)
    chosen, outcome = best(SimpleNamespace(motion=None), scratch, plans)
    assert (chosen == plans[0]).all() and outcome == pose_error(plans[0, 1, 2:])


def test_where_no_plan_reaches_the_block_the_first_is_taken():
    env = PushTEnv()
    env.reset(options={"state": [50, 50, 400, 400, 1], "order": "exact"})
    plans = np.random.default_rng(0).uniform(20, 80, (5, 16, 2))
    chosen, _ = best(env, PushTEnv(), plans)
    assert (chosen == plans[0]).all()


def test_a_decision_tries_as_many_plans_as_it_was_told_to():
    env, good = pushing_env()
    policy = Scripted(lambda obs, rng: np.repeat(good[None], len(obs), 0))
    obs, rng = np.stack([env.state, env.state + 1]), np.random.default_rng(0)
    decide = BestOf(policy, candidates=3)
    assert (decide(env, obs, rng) == good).all()
    (asked, given), = policy.asked
    assert asked.shape == (3, 2, 5) and (asked == obs).all() and given is rng
    tried, ms = decide.cost()
    assert tried == 3 and ms > 0


@pytest.mark.parametrize("budget, batches", [(0, 1), (24, 3), (31, 3), (32, 4)])
def test_a_decision_tries_as_many_plans_as_there_is_time_for(budget, batches, monkeypatch):
    """A batch takes 8 ms, and one that would end too late is not begun. The best plans are in the
    second batch and, as good, in the third."""
    clock = 0.0
    plans = np.random.default_rng(0).uniform(20, 80, (batches, BATCH, 16, 2))

    def plan(obs, rng):
        nonlocal clock
        clock += 0.008
        return plans[len(policy.asked) - 1]

    monkeypatch.setattr(candidates, "time", SimpleNamespace(perf_counter=lambda: clock))
    monkeypatch.setattr(candidates, "best", lambda env, scratch, plans: (
        plans[0], (1, 0, 0, 1)[len(policy.asked) - 1]))
    policy = Scripted(plan)
    decide = BestOf(policy, 1, budget + 1e-9)
    assert (decide(None, np.zeros((1, 5)), None) == plans[min(batches, 2) - 1, 0]).all()
    assert decide.cost() == (batches * BATCH, pytest.approx(8 * batches))


def test_each_episode_counts_the_costs_of_its_own_decisions():
    env, good = pushing_env()
    policy = Scripted(lambda obs, rng: np.repeat(good[None], len(obs), 0))
    decide = BestOf(policy, 3, budget_ms=1e-3)
    decide(env, np.stack([env.state, env.state]), None)
    anew = decide.start()
    assert (anew.policy, anew.candidates, anew.budget_ms) == (policy, 3, 1e-3)
    assert anew.tried == [] and decide.tried == [BATCH]
    anew.tried, anew.spent = [4, 4, 16], [1.0, 9.0, 2.0]
    assert anew.cost() == (8, 2), "the mean, and the median"


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


def test_a_plan_is_tried_from_the_motion_of_the_world():
    """In which the agent has a velocity."""
    env, scratch = PushTEnv(), PushTEnv()
    env.reset(seed=3)
    env.simulate(np.full((3, 2), 500.0))
    assert np.abs(env.motion[5:]).max() > 20
    begun, reset = [], scratch.reset
    scratch.reset = lambda options: (begun.append(options["state"]), reset(options=options))
    best(env, scratch, np.full((2, 4, 2), 200.0))
    np.testing.assert_array_equal(begun, [env.motion] * 2)


# ---- disturbances --------------------------------------------------------------------------------

def test_without_a_disturbance_nothing_changes():
    paths = []
    for env in (PushTEnv(), DisturbedEnv()):
        path = [env.reset(seed=5)[0]]
        for k in range(70):
            path.append(env.step((200 + 3 * k, 250))[0])
        paths.append(path)
    np.testing.assert_array_equal(*paths)


def kicked(env, seed, state):
    """How the motion (7,) of a world in that state changes when it is kicked."""
    env.reset(seed=seed, options={"state": state, "order": "exact"})
    before = np.array(env.motion)
    env.kick()
    return np.array(env.motion) - before


def test_kicks_are_as_large_as_asked_and_go_every_way():
    """The agent's has a direction of its own; velocities stay."""
    state = [120, 380, 256, 256, 3, 7, -9]
    env = DisturbedEnv(kick_block=(30, 20), kick_agent=50)
    moves = np.array([kicked(env, seed, state) for seed in range(600)])
    agent, block = moves[:, 0] + 1j * moves[:, 1], moves[:, 2] + 1j * moves[:, 3]
    assert np.abs(agent) == pytest.approx(50) and np.abs(block) == pytest.approx(30)
    assert np.abs(moves[:, 4]) == pytest.approx(np.radians(20))
    assert np.abs(moves[:, 5:]).max() < 1e-9
    agent, block = agent / 50, block / 30
    for ways in (agent, block, agent * block, agent * block.conj()):
        laws.assert_close(np.array([ways.mean().real, ways.mean().imag]), 0, 1 / np.sqrt(2 * 600))
    laws.assert_close(np.sign(moves[:, 4]).mean(), 0, 1 / np.sqrt(600))


def test_what_is_kicked_stays_between_the_walls():
    state = np.array([30, 480, 100, 400, 0.3, 0, 0])
    env = DisturbedEnv(kick_block=(500, 0), kick_agent=500)
    ends = state + [kicked(env, seed, state) for seed in range(60)]
    assert ends[:, :2].min(0).tolist() == [20, 20] and ends[:, :2].max(0).tolist() == [492, 492]
    assert ends[:, 2:4].min(0) == pytest.approx([80, 80])
    assert ends[:, 2:4].max(0) == pytest.approx([432, 432])


def test_what_is_not_kicked_stays_where_it_is():
    """Also near a wall, where what is kicked would not be put."""
    state = np.array([10, 10, 70, 256, 0, 0, 0])
    moved = kicked(DisturbedEnv(kick_agent=30), 3, state)
    assert moved[:2].any() and not moved[2:].any()
    moved = kicked(DisturbedEnv(kick_block=(30, 20)), 3, state)
    assert not moved[:2].any() and moved[2:5].all()


@pytest.mark.parametrize("options, said", [
    ({"kick_agent": 1, "max_steps": 59}, "max_steps 59: a kick comes at a step from 20 to 59"),
    ({"kick_block": (0, 1), "max_steps": 59}, "max_steps 59: a kick comes at a step"),
    ({"action_latency": 8, "max_steps": 8}, "max_steps 8: no action is carried out with an")])
def test_disturbances_that_never_come_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        DisturbedEnv(**options)
    DisturbedEnv(**options | {"max_steps": options["max_steps"] + 1})


def test_a_kick_comes_at_a_step_from_20_to_59_by_the_seed():
    env = DisturbedEnv(kick_agent=1)
    steps = []
    for seed in range(600):
        env.reset(seed=seed)
        steps.append(env.kick_step)
    assert set(steps) == set(range(20, 60))  # one is missing with a probability of 1e-5


def test_the_first_observation_is_noisy_too():
    env, clear = DisturbedEnv(obs_noise=3.0), PushTEnv()
    noise = [env.reset(seed=seed)[0] - clear.reset(seed=seed)[0] for seed in range(9)]
    assert (np.abs(noise) > 0).all()
    with pytest.raises(ValueError, match="obs_type keypoints: what is disturbed is the state"):
        DisturbedEnv(obs_type="keypoints")


def test_each_seed_has_its_own_disturbances():
    env = DisturbedEnv()
    chances = []
    for seed in (0, 1, 2, 0):
        env.reset(seed=seed)
        chances.append(env.chance.random())
    assert len(set(chances)) == 3 and chances[0] == chances[3]


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
    assert np.abs(np.corrcoef(np.transpose(noise)) - np.eye(5)).max() < 6 / np.sqrt(601)
    env.chance = SimpleNamespace(standard_normal=np.ones)
    expected = np.array([3, 3, 3, 3, 0.05])
    np.testing.assert_allclose(env.observed(np.zeros(5)), expected)
    laws.assert_close(np.std(noise, axis=0), expected, expected / np.sqrt(2 * 601))
