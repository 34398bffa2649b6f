"""Episodes of a policy: in lockstep or alone, the same whatever else runs, on any executor."""
from minidiff import stopping
from minidiff.beyond import samplers
from minidiff.demos import Task
from minidiff.diffusion import ancestral_sampling
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT
from minidiff.pusht.geometry import GOAL_POSE, SUCCESS_COVERAGE, coverage
from minidiff.pusht.study.candidates import BestOf
from minidiff.pusht.study.disturbances import DisturbedEnv
from minidiff.scoring import rollout as rollouts
from minidiff.scoring.rollout import EpisodeNoise, Unfinished, evaluate, rollout
from minidiff.scoring.scores import Episode
from minidiff.scoring.workers import Workers

import math
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest


class Script:
    """A policy without a network: act(obs, rng) -> actions (B, 6, 2). It notes what it observed."""
    obs_horizon, action_horizon, task = 3, 4, PUSHT

    def __init__(self, act):
        self.act = act
        self.observed = []

    def plan(self, obs, rng):
        self.observed.append(obs)
        return self.act(obs, rng)


def stay(obs, rng):
    return np.repeat(obs[:, -1:, :2], 6, 1)


def wander(obs, rng):
    """Noise around the block. No sum runs over the batch, so rounding cannot tie episodes."""
    return obs[:, -1:, 2:4] + 60 * rng.standard_normal((len(obs), 6, 2))


class StartsAt(PushTEnv):
    """Seeds become the starts of a table, seed -> state."""

    def __init__(self, table, **options):
        super().__init__(**options)
        self.table = table

    def reset(self, *, seed=None, options=None):
        return super().reset(options={"state": self.table[seed], "order": "exact"})


def shifted(covered):
    """A pose that covers so much of the goal: the T moved along its bar."""
    x, y, angle = GOAL_POSE
    d = 6300 * (1 - covered) / 120
    return x + d * math.cos(angle), y + d * math.sin(angle), angle


# ---- noise ---------------------------------------------------------------------------------------

def test_an_episodes_noise_does_not_depend_on_who_else_is_still_active():
    alone, together = EpisodeNoise([8], 3), EpisodeNoise([1, 8, 2], 3)
    for active in ([0, 1, 2], [1, 2], [1]):
        together.active = active
        batch = together.standard_normal((len(active), 4, 2), np.float32)
        np.testing.assert_array_equal(batch[active.index(1)],
                                      alone.standard_normal((1, 4, 2), np.float32)[0])
        assert batch.dtype == np.float32
    first = EpisodeNoise([8], 3).standard_normal((1, 4))
    other = EpisodeNoise([8], 4).standard_normal((1, 4))
    assert (first != other).all()


@pytest.mark.parametrize("sampler", [
    ancestral_sampling, partial(samplers.ddim_sampling, steps=3, eta=0.5),
    samplers.reverse_sde, partial(samplers.probability_flow, steps=3),
    samplers.annealed_langevin, samplers.predictor_corrector],
    ids=["ancestral", "ddim", "sde", "flow", "langevin", "pc"])
def test_a_plan_in_a_batch_is_the_plan_of_each_episode_alone(tiny_policy, sampler):
    seeds, planner = [3, 1, 4, 15], tiny_policy(sampler=sampler)
    obs = np.random.default_rng(0).uniform(100, 400, (4, 2, 5))
    together = planner.plan(obs, EpisodeNoise(seeds, 0))
    assert together.shape == (4, 8, 2)
    for i, seed in enumerate(seeds):
        alone = planner.plan(obs[i:i + 1], EpisodeNoise([seed], 0))
        np.testing.assert_allclose(together[i:i + 1], alone, atol=1e-2)
    other = planner.plan(obs[:1], EpisodeNoise([5], 0))
    assert np.abs(together[0] - other).max() > 1  # another seed, another plan


# ---- the receding horizon ------------------------------------------------------------------------

