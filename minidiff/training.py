"""Training: the configuration, and the gradient step (Ho, Jain & Abbeel 2020, algorithm 1)."""
import dataclasses
import hashlib
import math
import time

import numpy as np

from .demos import drawn, training_set
from .diffusion import SCHEDULES, WEIGHTS, l_hybrid, l_simple, loss_weight, q_sample, sample_t
from .nn import NETWORKS, Denoiser
from .optim import AdamW, flat_gradient, keep_freed_memory, learning_rate
from .tensor import Tape

POINTS, QUARTERS = 100, 4  # the loss by t: at 100 steps of a run, for each quarter of 1..T
FINISH = 25  # rows that count as the end of a demonstration: 2.5 s of PushT
WIDTH = {"mlp": 128, "conv": 64}  # the defaults
GROUPS = 8  # groups of channels in the norms of the conv net; its width must be a multiple
LARGEST = 1e9  # a larger number in a policy or a run means that it diverged or is damaged
NETWORK = ("objective", "net", "width", "blocks", "precondition", "obs_horizon", "pred_horizon",
           "clip", "schedule", "T")  # fields of Config that must agree for weights to fit
STATE = ("theta", "m", "v", "loss_by_t", "losses")  # arrays in a run's file besides the policy's


class Diverged(RuntimeError):
    """The loss or a weight is no longer finite, or it is too large."""


def option(default, help, least=None, most=None, below=None, choices=None):
    """A field of Config: what it means, and which values make sense."""
    limits = {"help": help, "least": least, "most": most, "below": below, "choices": choices}
    return dataclasses.field(default=default, metadata=limits)


def flag(name):
    """The option of train.py that sets a field."""
    return f"--{name.replace('_', '-')}"


@dataclasses.dataclass
class Config:
    """All that decides the weights, besides the task and the demonstrations.

    ValueError, naming the option, for a value of another type or out of its limits.
    """
    objective: str = option("simple", "the loss that is minimised")
    outputs: int = option(1, "numbers that the network gives for each number of a chunk", 1, 1000)
    net: str = option("mlp", "the denoiser: an MLP, or convolutions along time",
                      choices=tuple(NETWORKS))
    width: int = option(0, "units or channels of a layer; 0: 128 for mlp, 64 for conv", 0, 8192)
    blocks: int = option(2, "residual blocks", 1, 1000)
    precondition: bool = option(True, "precondition the denoiser (v-prediction; see nn.Denoiser)")
    obs_horizon: int = option(1, "observations that the policy sees", 1, 100)
    relabel: bool = option(True, "learn as if each demonstration had aimed at what it reached, "
                                 "if the task has a way (hindsight)")
    finish: int = option(6, "the last 25 rows of each demonstration are drawn so many "
                            "times as often as others", 1, 1000)
    pred_horizon: int = option(8, "actions in a chunk: the prediction horizon", 1, 512)
    clip: float = option(4.0, "bound on x_0, in standard deviations of the actions; hardly ever "
                              "reached, except without preconditioning", 1e-3, 1e6)
    schedule: str = option("cosine", "noise schedule", choices=tuple(SCHEDULES))
    T: int = option(100, "diffusion steps", 1, 100_000)
    weight: str = option("inverse-alpha-bar", "lambda(t), the weight of t in L_simple",
                         choices=WEIGHTS)
    drop_cond: float = option(0.0, "share of the windows whose features are set to 0, "
                                   "for classifier-free guidance", 0, below=1)
    steps: int = option(3500, "gradient steps", 1, 1_000_000_000)
    batch: int = option(256, "windows in a gradient step", 1, 1_000_000)
    lr: float = option(5e-3, "peak learning rate of AdamW", 1e-9, 1e39)
    warmup: int = option(100, "steps over which the learning rate rises; then it falls by a cosine",
                         0, 1_000_000_000)
    weight_decay: float = option(1e-4, "decoupled weight decay", 0, 1e6)
    ema: float = option(0.999, "decay of the moving average of the weights; the policy uses it",
                        0, below=1)
    seed: int = option(0, "seed of the weights, the batches and the noise", 0, 2**63)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            problem = wrong(getattr(self, field.name), field)
            if problem:
                raise ValueError(f"{flag(field.name)} must be {problem}, "
                                 f"not {getattr(self, field.name)!r}")
        self.width = self.width or WIDTH[self.net]
        if self.net == "conv" and self.width % GROUPS:
            raise ValueError(f"--width must be a multiple of {GROUPS} for --net conv, "
                             f"not {self.width}")


