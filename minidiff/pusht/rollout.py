"""Scores: many episodes in lockstep, one batched plan for all of them."""
import math
from typing import NamedTuple

import numpy as np

from .env import PushTEnv
from .geometry import SUCCESS_COVERAGE, coverage
from .study.candidates import decide
from .study.disturbances import DisturbedEnv
from .view import drawing as draw

CHUNK = 50  # episodes in one batch. Fixed, so that results do not depend on the number of workers


class Episode(NamedTuple):
    """One row of a score sheet."""
    seed: int
    score: float  # max over the episode of min(coverage / 0.95, 1)
    success: bool  # coverage > 0.95 at some step
    steps: int  # steps taken; an episode ends with success or at the limit
    final_coverage: float
    candidates: float = 1.0  # plans tried for a decision, on average
    decision_ms: float | None = None  # time of a decision, the median; not taken where all episodes decide at once


class EpisodeNoise:
    """One generator per episode, so that an episode's noise does not depend on which others run beside it."""

    def __init__(self, seeds, noise_seed):
        self.rngs = [np.random.default_rng([noise_seed, int(seed)]) for seed in seeds]
        self.active = range(len(seeds))

    def standard_normal(self, shape, dtype=np.float64):
        return np.stack([self.rngs[i].standard_normal(shape[1:], dtype) for i in self.active])


def rollout(policy, seeds, noise_seed=0, max_steps=300, record=False, candidates=1, budget_ms=None, disturb=None,
            **env_options):
    """Run one episode per seed until success or max_steps, all planned together.

    candidates, budget_ms: for each decision so many plans, or as many as fit into the time, judged in a copy of the world
    (candidates.py). disturb: the options of a DisturbedEnv. Returns a list of Episodes; with `record`, also the states of
    each episode as seen, (steps+1, 5).
    """
    make, disturb = (DisturbedEnv, disturb) if disturb else (PushTEnv, {})
    envs = [make(max_steps=max_steps, **disturb, **env_options) for _ in seeds]
    states = [[env.reset(seed=int(seed))[0]] for env, seed in zip(envs, seeds)]
    best, last = np.zeros(len(envs)), np.zeros(len(envs))
    noise, active = EpisodeNoise(seeds, noise_seed), list(range(len(envs)))
    scratch, decisions = PushTEnv(), [[] for _ in envs]  # of each episode: (plans tried, milliseconds)
    while active:
        obs = [latest(states[i], policy.obs_horizon) for i in active]
        if candidates == 1 and budget_ms is None:
            noise.active = active
            plans = policy.plan(np.stack(obs), noise)
        else:
            plans = []
            for i, seen in zip(active, obs):
                plan, *cost = decide(policy, envs[i], scratch, seen, noise.rngs[i], candidates, budget_ms)
                plans.append(plan)
                decisions[i].append(cost)
        for i, actions in zip(list(active), plans):
            for action in actions[:policy.action_horizon]:
                state, _, terminated, truncated, info = envs[i].step(action)
                states[i].append(state)
                last[i] = info["coverage"]
                best[i] = max(best[i], last[i])
                if terminated or truncated:
                    active.remove(i)
                    break
    episodes = [Episode(int(seed), min(b / SUCCESS_COVERAGE, 1.0), bool(b > SUCCESS_COVERAGE), len(s) - 1, float(c))
                for seed, b, s, c in zip(seeds, best, states, last)]
    episodes = [e._replace(candidates=float(np.mean(d, 0)[0]), decision_ms=float(np.median(d, 0)[1])) if d else e
                for e, d in zip(episodes, decisions)]
    return (episodes, [np.stack(s) for s in states]) if record else episodes


def latest(states, count):
    """The last `count` observations; at the start of an episode the first one repeats."""
    return np.stack([states[max(0, len(states) - k)] for k in range(count, 0, -1)])


def evaluate(policy, seeds, executor, noise_seed=0, progress=None, **options):
    """Episodes for all seeds, run in chunks on any concurrent.futures.Executor; progress(done) after each chunk."""
    chunks = [seeds[i:i + CHUNK] for i in range(0, len(seeds), CHUNK)]
    futures = [executor.submit(rollout, policy, chunk, noise_seed, **options) for chunk in chunks]
    episodes = []
    try:
        for future in futures:
            episodes += future.result()
            if progress:
                progress(len(episodes))
    finally:
        for future in futures:  # if we were stopped: the executor would finish all that it was given
            future.cancel()
    return episodes


