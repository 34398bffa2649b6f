"""Agreement with Hugging Face diffusers (DDPMScheduler, DDIMScheduler): tables, forward process,
every step back.

    pip install -e '.[benchmarks]'
    python tests/benchmarks/against_diffusers.py

Every step of minidiff's chains is taken again by diffusers, from the same x_t, eps and noise; its
timestep is our t minus one. Once with its tables as they come, in float32, and once with its tables
computed in float64. The tolerance is not chosen: diffusers' own code is run on numbers that carry a
bound of their rounding error, and as both sides round, twice that bound may lie between them. Exits
with 1 where more does. Takes under a minute. What diffusers does otherwise:

- A linear schedule is neither scaled to T nor held below 1: it is given the scaled ends here, or
  our betas if T <= 20.
- The posterior variance at t = 1 is 1e-20 and not 0. No step shows it: both take the mean alone
  there.
- DDIM keeps eps as it is when x_0 is clipped; with use_clipped_model_output=True it goes with the
  clipped x_0, as ours.
- DDIM ends at alpha_bar = 1, as ours does; with set_alpha_to_one=False it would end at the noise of
  t = 1.
- DDIM's timesteps start at T here, since x_T is a sample of q(x_T) and of no other. Where steps
  divides T, the spacing "trailing" has the same; "leading", the default, starts T/steps - 1 below
  T, and "linspace" ends at t = 1. But a step goes down by T // steps, whatever the next timestep
  is: so single steps are compared, each between two of ours.
- In float32 it can find 1 - alpha_bar_s - sigma^2 negative, and x_s NaN: in the first of 5 steps
  with eta = 1 and the cosine schedule of T = 1000, for one. Steps at which rounding decides that
  sign are left out, and counted.
"""
import sys
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from minidiff.beyond.samplers import ddim_sampling, ddim_timesteps  # noqa: E402
from minidiff.diffusion import SCHEDULES, ancestral_sampling, eps_from_x0, q_sample  # noqa: E402

import numpy as np  # noqa: E402

try:
    import diffusers
    import torch
    from diffusers.schedulers import DDIMScheduler, DDPMScheduler, scheduling_ddpm
except ImportError as error:
    sys.exit(f"this comparison needs diffusers and PyTorch ({error}): "
             "pip install diffusers torch")


class Rounded:
    """Numbers and a bound of their error: to first order, what the errors of the operands become,
    and one rounding."""
    unit = 0.0  # the largest relative error of a rounding
    __array_ufunc__ = None  # leaves array * Rounded to __rmul__

    def __init__(self, value, error=0.0, roundings=0):
        self.value = value
        self.error = error + roundings * self.unit * np.abs(value)
        self.shape = np.shape(value)
        self.device = None
        self.dtype = None

    @classmethod
    def __torch_function__(cls, function, types, args, options):
        return args[0]  # torch.clamp(variance, min=1e-20)

    def __getitem__(self, i):
        return Rounded(self.value[i], self.error[i])

    def __neg__(self):
        return Rounded(-self.value, self.error)

    def __add__(self, other):
        other = rounded(other)
        return Rounded(self.value + other.value, self.error + other.error, 1)

    def __radd__(self, other):
        return self + other

    def __sub__(self, other):
        return self + -rounded(other)

    def __rsub__(self, other):
        return -self + other

    def __mul__(self, other):
        other = rounded(other)
        error = abs(self.value) * other.error + abs(other.value) * self.error
        return Rounded(self.value * other.value, error, 1)

    def __rmul__(self, other):
        return self * other

    def __truediv__(self, other):
        return self * Rounded(1 / other.value, other.error / other.value**2)

    def __pow__(self, power):
        """power: 2 or 0.5. There is no bound for the root of what may be negative."""
        if power == 2:
            return self * self
        error = self.error / np.maximum(self.value, 1e-300)**0.5
        error = np.where(self.error > self.value, np.inf, error)
        return Rounded(self.value**0.5, error, 1)

    def clamp(self, low, high):
        return Rounded(np.clip(self.value, low, high), self.error)