def wrong(value, field):
    """What a value of a Config's field should be, in words, or None if the value is valid."""
    limits = field.metadata
    accepted = {int: int, float: (int, float), str: str, bool: bool}[field.type]
    if not isinstance(value, accepted) or isinstance(value, bool) and field.type is not bool:
        return f"of the type {field.type.__name__}"
    if limits["choices"] and value not in limits["choices"]:
        return f"one of {', '.join(limits['choices'])}"
    if limits["least"] is not None and not value >= limits["least"]:
        return f"at least {limits['least']}"
    if limits["most"] is not None and not value <= limits["most"]:
        return f"at most {limits['most']}"
    if limits["below"] is not None and not value < limits["below"]:
        return f"below {limits['below']}"
    return None


def check_progress(meta, config):
    """ValueError if meta, the facts in a file, has more steps than config, or bad CPU seconds."""
    n = meta.get("update")
    seconds = meta.get("cpu_seconds")
    if type(n) is not int or not 0 <= n <= config.steps:
        raise ValueError(f"a run of {config.steps} steps cannot have done {str(n):.40}")
    if type(seconds) not in (int, float) or not 0 <= seconds < 1e12:
        raise ValueError(f"'cpu_seconds' cannot be {str(seconds):.40}")


def check_numbers(arrays):
    """ValueError if an array of a policy or of a run is not finite, or has too large numbers."""
    for name, array in arrays.items():
        if name == "loss_by_t":  # it may hold NaN
            continue
        if array.dtype.kind != "f" or not float(np.abs(array).max(initial=0)) <= LARGEST:
            raise ValueError(f"array '{name}' is not made of finite numbers within +-{LARGEST:.0e}")


def build(config, action_dim, cond_dim, rng):
    """The noise schedule and a fresh denoiser for a Config -> schedule, eps_theta."""
    schedule = SCHEDULES[config.schedule](config.T)
    x_shape = config.pred_horizon, action_dim
    net = NETWORKS[config.net](x_shape, cond_dim, rng, config.width, config.blocks, config.outputs)
    learned = config.outputs == 2
    return schedule, Denoiser(net, schedule.alpha_bar, config.precondition, learned)


