"""Other ways from noise to data with the same eps_theta: DDIM, score-based models and SDEs.

Score-based models (Song & Ermon 2019) and score SDEs (Song et al. 2021) see the same network in
another way: by eq. 13 it is the score of the noised data, score(x_t) = -eps_theta /
sqrt(1-alpha_bar_t).

    ddim_sampling         jumps along the chain, with or without noise
    reverse_sde           dx = (-x/2 - score) beta dt + sqrt(beta) dw, backwards: Euler-Maruyama
    probability_flow      dx = (-x/2 - score/2) beta dt, backwards: the ODE with the same marginals
    annealed_langevin     Langevin dynamics on q(x_t), for one noise level after another
    predictor_corrector   ancestral sampling, with a Langevin step at each noise level
    log_likelihood        the exact density of what the ODE makes of N(0, I)

Each sampler is a generator like ancestral_sampling: from x_T (B, H, D) on it yields x at each
timestep, x_0 last.
"""
import numpy as np

from ..diffusion import eps_from_x0, p_sample, x0_from_eps
from ..tensor import Tape, Tensor


def ddim_timesteps(T, steps=None):
    """steps+1 timesteps from T to 0, evenly spaced and rounded, strictly falling.

    They start at T, the timestep of x_T. steps: T if None; ValueError unless it is in 1..T.
    """
    steps = T if steps is None else steps
    if not 1 <= steps <= T:
        raise ValueError(f"the chain takes 1 to T = {T} steps, not {steps}")
    return np.round(np.linspace(T, 0, steps + 1)).astype(int)


def denoised(schedule, eps_theta, x, t, cond, clip=None):
    """The predicted x_0, bounded to [-clip, clip], and the eps that goes with it."""
    eps_hat = eps_theta(x, t, cond)
    x0_hat = x0_from_eps(schedule, x, t, eps_hat)
    if clip is None:
        return x0_hat, eps_hat
    x0_hat = np.clip(x0_hat, -clip, clip)
    return x0_hat, eps_from_x0(schedule, x, t, x0_hat)


def noise_like(x, rng):
    return rng.standard_normal(x.shape, dtype=x.dtype)


