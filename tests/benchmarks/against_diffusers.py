"""Agreement with Hugging Face diffusers (DDPMScheduler, DDIMScheduler): tables, forward process, every step back.

    pip install -e '.[benchmarks]'
    python tests/benchmarks/against_diffusers.py

Every step of minidiff's chains is taken again by diffusers, from the same x_t, eps and noise; its timestep is our t
minus one. Once with its tables as they come, in float32, and once with its tables computed in float64. The tolerance
is not chosen: diffusers' own code is run on numbers that carry a bound of their rounding error, and as both sides
round, twice that bound may lie between them. Exits with 1 where more does. Takes under a minute. What diffusers does
otherwise:

- A linear schedule is neither scaled to T nor held below 1: it is given the scaled ends here, or our betas if T <= 20.
- The posterior variance at t = 1 is 1e-20 and not 0. No step shows it: both take the mean alone there.
- DDIM keeps eps as it is when x_0 is clipped; with use_clipped_model_output=True it goes with the clipped x_0, as ours.
- DDIM ends at alpha_bar = 1, as ours does; with set_alpha_to_one=False it would end at the noise of t = 1.
- DDIM's timesteps start at T here, since x_T is a draw of q(x_T) and of no other. Where steps divides T, the spacing
  "trailing" has the same; "leading", the default, starts T/steps - 1 below T, and "linspace" ends at t = 1. But a step
  goes down by T // steps, whatever the next timestep is: so single steps are compared, each between two of ours.
- In float32 it can find 1 - alpha_bar_s - sigma^2 negative, and x_s NaN: in the first of 5 steps with eta = 1 and the
  cosine schedule of T = 1000, for one. Steps at which rounding decides that sign are left out, and counted.
"""
import sys
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[2]))
import minidiff  # noqa: E402, F401  (first: one BLAS thread)
import numpy as np  # noqa: E402

try:
    import diffusers
    import torch
    from diffusers.schedulers import DDIMScheduler, DDPMScheduler, scheduling_ddpm
except ImportError as error:
    sys.exit(f"this comparison needs diffusers and PyTorch ({error}): pip install diffusers torch")

from minidiff.diffusion import SCHEDULES, ancestral_sampling, eps_from_x0, q_sample  # noqa: E402
from minidiff.beyond.samplers import ddim_sampling, ddim_timesteps  # noqa: E402
from minidiff.tensor import Tensor  # noqa: E402


class Rounded:
    """Numbers and a bound of their error: to first order, what the errors of the operands become, and one rounding."""
    unit = 0.0  # the largest relative error of a rounding
    __array_ufunc__ = None  # leaves array * Rounded to __rmul__
    __torch_function__ = classmethod(lambda cls, f, types, args, options: args[0])  # torch.clamp(variance, min=1e-20)

    def __init__(self, value, error=0.0, roundings=0):
        self.value, self.error = value, error + roundings * self.unit * np.abs(value)
        self.shape, self.device, self.dtype = np.shape(value), None, None

    def __mul__(a, b):
        b = rounded(b)
        return Rounded(a.value * b.value, abs(a.value) * b.error + abs(b.value) * a.error, 1)

    def __pow__(a, power):  # 2 or 0.5; there is no bound for the root of what may be negative
        if power == 2:
            return a * a
        error = a.error / np.maximum(a.value, 1e-300)**0.5
        return Rounded(a.value**0.5, np.where(a.error > a.value, np.inf, error), 1)

    __getitem__ = lambda a, i: Rounded(a.value[i], a.error[i])
    __neg__ = lambda a: Rounded(-a.value, a.error)
    __add__ = __radd__ = lambda a, b: Rounded(a.value + rounded(b).value, a.error + rounded(b).error, 1)
    __sub__, __rsub__, __rmul__ = lambda a, b: a + -rounded(b), lambda a, b: -a + b, __mul__
    __truediv__ = lambda a, b: a * Rounded(1 / b.value, b.error / b.value**2)
    clamp = lambda a, low, high: Rounded(np.clip(a.value, low, high), a.error)


rounded = lambda x: x if isinstance(x, Rounded) else Rounded(x)


def schedulers(kind, name, schedule, dtype, clip=None, **options):
    """diffusers' scheduler on the same betas, and the same once more on numbers that carry a bound of their error."""
    T, ends = schedule.T, {"beta_start": 1e-4 * 1000 / schedule.T, "beta_end": 0.02 * 1000 / schedule.T}
    options |= ({"beta_schedule": "squaredcos_cap_v2"} if name == "cosine" else
                ends if T > 20 else {"trained_betas": list(schedule.beta[1:])})
    options |= {"clip_sample": clip is not None, "clip_sample_range": clip, "timestep_spacing": "trailing"}
    theirs, bounds = kind(T, **options), kind(T, **options)
    if dtype == np.float64:
        theirs.betas = torch.from_numpy(schedule.beta[1:])
        theirs.alphas_cumprod = torch.cumprod(1 - theirs.betas, 0)
    apart = abs(theirs.alphas_cumprod.numpy() - schedule.alpha_bar[1:])  # itself compared, as "alpha_bar"
    bounds.alphas_cumprod = Rounded(schedule.alpha_bar[1:], apart)
    bounds.one = bounds.final_alpha_cumprod = Rounded(1.0)
    return theirs, bounds


