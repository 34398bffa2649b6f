"""Other ways from noise to data with the same eps_theta: DDIM, score-based models and SDEs.

Score-based models (Song & Ermon 2019) and score SDEs (Song et al. 2021) use the same network in
another way. By eq. 13 it estimates the score of the noised data, grad log q(x_t):
score(x_t) = -eps_theta / sqrt(1-alpha_bar_t).

    ddim_sampling         jumps along the chain, with or without noise
    reverse_sde           dx = (-x/2 - score) beta dt + sqrt(beta) dw, backwards: Euler-Maruyama
    probability_flow      dx = (-x/2 - score/2) beta dt, backwards: the ODE with the same marginals
    annealed_langevin     Langevin dynamics on q(x_t), for one noise level after another
    predictor_corrector   ancestral sampling, with a Langevin step at each noise level
    log_likelihood        log p(x_0) where p is what the ODE makes of N(0, I)

Each sampler is a generator like ancestral_sampling: it yields x_T (B, H, D), then x at each
timestep that it visits, and x_0 last. A step here is one of the noise, not of the world: from
timestep t to a lower timestep s.
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
    """The predicted x_0, bounded to [-clip, clip], and the eps that belongs to it by eq. 5."""
    eps_hat = eps_theta(x, t, cond)
    x0_hat = x0_from_eps(schedule, x, t, eps_hat)
    if clip is None:
        return x0_hat, eps_hat
    x0_hat = np.clip(x0_hat, -clip, clip)
    return x0_hat, eps_from_x0(schedule, x, t, x0_hat)


def noise_like(x, rng):
    return rng.standard_normal(x.shape, dtype=x.dtype)


def ddim_sampling(schedule, eps_theta, x_T, cond, rng, steps=None, eta=0.0, clip=None):
    """DDIM (Song, Meng & Ermon 2021, eq. 12 and 16): from t to s < t, on a few of the timesteps.

        x_s = sqrt(alpha_bar_s) x0_hat + sqrt(1 - alpha_bar_s - sigma^2) eps_hat + sigma z
        sigma = eta sqrt((1-alpha_bar_s) / (1-alpha_bar_t)) sqrt(1 - alpha_bar_t/alpha_bar_s)

    Why timesteps may be skipped: with the true x_0 and eps, the last two terms are noise of the
    variance 1-alpha_bar_s. So x_s has the law q(x_s | x_0) of eq. 4 for any s < t and eta (their
    lemma 1). The loss knows no other law than q(x_t | x_0), so the same network serves.

    eta = 0 adds no noise after x_T. eta = 1 on all T timesteps is ancestral sampling with the
    variance beta_tilde. steps: 16 by default, or T if that is less. ValueError for an eta outside
    0..1.
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
    steps: T by default.
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

    eps(x, t): the predicted noise. Let the angle phi be the time of the ODE, with cos(phi) =
    sqrt(alpha_bar). Then the ODE is dx/dphi = v = cos(phi) eps - sin(phi) x_0: the network inside
    nn.Denoiser predicts the velocity (Salimans & Ho 2022, appendix D). At timestep 0 there is no
    noise to predict. So a step from 0 or to 0 is one of Euler's method, with the velocity that is
    predicted for its other timestep.
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
    """The ODE from x_T to x_0, in steps of `flow_step`. Only x_T is random.

    A step calls the network twice, the last one once. steps: 8 by default, or T if that is less.
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
    """log p(x_0) in nats (B,), where p is what the probability-flow ODE turns N(0, I) into.

    By change of variables (Song et al. 2021, section 4.3), along the ODE from x_0 up to x_T:

        log p(x_0) = log N(x_T; 0, I) + sum over the steps from t up to s of log |det dx_s/dx_t|

    The whole Jacobian is computed, not an estimate of its trace. So this is for low dimensions: a
    chunk of n = H D numbers is carried along as n copies, and one backward pass gives each copy the
    gradient of another number of x_s. steps: T by default; fewer make a larger error.
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
    """x + a/2 score + sqrt(a) z, with a = size (1-alpha_bar_t).

    After many such steps x is distributed as q(x_t), up to an error of order size. ValueError
    unless size > 0.
    """
    if not size > 0:
        raise ValueError(f"the size of a Langevin step must be above 0, not {size}")
    _, eps_hat = denoised(schedule, eps_theta, x, t, cond, clip)
    noise, half, root = np.array([schedule.noise[t], size / 2, np.sqrt(size)], x.dtype)
    return x - half * noise * eps_hat + root * noise * noise_like(x, rng)


def annealed_langevin(schedule, eps_theta, x_T, cond, rng, steps=None, repeats=2, size=0.5,
                      clip=None):
    """`repeats` Langevin steps at each of `steps` timesteps, from T down; then the predicted x_0.

    Song & Ermon 2019, algorithm 1. (Their noised data are x_t/sqrt(alpha_bar_t).) The samples use
    the scores alone, no transition of the chain. steps: T by default, which are T, T-1, .., 1.
    x_0 is predicted at the last timestep.
    """
    x = x_T
    for t in ddim_timesteps(schedule.T, steps)[:-1]:
        yield x
        for _ in range(repeats):
            x = langevin_step(schedule, eps_theta, x, t, cond, rng, size, clip)
    yield denoised(schedule, eps_theta, x, t, cond, clip)[0]


def predictor_corrector(schedule, eps_theta, x_T, cond, rng, repeats=1, size=0.1, clip=None):
    """Ancestral steps (variance beta_tilde), each followed by `repeats` Langevin steps at the
    timestep that it has reached. None follow the last, which has reached x_0.

    Song et al. 2021, algorithm 1.
    """
    x = x_T
    yield x
    for t in range(schedule.T, 0, -1):
        x = p_sample(schedule, eps_theta, x, t, cond, rng, clip=clip)
        for _ in range(repeats if t > 1 else 0):
            x = langevin_step(schedule, eps_theta, x, t - 1, cond, rng, size, clip)
        yield x
