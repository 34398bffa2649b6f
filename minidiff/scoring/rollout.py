"""Episodes of a policy in its task: many at once, planned as one batch, on any executor."""
import concurrent.futures
import contextlib
import math
import os

import numpy as np

from .. import stopping
from ..beyond.realtime import plan_after
from ..policy import history, run_episode
from ..progress import Progress
from . import scores, workers
from .scores import Episode
from .workers import Workers

CHUNK = 50  # episodes in one batch. Fixed, so that results do not depend on the number of workers


class EpisodeNoise:
    """One generator per episode, so that its noise does not depend on the others in the batch.

    `active` lists the episodes that make up the batch now, as indices into `seeds`.
    """

    def __init__(self, seeds, noise_seed):
        self.rngs = [np.random.default_rng([noise_seed, int(seed)]) for seed in seeds]
        self.active = list(range(len(seeds)))

    def standard_normal(self, shape, dtype=np.float64):
        return np.stack([self.rngs[i].standard_normal(shape[1:], dtype) for i in self.active])


class Track:
    """The observations and the rewards of one episode so far."""

    def __init__(self, task, seed, first):
        self.task = task
        self.seed = int(seed)
        self.states = []  # as observed
        self.rewards = []
        self.success = None
        self.see(first)

    def see(self, obs):
        """One more observation; ValueError unless it is as many finite numbers as the first."""
        obs = numbers(obs)
        if self.states and len(obs) != len(self.states[0]):
            raise ValueError(f"{len(obs)} numbers are observed, but at first {len(self.states[0])}")
        if not np.isfinite(obs).all():
            raise ValueError(f"what is observed is not finite: {obs}")
        self.states.append(obs)

    def add(self, obs, reward, info):
        """One more step of the world. Returns whether it is the last that the task allows."""
        self.see(obs)
        if not math.isfinite(reward):
            raise ValueError(f"the reward is {reward}")
        self.rewards.append(float(reward))
        if "is_success" in info:
            self.success = bool(self.success or info["is_success"])
        return len(self.rewards) >= (self.task.max_steps or math.inf)

    def episode(self, candidates=1.0, decision_ms=None):
        return Episode(self.seed, float(self.task.score(self.rewards)), self.success,
                       len(self.rewards), self.rewards[-1], candidates, decision_ms)


def numbers(obs):
    """An observation as a row of numbers (S,). ValueError where it is none."""
    try:
        return np.array(obs, np.float64).ravel()  # a copy: a world may go on in the same array
    except (TypeError, ValueError):
        raise ValueError(f"the environment's observation is a {type(obs).__name__}, not an array "
                         "of numbers: let make_env put them side by side") from None