def rounded(x):
    return x if isinstance(x, Rounded) else Rounded(x)


# ---- diffusers' side -----------------------------------------------------------------------------

def schedulers(kind, name, schedule, dtype, clip=None, **options):
    """diffusers' scheduler on the same betas, and once more on numbers that carry a bound of their
    error."""
    T = schedule.T
    if name == "cosine":
        options["beta_schedule"] = "squaredcos_cap_v2"
    elif T > 20:
        options |= {"beta_start": 1e-4 * 1000 / T, "beta_end": 0.02 * 1000 / T}
    else:
        options["trained_betas"] = list(schedule.beta[1:])
    options |= {"clip_sample": clip is not None, "clip_sample_range": clip,
                "timestep_spacing": "trailing"}
    theirs = kind(T, **options)
    bounds = kind(T, **options)
    if dtype == np.float64:
        theirs.betas = torch.from_numpy(schedule.beta[1:])
        theirs.alphas_cumprod = torch.cumprod(1 - theirs.betas, 0)
    # how far apart the two are is itself compared, as "alpha_bar"
    apart = abs(theirs.alphas_cumprod.numpy() - schedule.alpha_bar[1:])
    bounds.alphas_cumprod = Rounded(schedule.alpha_bar[1:], apart)
    bounds.one = Rounded(1.0)
    bounds.final_alpha_cumprod = bounds.one
    return theirs, bounds


def ddpm_step(scheduler, t, s, x, eps, z, variance, clip):
    scheduling_ddpm.randn_tensor = lambda *args, **options: z
    return scheduler.step(eps, t - 1, x).prev_sample


def ddim_step(scheduler, t, s, x, eps, z, steps, eta, clip):
    scheduler.num_inference_steps = 1  # it goes down by num_train_timesteps // num_inference_steps
    scheduler.register_to_config(num_train_timesteps=t - s)
    clipped = clip is not None
    step = scheduler.step(eps, t - 1, x, eta, use_clipped_model_output=clipped, variance_noise=z)
    return step.prev_sample


# ---- what is compared ----------------------------------------------------------------------------

def compared_tables(kind, name, schedule, dtype, noises):
    """As `comparisons`: tables and the forward process."""
    T = schedule.T
    theirs, bounds = schedulers(kind, name, schedule, dtype)
    beta = Rounded(schedule.beta[1:], roundings=7)  # the most in a linspace
    alpha_bar = Rounded(1.0)
    yield "beta", beta.value, theirs.betas, beta
    for t in range(1, T + 1):
        alpha_bar *= 1 - beta[t - 1]
        yield "alpha_bar", schedule.alpha_bar[t], theirs.alphas_cumprod[t - 1], alpha_bar
        if t > 1:  # DDPMScheduler knows s = t - 1, and makes no use of the second argument
            variances = (scheduler._get_variance(t - 1, t - 2) for scheduler in (theirs, bounds))
            yield "beta_tilde", schedule.beta_tilde[t], *variances
    x0 = np.array(noises)
    eps = np.array(noises[::-1])
    t = np.arange(T)
    noised = theirs.add_noise(*map(torch.from_numpy, (x0, eps, t)))
    ab = bounds.alphas_cumprod[:, None, None, None]
    yield "x_t", q_sample(schedule, x0, t + 1, eps), noised, ab**0.5 * x0 + (1 - ab)**0.5 * eps


def compared_steps(pair, step, sampler, schedule, ts, x_T, goal, noises, *options):
    """Each step of a sampler (ours, theirs, bound). goal: the x_0 that eps_theta predicts."""
    def eps_theta(x, t, cond):
        return eps_from_x0(schedule, x, t, goal)

    remaining = iter(noises)
    rng = SimpleNamespace(standard_normal=lambda shape, dtype: next(remaining))
    xs = list(sampler(schedule, eps_theta, x_T, None, rng, *options))
    assert len(xs) == len(ts), f"{len(xs) - 1} steps in place of {len(ts) - 1}"
    theirs, bounds = pair
    for (t, s), (x, x_s), z in zip(pairwise(map(int, ts)), pairwise(xs), noises):
        eps = eps_theta(x, t, None)
        found = step(theirs, t, s, *map(torch.from_numpy, (x, eps, z)), *options)
        bound = step(bounds, t, s, *map(Rounded, (x, eps, z)), *options)
        yield x_s, found, bound