def test_the_policy_sees_the_last_observations_and_carries_out_its_plan():
    """Before the first observation stands the first again; of 6 planned actions 4 are taken."""
    script = Script(wander)
    (episode,), (states,) = rollout(script, [7], 1, partial(PushTEnv, max_steps=10), record=True)
    assert episode.steps == 10 and states.shape == (11, 5)
    starts = [0, 4, 8]  # the steps at which it planned
    assert len(script.observed) == len(starts)
    for start, obs in zip(starts, script.observed):
        last_three = [states[max(0, start + k)] for k in (-2, -1, 0)]
        np.testing.assert_array_equal(obs[0], last_three)
    env, noise = PushTEnv(), EpisodeNoise([7], 1)
    np.testing.assert_array_equal(env.reset(seed=7)[0], states[0])
    for start, obs in zip(starts, script.observed):
        plan = wander(obs, noise)[0]
        for step in range(start, min(start + 4, 10)):
            np.testing.assert_array_equal(env.step(plan[step - start])[0], states[step + 1])


def test_an_episode_does_not_depend_on_who_else_runs():
    seeds, world = [5, 2, 9, 4], partial(PushTEnv, max_steps=30)
    together, states = rollout(Script(wander), seeds, make_env=world, record=True)
    for i, seed in enumerate(seeds):
        alone, (path,) = rollout(Script(wander), [seed], make_env=world, record=True)
        assert alone == [together[i]]
        np.testing.assert_array_equal(path, states[i])


def test_an_episode_that_decides_alone_is_the_one_of_the_lockstep():
    policy, options = Script(wander), {"make_env": partial(PushTEnv, max_steps=30), "record": True}
    together, states = rollout(policy, [5, 2, 9], 7, **options)
    alone, paths = rollout(policy, [5, 2, 9], 7, **options,
                           decide=lambda env, obs, rng: policy.plan(obs[None], rng)[0])
    assert alone == together
    for path, expected in zip(paths, states):
        np.testing.assert_array_equal(path, expected)


class Counting:
    """Decides to stay, and counts its decisions."""
    count = 0

    def start(self):
        return Counting()

    def cost(self):
        return self.count, 10.0 * self.count

    def __call__(self, env, obs, rng):
        self.count += 1
        return stay(obs[None], rng)[0]


def test_an_episode_that_decides_alone_has_the_costs_of_its_own_decisions(monkeypatch):
    """Also where it is reported, to be kept if the others do not end."""
    reported = []
    monkeypatch.setattr(rollouts.workers, "report", reported.append)
    world = partial(StartsAt, {1: (20, 20, *shifted(0.5)), 2: (20, 20, *GOAL_POSE)}, max_steps=9)
    episodes = rollout(Script(stay), [1, 2, 1], make_env=world, decide=Counting())
    costs = [(episode.candidates, episode.decision_ms) for episode in episodes]
    assert costs == [(3, 30), (1, 10), (3, 30)] and reported == episodes


# ---- what an episode brings ----------------------------------------------------------------------

def test_the_scores_of_a_policy_that_does_nothing_are_those_of_its_starts():
    table = {1: (20, 20, *GOAL_POSE), 2: (20, 20, *shifted(0.9)), 3: (490, 490, 100, 100, 0),
             4: (20, 20, *shifted(0.96))}
    world = partial(StartsAt, table, max_steps=9)
    on_goal, near, far, just = rollout(Script(stay), [1, 2, 3, 4], make_env=world)
    assert on_goal == Episode(1, 1.0, True, 1, pytest.approx(1.0))
    assert near == Episode(2, pytest.approx(0.9 / 0.95), False, 9, pytest.approx(0.9 / 0.95))
    assert far == Episode(3, 0.0, False, 9, 0.0)
    assert just == Episode(4, 1.0, True, 1, 1.0)


def test_the_score_of_pusht_is_its_best_moment_wherever_it_ends():
    """The agent comes from the left and pushes the T off its goal."""
    world = partial(StartsAt, {1: (60, 340, *shifted(0.94))}, max_steps=20)
    push = Script(lambda obs, rng: np.full((len(obs), 6, 2), (230.0, 340.0)))
    (episode,), (states,) = rollout(push, [1], make_env=world, record=True)
    covered = [coverage(state[2:]) for state in states[1:]]
    assert episode.score == pytest.approx(max(covered) / SUCCESS_COVERAGE) and not episode.success
    assert episode.last_reward == pytest.approx(covered[-1] / SUCCESS_COVERAGE)
    assert covered[-1] < 0.7 < 0.9 < max(covered)