def ddpm_step(scheduler, t, s, x, eps, z, variance, clip):
    scheduling_ddpm.randn_tensor = lambda *args, **options: z
    return scheduler.step(eps, t - 1, x).prev_sample


def ddim_step(scheduler, t, s, x, eps, z, steps, eta, clip):
    scheduler.num_inference_steps = 1  # it goes down by num_train_timesteps // num_inference_steps
    scheduler.register_to_config(num_train_timesteps=t - s)
    return scheduler.step(eps, t - 1, x, eta, use_clipped_model_output=clip is not None, variance_noise=z).prev_sample


def comparisons(name, T, dtype):
    """Yields (what is compared, ours, theirs, bound of the rounding error of theirs)."""
    Rounded.unit, schedule = np.finfo(dtype).eps / 2, SCHEDULES[name](T)
    goal, x_T, *noises = np.random.default_rng(T).standard_normal((T + 2, 4, 8, 2)).astype(dtype)
    eps_theta = lambda x, t, cond: Tensor(eps_from_x0(schedule, x, t, goal))

    def steps_back(pair, step, sampler, ts, *options):
        draws = iter(noises)
        rng = SimpleNamespace(standard_normal=lambda shape, dtype: next(draws))
        xs = list(sampler(schedule, eps_theta, x_T, None, rng, *options))
        assert len(xs) == len(ts), f"{len(xs) - 1} steps in place of {len(ts) - 1}"
        for (t, s), (x, x_s), z in zip(pairwise(map(int, ts)), pairwise(xs), noises):
            given = x, eps_theta(x, t, None).data, z
            yield x_s, *(step(scheduler, t, s, *map(number, given), *options)
                         for scheduler, number in zip(pair, (torch.from_numpy, Rounded)))

    for kind in (DDPMScheduler, DDIMScheduler):
        theirs, bounds = schedulers(kind, name, schedule, dtype)
        beta, alpha_bar = Rounded(schedule.beta[1:], roundings=7), Rounded(1.0)  # 7: the most in a linspace
        yield "beta", beta.value, theirs.betas, beta
        for t in range(1, T + 1):
            alpha_bar *= 1 - beta[t - 1]
            yield "alpha_bar", schedule.alpha_bar[t], theirs.alphas_cumprod[t - 1], alpha_bar
            if t > 1:  # DDPMScheduler knows s = t - 1, and makes no use of the second argument
                yield "beta_tilde", schedule.beta_tilde[t], *(it._get_variance(t - 1, t - 2) for it in (theirs, bounds))
        x0, eps, t = np.array(noises), np.array(noises[::-1]), np.arange(T)
        noised, ab = theirs.add_noise(*map(torch.from_numpy, (x0, eps, t))), bounds.alphas_cumprod[:, None, None, None]
        yield "x_t", q_sample(schedule, x0, t + 1, eps), noised, ab**0.5 * x0 + (1 - ab)**0.5 * eps
    for steps in (steps for steps in range(1, T + 1) if T % steps == 0):
        theirs.set_timesteps(steps)
        assert [*theirs.timesteps + 1, 0] == list(ddim_timesteps(T, steps)), "the trailing timesteps are not ours"
    for clip in (None, 1.0):
        for variance, fixed in (("beta-tilde", "fixed_small"), ("beta", "fixed_large")):
            pair = schedulers(DDPMScheduler, name, schedule, dtype, clip, variance_type=fixed)
            for found in steps_back(pair, ddpm_step, ancestral_sampling, range(T, -1, -1), variance, clip):
                yield f"DDPM step, {variance}" + ", clipped" * bool(clip), *found
        pair = schedulers(DDIMScheduler, name, schedule, dtype, clip)
        for eta, steps in product((0.0, 0.5, 1.0), sorted({1, 2, 3, 5, 7, 10, min(16, T), T})):
            for found in steps_back(pair, ddim_step, ddim_sampling, ddim_timesteps(T, steps), steps, eta, clip):
                yield f"DDIM step, eta {eta:g}" + ", clipped" * bool(clip), *found


def main():
    torch.set_num_threads(1)
    print(f"NumPy {np.__version__}, PyTorch {torch.__version__}, diffusers {diffusers.__version__}")
    exceeded = False
    for dtype in (np.float32, np.float64):
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
        print(f"\n{dtype.__name__ + f', {left_out} steps left out':34}largest    closest to its tolerance")
        for what, found in rows.items():
            share, _, apart, tolerance, name, T = found[np.argmax([row[0] for row in found])]
            exceeded |= not share <= 1
            print(f"{what:34}{max(row[1] for row in found):7.1e}    {apart:.1e} of {tolerance:.1e}, {share:4.0%} "
                  f"({name}, T = {T}){'' if share <= 1 else '  EXCEEDED'}")
    sys.exit(int(exceeded))


if __name__ == "__main__":
    main()