@contextlib.contextmanager
def blaming_the_world(task, seed, step):
    """Any error inside but a MemoryError becomes a ValueError: which world failed, when and where.

    step: that of the world, counted from 1; 0 for its reset.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        when = f"at step {step} from seed {seed}" if step else f"at its reset with seed {seed}"
        raise ValueError(f"the world of the task '{task.name}' fails {when}: "
                         f"{stopping.located(error)}") from error


class Unfinished(RuntimeError):
    """Some episodes were not finished; the message says why. episodes: those that were."""

    def __init__(self, why, episodes):
        super().__init__(why)
        self.episodes = episodes


def rollout(policy, seeds, noise_seed=0, make_env=None, decide=None, queue="ignore", record=False):
    """Run one episode per seed, until the world or the task's max_steps ends it.

    make_env: makes a world, by default that of policy.task; picklable if an executor is to run it,
    as functools.partial is.
    decide: None, and all episodes are planned together; or decide(env, obs (obs_horizon, S), rng)
    -> plan (H, D), and each episode runs alone (pusht/study/candidates.py).
    queue: how a plan takes account of actions that wait to be carried out (beyond/realtime.py). It
    has no effect on `decide`.
    Returns a list of Episodes; with `record`, also a list of the observations of each, (steps+1,
    S). After a signal (stopping.py) it raises Stopped before the next plan or, with `decide`, the
    next step of the world. ValueError for errors of the world, unless `decide` is given.
    """
    make_env = make_env or policy.task.make_env
    if decide is None:
        tracks = run_together(policy, seeds, noise_seed, make_env, queue)
        episodes = [track.episode() for track in tracks]
    else:
        tracks, episodes = [], []
        for seed in seeds:
            # a `decide` that counts its costs starts anew with each episode
            chooser = decide.start() if hasattr(decide, "start") else decide
            track = run_alone(policy, seed, noise_seed, make_env(), chooser)
            cost = chooser.cost() if hasattr(chooser, "cost") else ()
            tracks.append(track)
            episodes.append(track.episode(*cost))
            workers.report(episodes[-1])
    return (episodes, [np.stack(track.states) for track in tracks]) if record else episodes


def run_together(policy, seeds, noise_seed, make_env, queue):
    """All episodes in lockstep -> Tracks. Those that are not over are planned as one batch."""
    envs = [make_env() for _ in seeds]
    tracks = []
    for seed, env in zip(seeds, envs):
        with blaming_the_world(policy.task, seed, 0):
            first, _ = env.reset(seed=int(seed))
            tracks.append(Track(policy.task, seed, first))
    noise = EpisodeNoise(seeds, noise_seed)
    while noise.active:
        stopping.safe_point()
        obs = [history(tracks[i].states, policy.obs_horizon) for i in noise.active]
        if queue == "ignore":
            plans = policy.plan(np.stack(obs), noise)
        else:  # env.waiting (d, D): the actions that were chosen, but are not yet carried out
            waiting = np.stack([envs[i].waiting for i in noise.active])
            plans = plan_after(policy, np.stack(obs), noise, waiting, queue)
        going_on = []
        for i, plan in zip(noise.active, plans):
            if carry_out(plan[:policy.action_horizon], envs[i], tracks[i]):
                workers.report(tracks[i].episode())
            else:
                going_on.append(i)
        noise.active = going_on
    return tracks


def carry_out(actions, env, track):
    """Carry out these actions (n, D). Returns whether the episode is over."""
    for action in actions:
        with blaming_the_world(track.task, track.seed, len(track.states)):
            obs, reward, terminated, truncated, info = env.step(action)
            last = track.add(obs, reward, info)
        if terminated or truncated or last:
            return True
    return False


def run_alone(policy, seed, noise_seed, env, decide):
    """One episode whose plans come from `decide` -> Track."""
    rng = np.random.default_rng([noise_seed, int(seed)])  # as in EpisodeNoise
    steps = run_episode(policy, env, rng, seed=int(seed), decide=decide)
    first, _, _ = next(steps)
    track = Track(policy.task, seed, first)
    for obs, reward, info in steps:
        stopping.safe_point()
        if track.add(obs, reward, info):
            break
    return track


def evaluate(policy, seeds, executor, noise_seed=0, progress=None, **options):
    """Episodes for all seeds, in chunks on any concurrent.futures.Executor -> list of Episodes.

    progress(done) is called now and then, and after each chunk. options: those of `rollout`.
    Raises Unfinished after a signal (stopping.py), where a worker has died, and where memory runs
    out. It holds the episodes of all finished chunks. If the executor is `Workers` (workers.py), it
    also holds those of unfinished chunks that are over. Beware: success ends an episode early, so
    among them there are too many successes.
    """
    futures, episodes = [], []
    shown = progress or (lambda done: None)
    try:
        for start in range(0, len(seeds), CHUNK):
            chunk = seeds[start:start + CHUNK]
            futures.append(executor.submit(rollout, policy, chunk, noise_seed, **options))
        for future in futures:
            episodes += workers.awaited(future, lambda: shown(len(finished(futures))))
            shown(len(episodes))
    except (stopping.Stopped, concurrent.futures.BrokenExecutor, MemoryError) as error:
        done = finished(futures)
        raise Unfinished(f"{error}: {len(done)} of {len(seeds)} episodes are over", done) from None
    finally:
        for future in futures:  # after a stop: else the executor would still carry out all of them
            future.cancel()
    return episodes


def score(policy, seeds, name):
    """The summary (scores.summary) of one episode for each seed, on all cores.

    If it had to end early, its `incomplete` says why. Then it covers the episodes that are over; if
    there are none, it has `n` = 0 and no figures. name: of the sampler, for the line of progress.
    """
    progress = Progress(f"scoring ({name})", len(seeds))
    score_range = policy.task.score_range
    try:
        with Workers(min(os.cpu_count(), math.ceil(len(seeds) / CHUNK))) as executor:
            episodes = evaluate(policy, seeds, executor, progress=progress.show)
            return scores.summary(episodes, score_range)
    except Unfinished as error:
        summary = scores.summary(error.episodes, score_range) if error.episodes else {"n": 0}
        return summary | {"incomplete": str(error)}


def finished(futures):
    """The Episodes that calls of `rollout` have returned or reported, in the order of the calls."""
    episodes = []
    for future in futures:
        if future.done() and not future.cancelled() and future.exception() is None:
            episodes += future.result()
        else:
            episodes += getattr(future, "reported", [])
    return episodes