def ddim_sampling(schedule, eps_theta, x_T, cond, rng, steps=None, eta=0.0, clip=None):
    """DDIM (Song, Meng & Ermon 2021, eq. 12 and 16) on a few of the timesteps, s < t.

        x_s = sqrt(alpha_bar_s) x0_hat + sqrt(1 - alpha_bar_s - sigma^2) eps_hat + sigma z
        sigma = eta sqrt((1-alpha_bar_s) / (1-alpha_bar_t)) sqrt(1 - alpha_bar_t/alpha_bar_s)

    eta = 0: no noise after x_T; eta = 1 on all T timesteps: ancestral sampling with beta_tilde.
    steps: 16, or T if that is less. ValueError for an eta outside 0..1.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be from 0 to 1, not {eta}")
    ab = schedule.alpha_bar
    steps = min(16, schedule.T) if steps is None else steps
    x = x_T
    yield x
    ts = ddim_timesteps(schedule.T, steps)
    for t, s in zip(ts, ts[1:]):
        x0_hat, eps_hat = denoised(schedule, eps_theta, x, t, cond, clip)
        sigma = eta * np.sqrt((1 - ab[s]) / (1 - ab[t]) * (1 - ab[t] / ab[s]))
        coefficients = np.sqrt(ab[s]), np.sqrt(1 - ab[s] - sigma**2), sigma
        c_x0, c_eps, c_z = np.array(coefficients, x.dtype)
        x = c_x0 * x0_hat + c_eps * eps_hat
        if sigma > 0:
            x = x + c_z * noise_like(x, rng)
        yield x


# ---- the SDE and its ODE -------------------------------------------------------------------------

def reverse_sde(schedule, eps_theta, x_T, cond, rng, steps=None, clip=None):
    """Euler-Maruyama on the reverse of the variance-preserving SDE (Song et al. 2021, eq. 6, 11).

        x_s = x_t + beta (x_t/2 + score) + sqrt(beta) z,   s < t;   no z in the last step

    beta = 1 - alpha_bar_t/alpha_bar_s approximates the integral of beta(t) dt from s to t.
    """
    ab = schedule.alpha_bar
    x = x_T
    yield x
    ts = ddim_timesteps(schedule.T, steps)
    for t, s in zip(ts, ts[1:]):
        _, eps_hat = denoised(schedule, eps_theta, x, t, cond, clip)
        beta = 1 - ab[t] / ab[s]
        coefficients = 1 + beta / 2, -beta / np.sqrt(1 - ab[t]), np.sqrt(beta)
        c_x, c_eps, c_z = np.array(coefficients, x.dtype)
        x = c_x * x + c_eps * eps_hat
        if s > 0:
            x = x + c_z * noise_like(x, rng)
        yield x


def flow_step(schedule, eps, x, t, s):
    """One step of Heun's method along the probability-flow ODE, from t to s, down or up.

    eps(x, t): the predicted noise. With the angle phi, cos(phi) = sqrt(alpha_bar), as its time, the
    ODE is dx/dphi = v = cos(phi) eps - sin(phi) x_0: the network inside nn.Denoiser predicts the
    velocity (Salimans & Ho 2022, appendix D). At t = 0 there is no noise to predict, so a step from
    or to 0 uses the velocity of its other end alone.
    """
    signal = schedule.signal.astype(x.dtype)
    noise = schedule.noise.astype(x.dtype)
    angle = np.arctan2(schedule.noise, schedule.signal).astype(x.dtype)
    step = angle[s] - angle[t]

    def velocity(x, t):
        return (eps(x, t) - x * noise[t]) / signal[t]

    if t == 0:
        return x + velocity(x, s) * step
    v = velocity(x, t)
    if s > 0:
        v = (v + velocity(x + v * step, s)) * 0.5
    return x + v * step


def probability_flow(schedule, eps_theta, x_T, cond, rng, steps=None, clip=None):
    """The ODE from x_T to x_0 by `flow_step`, which calls the network twice. Only x_T is random.

    steps: 8, or T if that is less.
    """
    steps = min(8, schedule.T) if steps is None else steps

    def eps(x, t):
        return denoised(schedule, eps_theta, x, t, cond, clip)[1]

    x = x_T
    yield x
    ts = ddim_timesteps(schedule.T, steps)
    for t, s in zip(ts, ts[1:]):
        x = flow_step(schedule, eps, x, t, s)
        yield x


def log_likelihood(schedule, eps_theta, x0, cond, steps=None):
    """log p(x_0) in nats (B,), p: what the probability-flow ODE turns N(0, I) into.

    By change of variables (Song et al. 2021, section 4.3), with the whole Jacobian in place of an
    estimate of its trace: log p(x_0) = log N(x_T; 0, I) + sum over the steps of log |det
    dx_s/dx_t|. For low dimension: a chunk of n = H D numbers is carried along n times, and one
    backward pass gives each copy the gradient of another number of x_s. steps: T if None.
    """
    B = len(x0)
    n = x0[0].size
    x = np.repeat(x0, n, 0)  # (B n, H, D)
    cond = np.repeat(cond, n, 0)
    each_number = np.tile(np.eye(n), (B, 1)).reshape(x.shape)

    def eps(x, t):
        return eps_theta(x, t, cond)

    log_det = np.zeros(B)
    ts = ddim_timesteps(schedule.T, steps)[::-1]
    for t, s in zip(ts, ts[1:]):
        with Tape() as tape:
            start = Tensor(x)
            end = flow_step(schedule, eps, start, t, s)
        tape.backward(end, each_number)
        log_det += np.linalg.slogdet(start.grad.reshape(B, n, n))[1]
        x = end.data
    x_T = x.reshape(B, n, n)[:, 0]
    return log_det - 0.5 * (x_T**2 + np.log(2 * np.pi)).sum(1)


# ---- Langevin dynamics ---------------------------------------------------------------------------

def langevin_step(schedule, eps_theta, x, t, cond, rng, size, clip=None):
    """x + a/2 score + sqrt(a) z, a = size (1-alpha_bar_t).

    Repeated, its law becomes q(x_t), up to an error of order size. ValueError unless size > 0.
    """
    if not size > 0:
        raise ValueError(f"the size of a Langevin step must be above 0, not {size}")
    _, eps_hat = denoised(schedule, eps_theta, x, t, cond, clip)
    noise, half, root = np.array([schedule.noise[t], size / 2, np.sqrt(size)], x.dtype)
    return x - half * noise * eps_hat + root * noise * noise_like(x, rng)


def annealed_langevin(schedule, eps_theta, x_T, cond, rng, steps=None, repeats=2, size=0.5,
                      clip=None):
    """`repeats` Langevin steps at each of the timesteps T .. 1, then the x_0 predicted at the last.

    Song & Ermon 2019, algorithm 1, whose noised data are x_t/sqrt(alpha_bar_t). There is no chain
    here, only scores.
    """
    x = x_T
    for t in ddim_timesteps(schedule.T, steps)[:-1]:
        yield x
        for _ in range(repeats):
            x = langevin_step(schedule, eps_theta, x, t, cond, rng, size, clip)
    yield denoised(schedule, eps_theta, x, t, cond, clip)[0]


def predictor_corrector(schedule, eps_theta, x_T, cond, rng, repeats=1, size=0.1, clip=None):
    """Ancestral steps, each followed by `repeats` Langevin steps at the noise level it reached.

    Song et al. 2021, algorithm 1.
    """
    x = x_T
    yield x
    for t in range(schedule.T, 0, -1):
        x = p_sample(schedule, eps_theta, x, t, cond, rng, clip=clip)
        for _ in range(repeats if t > 1 else 0):
            x = langevin_step(schedule, eps_theta, x, t - 1, cond, rng, size, clip)
        yield x
