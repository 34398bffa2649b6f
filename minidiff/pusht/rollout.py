"""Episodes of a policy in PushT: many at once with one batched plan, on any executor."""
import concurrent.futures

import numpy as np

from .. import stopping
from ..beyond.realtime import plan_after
from ..policy import history, run_episode
from . import workers
from .env import PushTEnv
from .geometry import SUCCESS_COVERAGE
from .scores import Episode

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
    """The states and the coverages of one episode so far."""

    def __init__(self, seed, first):
        self.seed = int(seed)
        self.states = [first]  # as observed
        self.best = 0.0  # coverage
        self.last = 0.0

    def add(self, state, info):
        """One more step."""
        self.states.append(state)
        self.last = info["coverage"]
        self.best = max(self.best, self.last)

    def episode(self, candidates=1.0, decision_ms=None):
        return Episode(self.seed, min(self.best / SUCCESS_COVERAGE, 1.0),
                       self.best > SUCCESS_COVERAGE, len(self.states) - 1, self.last,
                       candidates, decision_ms)


class Unfinished(RuntimeError):
    """Some episodes were not finished; the message says why. episodes: those that were."""

    def __init__(self, why, episodes):
        super().__init__(why)
        self.episodes = episodes


def rollout(policy, seeds, noise_seed=0, make_env=PushTEnv, decide=None, queue="ignore",
            record=False):
    """Run one episode per seed, until success or the world's max_steps.

    make_env: makes a world; picklable if an executor is to run it, as functools.partial is.
    decide: None, and all episodes are planned together; or decide(env, obs (obs_horizon, S), rng)
    -> plan (H, D), and each episode runs alone (study/candidates.py).
    queue: how a plan goes on from actions that the world has not carried out yet
    (beyond/realtime.py). `decide` does not know of these actions, so it has no effect there.
    Returns a list of Episodes; with `record`, also the observations of each, (steps+1, 5). After a
    signal (stopping.py) it raises Stopped between two plans.
    """
    if decide is None:
        tracks = run_together(policy, seeds, noise_seed, make_env, queue)
        episodes = [track.episode() for track in tracks]
    else:
        tracks, episodes = [], []
        for seed in seeds:
            # a decider that counts its costs starts anew with each episode
            chooser = decide.start() if hasattr(decide, "start") else decide
            track = run_alone(policy, seed, noise_seed, make_env(), chooser)
            cost = chooser.cost() if hasattr(chooser, "cost") else ()
            tracks.append(track)
            episodes.append(track.episode(*cost))
            workers.report(episodes[-1])
    return (episodes, [np.stack(track.states) for track in tracks]) if record else episodes


def run_together(policy, seeds, noise_seed, make_env, queue):
    """All episodes in lockstep, with one batched plan for those that are not over -> Tracks."""
    envs = [make_env() for _ in seeds]
    tracks = [Track(seed, env.reset(seed=int(seed))[0]) for seed, env in zip(seeds, envs)]
    noise = EpisodeNoise(seeds, noise_seed)
    while noise.active:
        stopping.safe_point()
        obs = [history(tracks[i].states, policy.obs_horizon) for i in noise.active]
        waiting = [np.reshape(envs[i].waiting, (-1, 2)) for i in noise.active]
        plans = plan_after(policy, np.stack(obs), noise, np.stack(waiting), queue)
        going_on = []
        for i, plan in zip(noise.active, plans):
            if carry_out(plan[:policy.action_horizon], envs[i], tracks[i]):
                workers.report(tracks[i].episode())
            else:
                going_on.append(i)
        noise.active = going_on
    return tracks


def carry_out(actions, env, track):
    """Take these actions. Returns whether the episode is over."""
    for action in actions:
        state, _, terminated, truncated, info = env.step(action)
        track.add(state, info)
        if terminated or truncated:
            return True
    return False


def run_alone(policy, seed, noise_seed, env, decide):
    """One episode whose plans come from `decide` -> Track."""
    rng = np.random.default_rng([noise_seed, int(seed)])  # as in EpisodeNoise
    steps = run_episode(policy, env, rng, seed=int(seed), decide=decide)
    first, _, _ = next(steps)
    track = Track(seed, first)
    for state, _, info in steps:
        stopping.safe_point()
        track.add(state, info)
    return track


def evaluate(policy, seeds, executor, noise_seed=0, progress=None, **options):
    """Episodes for all seeds, in chunks on any concurrent.futures.Executor -> list of Episodes.

    progress(done) is called after each chunk. options: those of `rollout`. Raises Unfinished after
    a signal (stopping.py) and where a worker has died. Of the chunks under way it then has those
    episodes that are over, if the executor is `Workers` (workers.py). Beware: success ends an
    episode early, so among them there are too many successes.
    """
    futures, episodes = [], []
    try:
        for start in range(0, len(seeds), CHUNK):
            chunk = seeds[start:start + CHUNK]
            futures.append(executor.submit(rollout, policy, chunk, noise_seed, **options))
        for future in futures:
            episodes += future.result()
            if progress:
                progress(len(episodes))
    except (stopping.Stopped, concurrent.futures.BrokenExecutor, MemoryError) as error:
        done = finished(futures)
        raise Unfinished(f"{error}: {len(done)} of {len(seeds)} episodes are over", done) from None
    finally:
        for future in futures:  # if we were stopped: the executor would finish all it was given
            future.cancel()
    return episodes


def finished(futures):
    """The Episodes that calls of `rollout` have brought so far, in the order of the calls."""
    episodes = []
    for future in futures:
        if future.done() and not future.cancelled() and future.exception() is None:
            episodes += future.result()
        else:
            episodes += getattr(future, "reported", [])
    return episodes