def test_an_episode_ends_with_its_success_while_others_go_on():
    table = {1: (20, 20, *shifted(0.9)), 2: (20, 20, *GOAL_POSE), 3: (20, 20, *shifted(0.5))}
    world = partial(StartsAt, table, max_steps=6)
    script = Script(lambda obs, rng: stay(obs, rng) + rng.standard_normal((len(obs), 6, 2)))
    episodes, states = rollout(script, [1, 2, 3], make_env=world, record=True)
    assert [e.steps for e in episodes] == [6, 1, 6]
    assert [len(s) for s in states] == [7, 2, 7]
    assert [len(obs) for obs in script.observed] == [3, 2]  # at step 0 and at step 4
    np.testing.assert_allclose(script.observed[1][:, -1, 2:], [shifted(0.9), shifted(0.5)])
    assert rollout(script, [3], make_env=world) == episodes[2:]


class Counter:
    """A world that counts its steps in its reward and never ends; at its third it is a success."""

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return [0, seed], {}

    def step(self, action):
        self.steps += 1
        info = {"is_success": self.steps == 3} if self.steps > 1 else {}
        return [[self.steps], [0]], self.steps, False, False, info


@pytest.mark.parametrize("score, brought", [(sum, 15.0), (max, 5.0), (len, 5.0)])
@pytest.mark.parametrize("alone", [False, True])
def test_a_task_decides_what_the_score_is_and_when_an_episode_ends(score, brought, alone):
    script = Script(stay)
    script.task = Task("count", make_env=Counter, max_steps=5, score=score)
    decide = (lambda env, obs, rng: script.plan(obs[None], rng)[0]) if alone else None
    (episode,), (states,) = rollout(script, [7], decide=decide, record=True)
    assert episode == Episode(7, brought, True, 5, 5.0)
    assert states.tolist() == [[0, 7]] + [[k, 0] for k in range(1, 6)]  # as rows of numbers
    script.task = script.task._replace(max_steps=2)
    assert rollout(script, [7], decide=decide)[0].success is False
    script.task = script.task._replace(max_steps=1)
    assert rollout(script, [7], decide=decide)[0].success is None  # it was not told


class Broken(Counter):
    """A world that fails at its reset for seed 2, and at its third step otherwise."""

    def reset(self, *, seed=None, options=None):
        if seed == 2:
            raise KeyError("the door")
        return super().reset(seed=seed)

    def step(self, action):
        if self.steps == 2:
            raise ZeroDivisionError("by hand")
        return super().step(action)


@pytest.mark.parametrize("seed, said", [
    (2, r"the world of the task 'count' fails at its reset with seed 2: KeyError: .the door"),
    (7, r"the world of the task 'count' fails at step 3 from seed 7: ZeroDivisionError: by h")])
def test_an_error_of_a_world_says_when_it_came(seed, said):
    script = Script(stay)
    script.task = Task("count", make_env=Broken)
    with pytest.raises(ValueError, match=said):
        rollout(script, [seed])


class Long(Counter):
    """A world that ends by itself, after 1,200 steps."""

    def step(self, action):
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, self.steps == 1200, truncated, info


def test_without_a_last_step_of_the_task_the_world_ends_an_episode():
    script = Script(stay)
    script.task = Task("long", make_env=Long, max_steps=None)
    assert rollout(script, [7])[0].steps == 1200


class InPlace(Counter):
    """A world that goes on in the array that it has shown."""

    def reset(self, *, seed=None, options=None):
        self.state = np.zeros(2)
        return self.state, {}

    def step(self, action):
        self.state += 1
        return self.state, 0.0, False, False, {}