def comparisons(name, T, dtype):
    """Yields (what is compared, ours, theirs, bound of the rounding error of theirs)."""
    Rounded.unit = np.finfo(dtype).eps / 2
    schedule = SCHEDULES[name](T)
    numbers = np.random.default_rng(T).standard_normal((T + 2, 4, 8, 2)).astype(dtype)
    goal, x_T, *noises = numbers
    for kind in (DDPMScheduler, DDIMScheduler):
        yield from compared_tables(kind, name, schedule, dtype, noises)
    trailing, _ = schedulers(DDIMScheduler, name, schedule, dtype)
    for steps in [steps for steps in range(1, T + 1) if T % steps == 0]:
        trailing.set_timesteps(steps)
        assert [*trailing.timesteps + 1, 0] == list(ddim_timesteps(T, steps)), \
            "the trailing timesteps are not ours"
    for clip in (None, 1.0):
        clipped = ", clipped" if clip else ""
        for variance, fixed in (("beta-tilde", "fixed_small"), ("beta", "fixed_large")):
            pair = schedulers(DDPMScheduler, name, schedule, dtype, clip, variance_type=fixed)
            for found in compared_steps(pair, ddpm_step, ancestral_sampling, schedule,
                                        range(T, -1, -1), x_T, goal, noises, variance, clip):
                yield f"DDPM step, {variance}{clipped}", *found
        pair = schedulers(DDIMScheduler, name, schedule, dtype, clip)
        for eta, steps in product((0.0, 0.5, 1.0), sorted({1, 2, 3, 5, 7, 10, min(16, T), T})):
            for found in compared_steps(pair, ddim_step, ddim_sampling, schedule,
                                        ddim_timesteps(T, steps), x_T, goal, noises,
                                        steps, eta, clip):
                yield f"DDIM step, eta {eta:g}{clipped}", *found


def table(dtype):
    """What is compared -> a row for each comparison; and how many steps were left out."""
    rows, left_out = {}, 0
    for name, T in product(SCHEDULES, (10, 50, 100, 1000)):
        for what, ours, theirs, bound in comparisons(name, T, dtype):
            apart = abs(np.subtract(ours, theirs.numpy(), dtype=np.float64)).ravel()
            tolerance = np.ravel(2 * bound.error)
            if np.isinf(tolerance).any():
                left_out += 1
                continue
            i = np.argmax(apart / tolerance)  # a NaN counts as the largest
            row = apart[i] / tolerance[i], apart.max(), apart[i], tolerance[i], name, T
            rows.setdefault(what, []).append(row)
    return rows, left_out


def main():
    torch.set_num_threads(1)
    print(f"NumPy {np.__version__}, PyTorch {torch.__version__}, "
          f"diffusers {diffusers.__version__}")
    exceeded = False
    for dtype in (np.float32, np.float64):
        rows, left_out = table(dtype)
        head = f"{dtype.__name__}, {left_out} steps left out"
        print(f"\n{head:34}largest    closest to its tolerance")
        for what, found in rows.items():
            largest = max(row[1] for row in found)
            closest = np.argmax([row[0] for row in found])
            share, _, apart, tolerance, name, T = found[closest]
            within = share <= 1
            exceeded = exceeded or not within
            print(f"{what:34}{largest:7.1e}    {apart:.1e} of {tolerance:.1e}, {share:4.0%} "
                  f"({name}, T = {T}){'' if within else '  EXCEEDED'}")
    sys.exit(1 if exceeded else 0)


if __name__ == "__main__":
    main()
