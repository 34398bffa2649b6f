"""Other ways down the same chain, with the same eps_theta, for comparison with ancestral sampling."""
import numpy as np

from .diffusion import eps_from_x0, x0_from_eps


def ddim_timesteps(T, steps):
    """steps+1 timesteps from T to 0, evenly spaced and rounded, strictly falling. They start at T, where x_T lies."""
    if not 1 <= steps <= T:
        raise ValueError(f"ddim takes 1 to T = {T} steps, not {steps}")
    return np.round(np.linspace(T, 0, steps + 1)).astype(int)


def ddim_sampling(schedule, eps_theta, x_T, cond, rng, steps=16, eta=0.0, clip=None):
    """DDIM (Song, Meng & Ermon 2021, eq. 12 and 16) on a few of the timesteps; yields x at each, from x_T to x_0.

        x_s = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s - sigma^2) eps + sigma z,   s < t, x_0 as eps_theta sees it
        sigma = eta sqrt((1-alpha_bar_s) / (1-alpha_bar_t)) sqrt(1 - alpha_bar_t/alpha_bar_s)

    eta = 0: no noise after x_T; eta = 1 on all T timesteps: ancestral sampling with the variance beta_tilde.
    """
    x, ab = x_T, schedule.alpha_bar
    yield x
    ts = ddim_timesteps(schedule.T, steps)
    for t, s in zip(ts[:-1], ts[1:]):
        eps = eps_theta(x, t, cond).data
        x0 = x0_from_eps(schedule, x, t, eps)
        if clip is not None:
            x0 = np.clip(x0, -clip, clip)
            eps = eps_from_x0(schedule, x, t, x0)
        sigma = eta * np.sqrt((1 - ab[s]) / (1 - ab[t]) * (1 - ab[t] / ab[s]))
        c_x0, c_eps, c_z = np.array([np.sqrt(ab[s]), np.sqrt(1 - ab[s] - sigma**2), sigma], x.dtype)
        x = c_x0 * x0 + c_eps * eps
        if sigma > 0:
            x = x + c_z * rng.standard_normal(x.shape, dtype=x.dtype)
        yield x