@pytest.mark.parametrize("alone", [False, True])
def test_what_was_observed_stays_if_a_world_reuses_its_array(alone):
    script = Script(stay)
    script.task = Task("count", make_env=InPlace, max_steps=5)
    decide = (lambda env, obs, rng: script.plan(obs[None], rng)[0]) if alone else None
    _, (states,) = rollout(script, [7], decide=decide, record=True)
    assert states[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert script.observed[1][0, :, 0].tolist() == [2, 3, 4]


def test_an_observation_that_is_no_array_is_refused_in_words():
    with pytest.raises(ValueError, match="observation is a dict, not an array of numbers: let mak"):
        rollouts.numbers({"position": np.zeros(2)})


# ---- many episodes on any executor ---------------------------------------------------------------

@pytest.mark.parametrize("planner", ["network", "script"])
def test_episodes_are_the_same_on_any_number_of_workers(planner, tiny_policy, monkeypatch):
    monkeypatch.setattr(rollouts, "CHUNK", 3)
    policy = tiny_policy() if planner == "network" else Script(wander)
    seeds, results, done = range(20, 28), [], []
    for kind, count in ((ThreadPoolExecutor, 1), (ThreadPoolExecutor, 3), (ProcessPoolExecutor, 2),
                        (Workers, 1), (Workers, 2)):
        with kind(count) as executor:
            results.append(evaluate(policy, seeds, executor, 5, done.append,
                                    make_env=partial(PushTEnv, max_steps=12)))
    assert [e.seed for e in results[0]] == list(seeds)
    short = partial(PushTEnv, max_steps=12)
    assert results[1:] == results[:-1] == [rollout(policy, seeds, 5, short)] * 4
    assert rollout(policy, seeds, make_env=short) == rollout(policy, seeds, 0, short)
    with ThreadPoolExecutor(1) as executor:
        first = evaluate(policy, seeds, executor, make_env=short)
        assert first == evaluate(policy, seeds, executor, 0, make_env=short)
    shown = iter(done)  # others may stand between them: episodes that are over before their chunk
    assert all(count in shown for count in [3, 6, 8] * 5) and set(done) <= set(range(9))
    assert len({e.last_reward for e in results[0]}) > 1


class Slow(Counter):
    """A world whose episodes take longer the greater their seed is."""

    def reset(self, *, seed=None, options=None):
        self.end = 1 + 8 * (seed - 20)
        return super().reset(seed=seed)

    def step(self, action):
        time.sleep(0.02)
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, self.steps >= self.end, truncated, info


def test_progress_is_shown_while_a_chunk_is_under_way():
    done = []
    with Workers(1) as executor:
        evaluate(Script(stay), range(20, 25), executor, 0, done.append, make_env=Slow)
    assert done == sorted(done) and done[-1] == 5 and len(set(done) & {1, 2, 3, 4}) > 1


def test_candidates_do_not_depend_on_the_workers_that_share_the_decider(monkeypatch):
    monkeypatch.setattr(rollouts, "CHUNK", 1)
    policy, results = Script(wander), []
    for executor in (ThreadPoolExecutor(1), ThreadPoolExecutor(3), ProcessPoolExecutor(2)):
        with executor:
            episodes = evaluate(policy, range(20, 25), executor, decide=BestOf(policy, 3),
                                make_env=partial(PushTEnv, max_steps=12))
        assert all(e.candidates == 3 and e.decision_ms > 0 for e in episodes)
        results.append([e._replace(decision_ms=None) for e in episodes])
    assert results[0] == results[1] == results[2]


def test_results_do_not_depend_on_the_chunks(monkeypatch):
    results = []
    for chunk in (1, 3, 50):
        monkeypatch.setattr(rollouts, "CHUNK", chunk)
        with ThreadPoolExecutor(2) as executor:
            results.append(evaluate(Script(wander), range(7), executor,
                                    make_env=partial(PushTEnv, max_steps=15)))
    assert results[0] == results[1] == results[2]


def test_when_one_chunk_fails_those_not_begun_are_cancelled(monkeypatch):
    """Else Ctrl-C would have to wait for every episode that was asked for."""
    monkeypatch.setattr(rollouts, "CHUNK", 1)

    def fail(obs, rng):
        raise KeyboardInterrupt

    script = Script(fail)
    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyboardInterrupt):
        evaluate(script, range(1000), executor)
    assert len(script.observed) < 1000


# ---- what is kept when it ends early -------------------------------------------------------------

FATAL = (20, 20, 256, 380, 0)
STARTS = {seed: (20, 20, *(shifted(0.5) if seed % 2 else GOAL_POSE)) for seed in range(20)}
WORLD = partial(StartsAt, STARTS | {13: FATAL}, max_steps=40)  # the even seeds are solved at once