def summary(episodes):
    """The figures of a score sheet, each with its 95 % interval, as a dictionary."""
    n, score = len(episodes), np.array([e.score for e in episodes])
    successes = int(np.sum([e.success for e in episodes]))
    steps = [e.steps for e in episodes if e.success]
    times = [e.decision_ms for e in episodes if e.decision_ms is not None]
    return {"n": n, "first_seed": min(e.seed for e in episodes), "last_seed": max(e.seed for e in episodes),
            "score": float(score.mean()), "score_ci95": [float(b) for b in bootstrap(score)],
            "success": successes / n, "success_ci95": list(wilson(successes, n)),
            "below_half": float((score < 0.5).mean()),
            "final_coverage": float(np.mean([e.final_coverage for e in episodes])),
            "steps_to_success": float(np.median(steps)) if steps else None,
            "candidates": float(np.mean([e.candidates for e in episodes])),
            "decision_ms": float(np.median(times)) if times else None}


def compare(a, b):
    """Two score sheets of the same seeds, b against a: the mean differences of score and success, each with the 95 %
    interval of a bootstrap over pairs. a, b: lists of Episodes. ValueError where no seed is in both."""
    first = {e.seed: e for e in a}
    pairs = [(first[e.seed], e) for e in b if e.seed in first]
    if not pairs:
        raise ValueError("the two have no seed in common, so there is nothing to compare")
    result = {"n": len(pairs)}
    for name in ("score", "success"):
        difference = np.array([float(getattr(y, name)) - float(getattr(x, name)) for x, y in pairs])
        result |= {name: float(difference.mean()), f"{name}_ci95": [float(v) for v in bootstrap(difference)]}
    return result | {"only_a": sum(x.success > y.success for x, y in pairs),
                     "only_b": sum(y.success > x.success for x, y in pairs)}


def sentence(s):
    """A summary in one line."""
    steps = f", median {s['steps_to_success']:.0f} steps" if s["steps_to_success"] else ""
    return (f"score {s['score']:.3f} [{s['score_ci95'][0]:.3f}, {s['score_ci95'][1]:.3f}]   success {s['success']:.1%} "
            f"[{s['success_ci95'][0]:.1%}, {s['success_ci95'][1]:.1%}]{steps}   "
            f"({s['n']} episodes, seeds {s['first_seed']}..{s['last_seed']})")


def bootstrap(values, resamples=2000):
    """The 95 % percentile interval of the mean (Efron 1979): the scores are skewed, a normal interval would pass 1."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    return np.percentile(means, [2.5, 97.5])


def wilson(successes, n, z=1.959964):
    """Wilson's 95 % interval for a proportion (Wilson 1927); unlike p +- z s.e. it holds near 0 and 1."""
    p, z2 = successes / n, z * z / n
    centre, half = (p + z2 / 2) / (1 + z2), z * math.sqrt(p * (1 - p) / n + z2 / (4 * n)) / (1 + z2)
    return max(centre - half, 0.0), min(centre + half, 1.0)  # beyond 0 and 1 lies only rounding


def film(path, policy, seeds, noise_seed=0, frames=8, before=None, **options):
    """Draw episodes as a film strip: a row for each, of so many evenly spaced frames, from its start to its end.

    before: the policy before its training, if its row is to stand above that of the trained one, from the same start.
    """
    rows, played = [], {"before training\n": before, "after training\n": policy} if before else {"": policy}
    for when, player in played.items():
        for episode, states in zip(*rollout(player, seeds, noise_seed, record=True, **options)):
            picks = np.unique(np.linspace(0, episode.steps, frames).round().astype(int))
            ending = (f"success after\n{episode.steps} steps:\n{episode.final_coverage:.0%} covered" if episode.success
                      else f"best coverage\n{episode.score * SUCCESS_COVERAGE:.1%}")
            rows.append((f"seed {episode.seed}", [(states[k], f"step {k}: {coverage(states[k][2:]):.0%}") for k in picks],
                         when + ending))
    draw.film_strip(path, [row for k in range(len(seeds)) for row in rows[k::len(seeds)]])


def animation(path, policy, seeds, noise_seed=0, plans=8, size=240, max_steps=300, **options):
    """The same episodes side by side, step by step, with several plans at each decision, of which the first is carried
    out. path: .webp or .gif, by Pillow. An episode that is over waits for the others."""
    films = []
    for seed in seeds:
        env, rng = PushTEnv(max_steps=max_steps, **options), np.random.default_rng([noise_seed, seed])
        film, done = [], False
        states = [env.reset(seed=int(seed))[0]]
        while not done:
            fan = policy.plan(np.repeat(latest(states, policy.obs_horizon)[None], plans, 0), rng)
            for action in fan[0][:policy.action_horizon]:
                film.append(draw.frame(states[-1], plans=fan, size=size))
                state, _, terminated, truncated, _ = env.step(action)
                states.append(state)
                done = terminated or truncated
                if done:
                    break
        films.append(film + [draw.frame(states[-1], size=size)])
    last = max(map(len, films)) + 10  # a second to look at the end
    draw.save_animation(path, [np.hstack([film[min(k, len(film) - 1)] for film in films]) for k in range(last)])
