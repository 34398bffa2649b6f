"""Train a diffusion policy on demonstrations of PushT, on a CPU, in minutes.

    python train.py                                 the main job: train, score the policy, draw
    python train.py --demos FILE ...                learn from other demonstrations than those that come with minidiff
    python train.py --net conv                      the convolutional denoiser instead of the MLP
    python train.py --resume runs/pusht-mlp-0       continue a run that was stopped, to exactly the same weights

Each run has a folder: config.json, checkpoint.npz (all that --resume needs), policy.npz (all that eval.py needs: the
averaged weights), scores.json, loss.png and rollouts.png.
"""
import minidiff  # first: it decides how many threads NumPy's BLAS takes
import argparse
import concurrent.futures
import dataclasses
import hashlib
import math
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from minidiff import checkpoint, demos, policy
from minidiff.beyond.baselines import mixture_loss, mse_loss
from minidiff.diffusion import SCHEDULES, WEIGHTS, l_hybrid, l_simple, l_vlb, loss_weight, q_sample, sample_t
from minidiff.nn import NETWORKS
from minidiff.optim import AdamW, flat_gradient, keep_freed_memory, learning_rate
from minidiff.progress import Progress
from minidiff.pusht import EXPERT_DEMOS, rollout
from minidiff.pusht.view import charts as chart
from minidiff.pusht.features import PUSHT
from minidiff.tensor import Tape

SCORE_SEED = 5000  # a seed for tuning, and no start of the demonstrations that come with minidiff (those lie below 3000)
POINTS, BANDS = 100, 4  # of the curves of the loss by t


def knob(default, help, least=None, choices=None):
    return dataclasses.field(default=default, metadata={"help": help, "least": least, "choices": choices})


@dataclasses.dataclass
class Config:
    """Everything that decides the weights of a run."""
    demos: str = knob("", "files of demonstrations, learned from all together: .npz with state, action, episode_ends; or "
                          "the original zarr, folder or zip (default: those of the scripted demonstrator, "
                          "minidiff/pusht/expert.npz)")
    objective: str = knob("simple", "simple: L_simple; hybrid: with a learned variance; bound: the variational bound; "
                                    "to compare with, mse: behaviour cloning by regression; mixture: of Gaussians",
                          choices=policy.OBJECTIVES)
    net: str = knob("mlp", "the denoiser", choices=tuple(NETWORKS))
    width: int = knob(0, "units of a layer; 0: 256 for mlp, 64 for conv", least=0)
    blocks: int = knob(3, "residual blocks", least=1)
    skip: bool = knob(True, "predict eps through the skip (README, 'What makes it work')")
    obs_horizon: int = knob(1, "observations that the policy sees; 2 are better for human demonstrations", least=1)
    pred_horizon: int = knob(16, "actions in a plan", least=1)
    clip: float = knob(4.0, "bound on x_0, in standard deviations of the actions", least=1e-3)
    schedule: str = knob("cosine", "noise schedule", choices=tuple(SCHEDULES))
    T: int = knob(100, "diffusion steps", least=1)
    weight: str = knob("inverse-alpha-bar", "lambda(t) of L_simple", choices=tuple(WEIGHTS))
    drop_cond: float = knob(0.0, "share of the windows that are shown no observation, for eval.py --guidance", least=0)
    steps: int = knob(5000, "gradient steps: the budget", least=1)
    batch: int = knob(256, "windows in a gradient step", least=1)
    lr: float = knob(3e-3, "peak learning rate of AdamW", least=1e-9)
    warmup: int = knob(100, "steps over which the learning rate rises; then it falls by a cosine", least=0)
    weight_decay: float = knob(1e-4, "decoupled weight decay", least=0)
    ema: float = knob(0.999, "decay, below 1, of the moving average of the weights, which is what gets scored", least=0)
    seed: int = knob(0, "seed of the weights, the batches and the noise", least=0)