class Trainer:
    """All that training changes, and the step that changes it.

        trainer = Trainer(config, task, data)
        for loss in trainer:
            ...                                # one gradient step each, until config.steps are done

    config: a Config. task: a demos.Task. data: demos.Demos. loss: a function with the arguments of
    diffusion.l_simple. init: a policy with the same network; training starts from its weights and
    uses its Normaliser. n: the steps done so far. losses (steps,): the loss of each, 0 from n on.
    loss_by_t (POINTS, QUARTERS), with fewer rows in shorter runs: see record_loss_by_t.
    """

    def __init__(self, config, task, data, loss=l_simple, init=None):
        self.config = config
        self.task = task
        self.loss = loss
        self.rng = np.random.default_rng(config.seed)
        self.demos_sha256 = hashlib.sha256(b"".join(a.tobytes() for a in data)).hexdigest()
        if config.relabel and task.relabel:
            data = task.relabel(data)
        self.cond, self.x0, self.normaliser = training_set(
            data, task, config.obs_horizon, config.pred_horizon, config.clip,
            init.normaliser if init else None)
        self.rows = drawn(data.episode_ends, FINISH, config.finish)
        check_numbers(self.normaliser._asdict())  # before training: `load` would refuse its file
        self.schedule, self.eps_theta = build(config, self.x0.shape[2], self.cond.shape[1],
                                               self.rng)
        self.net = self.eps_theta.net
        if init:
            self.net.theta[:] = init.eps_theta.net.theta
        self.weight = loss_weight(self.schedule, config.weight)
        self.optimiser = AdamW(self.net.theta, config.weight_decay, ema_decay=config.ema)
        self.losses = np.zeros(config.steps, np.float32)
        points = min(POINTS, config.steps)
        self.loss_by_t = np.full((points, QUARTERS), np.nan, np.float32)
        self.n = 0
        self.cpu_before = -time.process_time()  # so that cpu_seconds() starts at 0
        keep_freed_memory()

    def __iter__(self):
        while self.n < self.config.steps:
            yield self.step()

    def clipped(self):
        """The share of the numbers of x0 that lie at +-clip, where larger ones were cut."""
        return float((np.abs(self.x0) >= np.float32(self.config.clip)).mean())

    def batch(self):
        """A batch of chunks x0 (B, H, D) and of the features cond (B, F) that go with them."""
        config = self.config
        rows = self.rows[self.rng.integers(0, len(self.rows), config.batch)]
        x0 = self.x0[rows]
        cond = self.cond[rows]
        if config.drop_cond:
            kept = self.rng.random((config.batch, 1)) >= config.drop_cond
            cond = np.where(kept, cond, 0)
        return x0, cond

    def step(self):
        """One gradient step (Ho, algorithm 1). Returns the loss; Diverged if it is not finite."""
        config = self.config
        x0, cond = self.batch()
        t = sample_t(self.schedule, len(x0), self.rng)
        eps = self.rng.standard_normal(x0.shape, dtype=np.float32)
        with Tape() as tape:
            loss = self.loss(self.schedule, self.eps_theta, x0, t, eps, cond, self.weight)
        tape.backward(loss)
        grad = flat_gradient(self.net.params)
        self.optimiser.step(grad, learning_rate(self.n, config.steps, config.lr, config.warmup))
        self.losses[self.n] = loss.data
        self.record_loss_by_t()
        self.n += 1
        if not math.isfinite(loss.data):
            raise Diverged(f"diverged at step {self.n}: the loss is no longer finite")
        return float(loss.data)

    def record_loss_by_t(self, batch=256):
        """At up to POINTS steps of a run, record L_simple in each quarter of t = 1..T.

        Rows and noise are always the same. Only for l_simple, l_hybrid: else loss_by_t stays NaN.
        """
        points = len(self.loss_by_t)
        due = self.n * points % self.config.steps < points  # once in each of `points` equal parts
        if self.loss not in (l_simple, l_hybrid) or not due:
            return
        rng = np.random.default_rng(self.config.seed)
        rows = rng.integers(0, len(self.x0), batch)
        t = 1 + np.arange(batch) * self.schedule.T // batch  # 1..T, rising
        x0 = self.x0[rows]
        eps = rng.standard_normal((batch, *self.x0.shape[1:]), dtype=np.float32)
        x_t = q_sample(self.schedule, x0, t, eps)
        error = eps - self.eps_theta(x_t, t, self.cond[rows])
        each = self.weight[t] * (error**2).mean((1, 2))
        self.loss_by_t[self.n * points // self.config.steps] = each.reshape(QUARTERS, -1).mean(1)

    def cpu_seconds(self):
        """CPU seconds of this run so far, with those before it was resumed."""
        return self.cpu_before + time.process_time()

    def state(self):
        """The arrays that `restore` needs, by name, except the losses."""
        return {"theta": self.net.theta, "ema": self.optimiser.ema, "m": self.optimiser.m,
                "v": self.optimiser.v, "loss_by_t": self.loss_by_t}

    def stretched(self, curve, steps):
        """curve, the loss_by_t of a run of `steps` steps, on the scale of this run's steps."""
        known = np.flatnonzero(np.isfinite(curve).any(1))
        longer = np.full_like(self.loss_by_t, np.nan)
        longer[known * steps * len(longer) // (len(curve) * self.config.steps)] = curve[known]
        return longer

    def restore(self, arrays, meta):
        """Continue a saved run. With the same `steps` it ends in the weights of an unbroken run.

        ValueError if it was made from other demonstrations, or if its arrays or meta do not fit.
        """
        if self.demos_sha256 != meta.get("demos_sha256"):
            raise ValueError("not the demonstrations that the run was started with")
        check_progress(meta, self.config)
        n = meta["update"]
        steps = meta["config"]["steps"]
        if steps != self.config.steps:
            arrays = arrays | {"loss_by_t": self.stretched(arrays["loss_by_t"], steps)}
        wanted = self.state() | {"losses": self.losses[:n]}
        for name, array in wanted.items():
            if arrays[name].shape != array.shape or arrays[name].dtype != array.dtype:
                raise ValueError(f"array '{name}' is {arrays[name].dtype} {arrays[name].shape}, "
                                 f"not {array.dtype} {array.shape}")
        check_numbers({name: arrays[name] for name in wanted})
        if (arrays["v"] < 0).any():
            raise ValueError("array 'v' holds mean squares, but some are negative")
        try:
            self.rng.bit_generator.state = meta["rng"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"the state of its random generator is damaged: {error!r}") from None
        for name, array in wanted.items():
            array[:] = arrays[name]
        self.cpu_before += meta["cpu_seconds"]
        self.n = n
        self.optimiser.n = n