class Fatal(Script):
    """Stays where it is. With seed 13 in its batch, something happens at its second plan."""

    def __init__(self, happens):
        super().__init__(stay)
        self.happens = happens

    def plan(self, obs, rng):
        if self.observed and obs[:, -1, 3].max() > 350:
            self.happens()
        return super().plan(obs, rng)

    def __call__(self, env, obs, rng):
        return self.plan(obs[None], rng)[0]


def kill_me():
    os.kill(os.getpid(), signal.SIGKILL)


def run_out_of_memory():
    raise MemoryError("Unable to allocate 6 GiB")


def wait():
    time.sleep(60)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(rollouts, "CHUNK", 5)


@pytest.mark.parametrize("alone, over", [(False, [*range(10), 10, 12, 14]), (True, [*range(13)])])
@pytest.mark.parametrize("happens, why", [
    (kill_me, "a worker process died (signal 9, perhaps because memory ran out)"),
    (run_out_of_memory, "Unable to allocate 6 GiB")])
def test_where_a_worker_dies_the_episodes_that_are_over_are_kept(happens, why, alone, over,
                                                                 small_chunks):
    """Also those of its own chunk, 10 to 14."""
    policy = Fatal(happens)
    decide = policy if alone else None
    with pytest.raises(Unfinished) as caught, Workers(1) as executor:
        evaluate(policy, range(20), executor, make_env=WORLD, decide=decide)
    assert [episode.seed for episode in caught.value.episodes] == over
    assert str(caught.value) == f"{why}: 13 of 20 episodes are over"
    whole = rollout(Script(stay), over, make_env=WORLD)
    assert caught.value.episodes == whole


@pytest.mark.slow
def test_after_a_signal_the_episodes_that_are_over_are_kept(small_chunks, monkeypatch):
    policy = Fatal(wait)
    started = time.monotonic()
    monkeypatch.setattr(stopping, "asked", lambda: time.monotonic() > started + 1)
    with pytest.raises(Unfinished, match="stopped: 13 of 20 episodes are over") as caught:
        with Workers(1) as executor:
            evaluate(policy, range(20), executor, make_env=WORLD)
    assert [e.seed for e in caught.value.episodes] == [*range(10), 10, 12, 14]
    assert time.monotonic() - started < 3


def test_other_executors_keep_the_chunks_that_are_over(small_chunks, monkeypatch):
    with pytest.raises(Unfinished, match="terminated abruptly.*: 10 of 20") as caught:
        with ProcessPoolExecutor(1) as executor:
            evaluate(Fatal(kill_me), range(20), executor, make_env=WORLD)
    assert [e.seed for e in caught.value.episodes] == [*range(10)]

    def ask_to_stop():
        monkeypatch.setattr(stopping, "asked", lambda: True)

    policy = Fatal(ask_to_stop)
    with pytest.raises(Unfinished, match="stopped: 10 of 20") as caught:
        with ThreadPoolExecutor(1) as executor:
            evaluate(policy, range(20), executor, make_env=WORLD)
    assert [e.seed for e in caught.value.episodes] == [*range(10)]
    assert len(policy.observed) < 40


@pytest.mark.parametrize("alone", [False, True])
def test_a_signal_ends_a_rollout_between_two_plans(alone, monkeypatch):
    policy = Script(wander)
    decide = (lambda env, obs, rng: policy.plan(obs[None], rng)[0]) if alone else None
    monkeypatch.setattr(stopping, "asked", lambda: len(policy.observed) == 3)
    with pytest.raises(stopping.Stopped):
        rollout(policy, [1, 2], decide=decide)
    assert len(policy.observed) == 3


# ---- actions that wait ---------------------------------------------------------------------------

def test_a_rollout_plans_after_what_waits_in_each_world(tiny_policy, monkeypatch):
    seen = []

    def spy(policy, obs, rng, committed, queue):
        seen.append((committed, queue))
        return policy.plan(obs, rng)

    monkeypatch.setattr(rollouts, "plan_after", spy)
    late = partial(DisturbedEnv, action_latency=3, max_steps=4)
    rollout(tiny_policy(), [1, 2], queue="skip", make_env=late)
    committed, queue = seen[0]
    starts = [DisturbedEnv().reset(seed=seed)[0][:2] for seed in (1, 2)]
    assert queue == "skip"
    assert (committed == np.repeat(np.array(starts)[:, None], 3, 1)).all()