class Run:
    """All that training changes, with the step that changes it, and how it is saved and brought back."""

    def __init__(self, config, folder, data):
        self.config, self.folder, self.path = config, folder, folder / "checkpoint.npz"
        self.rng = np.random.default_rng(config.seed)
        self.fingerprint = hashlib.sha256(b"".join(array.tobytes() for array in data)).hexdigest()
        self.cond, self.x0, self.normaliser = demos.training_set(data, PUSHT, config.obs_horizon, config.pred_horizon,
                                                                 config.clip)
        self.schedule, self.eps_theta = policy.build(vars(config), PUSHT, self.cond.shape[1], self.rng)
        self.net, self.weight = self.eps_theta.net, loss_weight(self.schedule, config.weight)
        self.untrained = self.net.theta.copy()  # to be drawn beside what becomes of it
        self.optimiser = AdamW(self.net.theta, config.weight_decay, ema_decay=config.ema)
        self.losses = np.zeros(config.steps, np.float32)
        self.bands = np.full((min(POINTS, config.steps), BANDS), np.nan, np.float32)  # see loss_by_band
        self.n, self.cpu_before = 0, -time.process_time()  # steps done, CPU seconds of earlier sessions

    def step(self):
        """One gradient step (Ho et al. 2020, algorithm 1): draw data, timesteps and noise; descend L_simple."""
        c, rng, i = self.config, self.rng, self.rng.integers(0, len(self.x0), self.config.batch)
        x0, cond = self.x0[i], self.cond[i]
        if c.drop_cond:
            cond = cond * (rng.random((c.batch, 1)) >= c.drop_cond).astype(np.float32)
        t, eps = sample_t(self.schedule, c.batch, rng), rng.standard_normal(x0.shape, dtype=np.float32)
        draw = self.schedule, self.eps_theta, x0, t, eps, cond
        with Tape() as tape:
            loss = {"simple": lambda: l_simple(*draw, self.weight), "hybrid": lambda: l_hybrid(*draw, self.weight),
                    "bound": lambda: l_vlb(*draw), "mse": lambda: mse_loss(self.eps_theta, x0, cond),
                    "mixture": lambda: mixture_loss(self.eps_theta, x0, cond)}[c.objective]()
        tape.backward(loss)
        self.optimiser.step(flat_gradient(self.net.params), learning_rate(self.n, c.steps, c.lr, c.warmup))
        self.losses[self.n] = loss.data
        points = len(self.bands)
        if c.objective in ("simple", "hybrid") and self.n * points % c.steps < points:
            self.bands[self.n * points // c.steps] = self.loss_by_band()
        self.n += 1
        if not math.isfinite(self.losses[self.n - 1]):
            self.diverged()

    def loss_by_band(self, batch=256):
        """L_simple (BANDS,) over t in the first quarter of the chain, the second, .. on one and the same draw each time."""
        rng = np.random.default_rng(self.config.seed)
        i, t = rng.integers(0, len(self.x0), batch), 1 + np.arange(batch) * self.schedule.T // batch
        x0, eps = self.x0[i], rng.standard_normal((batch, *self.x0.shape[1:]), dtype=np.float32)
        error = eps - self.eps_theta(q_sample(self.schedule, x0, t, eps), t, self.cond[i]).data
        return (self.weight[t] * (error**2).mean((1, 2))).reshape(BANDS, -1).mean(1)

    def cpu_seconds(self):
        return self.cpu_before + time.process_time()

    def save(self):
        if not np.isfinite(self.net.theta).all():
            self.diverged()
        policy_arrays = {"ema": self.optimiser.ema, "beta": self.schedule.beta[1:], **self.normaliser._asdict()}
        meta = {"task": PUSHT.name, "config": vars(self.config), "update": self.n, "cpu_seconds": self.cpu_seconds(),
                "demos_sha256": self.fingerprint}
        checkpoint.save(self.path, policy_arrays | self.trained_arrays() | {"losses": self.losses[:self.n]},
                        meta | {"rng": self.rng.bit_generator.state})
        if self.n == self.config.steps:
            checkpoint.save(self.folder / "policy.npz", policy_arrays, meta)

    def restore(self, arrays, meta):
        """Go on from a checkpoint: the same arrays, counters and random state, so the same weights in the end."""
        if self.fingerprint != meta["demos_sha256"]:
            raise ValueError(f"{self.config.demos or EXPERT_DEMOS}: not the demonstrations that {self.folder} was "
                             "started with")
        for name, array in self.trained_arrays().items():
            array[:] = arrays[name]
        self.n = self.optimiser.n = meta["update"]
        self.losses[:self.n] = arrays["losses"]
        self.rng.bit_generator.state = meta["rng"]
        self.cpu_before += meta["cpu_seconds"]

    def trained_arrays(self):
        return {"theta": self.net.theta, "ema": self.optimiser.ema, "m": self.optimiser.m, "v": self.optimiser.v,
                "bands": self.bands}

    def diverged(self):
        kept = f"the last good checkpoint is kept in {self.path}" if self.path.exists() else "nothing was saved yet"
        sys.exit(f"\ndiverged at step {self.n}: the loss or a weight is no longer finite; {kept}. "
                 f"Try a smaller learning rate: --lr {self.config.lr / 3:.0e}")


def main():
    args, config, folder, saved = parse_arguments()
    keep_freed_memory()
    np.seterr(over="ignore", invalid="ignore")  # `diverged` says it better
    files = config.demos.split(os.pathsep) if config.demos else [EXPERT_DEMOS]
    data = demos.join([demos.load(file, PUSHT) for file in files])
    run = Run(config, folder, data)
    if saved:
        run.restore(*saved)
    else:
        checkpoint.write_json(folder / "config.json", vars(config))
    print(f"{len(data.episode_ends):,} demonstrations, {len(run.x0):,} windows; "
          f"{config.net} with {run.net.theta.size:,} parameters; {config.steps:,} steps; into {folder}/")
    train(run, args.save_every)
    print(f"trained in {run.cpu_seconds():.0f} CPU seconds "
          f"({1000 * run.cpu_seconds() / config.steps:.1f} ms a step); weights in {run.path}")
    if args.score_episodes:
        score(run, range(SCORE_SEED, SCORE_SEED + args.score_episodes))
    try:
        draw(run, range(SCORE_SEED, SCORE_SEED + min(3, args.score_episodes)))
    except RuntimeError as error:
        print(f"no pictures: {error}")  # pygame is missing
    print(f"next: python eval.py {folder} --episodes 500 --seed 300000    (eval.py --help tells of faster samplers)")


def train(run, save_every):
    """Step until the budget is spent; save now and then, and when asked to stop (Ctrl-C, or a polite kill)."""
    stop = []  # the signals that came; a second one stops at once
    handlers = {number: signal.signal(number, lambda n, frame: (stop.append(n), signal.signal(n, signal.SIG_DFL)))
                for number in (signal.SIGINT, signal.SIGTERM)}
    progress = Progress("training", run.config.steps, run.n)
    while run.n < run.config.steps and not stop:
        run.step()
        progress.show(run.n, f"loss {run.losses[max(0, run.n - 100):run.n].mean():.5f}")
        if run.n % save_every == 0:
            run.save()
    run.save()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if stop:
        sys.exit(f"\nstopped at step {run.n} and saved; go on with: python train.py --resume {run.folder}")


def samplers(run):
    """The samplers that score a policy, each with its options: the ancestral one and the quickest, DDIM."""
    if run.config.objective in policy.BASELINES:
        return {policy.BASELINES[run.config.objective][0]: {}}
    return {"ancestral": {}, "ddim": {"sampler": "ddim", "steps": min(4, run.schedule.T)}}


def score(run, seeds):
    """Score the finished policy on seeds for development."""
    scores = {}
    for name, options in samplers(run).items():
        trained, _ = policy.load(run.path, PUSHT, **options)
        with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as executor:
            scores[name] = rollout.summary(rollout.evaluate(
                trained, seeds, executor, progress=Progress(f"scoring ({name})", len(seeds)).show))
        print(f"{name + ':':10} {rollout.sentence(scores[name])}")
    checkpoint.write_json(run.folder / "scores.json", scores)


def draw(run, seeds):
    """The loss curve, as means over hundredths of the run, and the first episodes, before and after, as a film strip."""
    width = max(1, run.n // 100)
    means = run.losses[:run.n // width * width].reshape(-1, width).mean(1)
    title = {"simple": f"L_simple, lambda = {run.config.weight}", "hybrid": f"L_hybrid, lambda = {run.config.weight}",
             "bound": "L_vlb", "mse": "mean squared error", "mixture": "-log p"}[run.config.objective]
    quarters = [1 + q * run.schedule.T // BANDS for q in range(BANDS + 1)]
    lines = [(f"t = {low}..{high - 1}", np.arange(len(by_t)) * run.config.steps / len(by_t), by_t)
             for low, high, by_t in zip(quarters, quarters[1:], run.bands.T) if high > low and np.isfinite(by_t).any()]
    chart.curves(run.folder / "loss.png", [("training loss", (np.arange(len(means)) + 0.5) * width, means), *lines],
                 f"{title}, {run.config.net}", "gradient step", "loss",
                 note=f"training loss: means over {width} steps" + "; the others: quarters of the chain" * bool(lines))
    print(f"picture: {run.folder / 'loss.png'}")
    if seeds:
        *_, quickest = samplers(run).values()
        before, after = (policy.load(run.path, PUSHT, **quickest)[0] for _ in range(2))
        before.eps_theta.net.theta[:] = run.untrained
        rollout.film(run.folder / "rollouts.png", after, seeds, before=before)
        print(f"picture: {run.folder / 'rollouts.png'} (before and after training)")


def parse_arguments():
    """-> arguments, Config, folder of the run, and the checkpoint to resume from or None."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for f in dataclasses.fields(Config):
        text = f.metadata["help"] + (f" (default: {f.default})" if f.default != "" else "")
        kind = {"action": argparse.BooleanOptionalAction} if f.type is bool else {
            "type": f.type, "choices": f.metadata["choices"]}
        kind |= {"nargs": "+", "metavar": "FILE"} if f.name == "demos" else {}
        parser.add_argument(flag(f.name), default=argparse.SUPPRESS, help=text, **kind)
    parser.add_argument("--out", help="the run's folder (default: runs/pusht-NET-SEED)")
    parser.add_argument("--resume", metavar="FOLDER", help="continue the run in FOLDER, with its own config")
    parser.add_argument("--save-every", type=int, default=1000, help="steps between checkpoints (default: 1000)")
    parser.add_argument("--score-episodes", type=int, default=50,
                        help=f"episodes, from seed {SCORE_SEED}, that score the policy at the end; 0 for none (default: 50)")
    args = parser.parse_args()
    if hasattr(args, "demos"):  # a config holds them as one text, as PATH holds folders
        if any(os.pathsep in file for file in args.demos):
            parser.error(f"--demos: a name with '{os.pathsep}' in it cannot be told from two names")
        args.demos = os.pathsep.join(args.demos)
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Config) if hasattr(args, f.name)}
    least = {f.name: f.metadata["least"] for f in dataclasses.fields(Config)} | {"save_every": 1, "score_episodes": 0}
    for name, value in vars(args).items():
        if least.get(name) is not None and not value >= least[name]:
            parser.error(f"{flag(name)} must be at least {least[name]}, not {value}")
    if args.resume:
        if given or args.out:
            parser.error(f"--resume goes on with the run's own config and folder; it takes no {flag([*given, 'out'][0])}")
        arrays, meta = checkpoint.load(Path(args.resume) / "checkpoint.npz", ("theta", "ema", "m", "v", "losses", "bands"))
        return args, Config(**meta["config"]), Path(args.resume), (arrays, meta)
    config = Config(**given)
    config.width = config.width or {"mlp": 256, "conv": 64}[config.net]
    for name in ("ema", "drop_cond"):
        if not getattr(config, name) < 1:
            parser.error(f"{flag(name)} must be below 1, not {getattr(config, name)}")
    if config.net == "conv" and config.width % 8:
        parser.error(f"--width must be a multiple of 8 for --net conv, not {config.width}")
    folder = Path(args.out or f"runs/{PUSHT.name}-{config.net}-{config.seed}")
    if (folder / "checkpoint.npz").exists():
        parser.error(f"{folder} already holds a run: continue it with --resume {folder}, or choose another --out")
    return args, config, folder, None


def flag(name):
    return f"--{name.replace('_', '-')}"


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"train.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; if training had begun, its checkpoint is kept")
