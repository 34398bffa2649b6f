"""The paper: noise schedule, forward process, objective, reverse process, variational bound.

q is the forward process, which is fixed and adds noise. p_theta is the reverse process, which is
learned; theta are the weights of the network. t runs 1..T as in the paper. Every table has T+1
entries, so table[t] is the value for timestep t; entry 0 stands for the data without noise.
"Eq." numbers are those of the table in the README. Ho = Ho, Jain & Abbeel 2020 (DDPM).

Shapes: x0, x_t, eps are (B, H, D): batch, actions of a chunk, numbers of an action. t is an array
(B,) of ints in 1..T, or one for the whole batch (p_sample takes one). Tables are float64; results
have the precision of x. x0 may be an array or, while a tape is open, a Tensor; then so are results.
"""
import numpy as np

from . import tensor as tn
from .layers import mse
from .tensor import constant

# ---- noise schedule ------------------------------------------------------------------------------

class Schedule:
    """beta_1..beta_T, the noise variance of each step, and the tables computed from them.

    Eq. 3: alpha_t = 1 - beta_t,   alpha_bar_t = prod_{s<=t} alpha_s.

    beta: (T,), each strictly between 0 and 1, else ValueError. All tables are (T+1,).
    """

    def __init__(self, beta):
        beta = np.asarray(beta, np.float64)
        if beta.ndim != 1 or not len(beta) or not ((beta > 0) & (beta < 1)).all():
            raise ValueError("a schedule takes a list of at least one beta, "
                             "each strictly between 0 and 1")
        self.T = len(beta)
        t = np.arange(1, self.T + 1)
        self.beta = _table(0, beta)
        self.alpha = 1 - self.beta
        self.alpha_bar = np.cumprod(self.alpha)
        # eq. 5: x_t = signal x_0 + noise eps; snr: signal-to-noise ratio signal^2 / noise^2
        self.signal = np.sqrt(self.alpha_bar)
        self.noise = np.sqrt(1 - self.alpha_bar)
        self.snr = _table(np.inf, self.alpha_bar[t] / (1 - self.alpha_bar[t]))
        # see q_posterior: its variance is beta_tilde, its mean c_x0 x_0 + c_xt x_t
        remaining = (1 - self.alpha_bar[t - 1]) / (1 - self.alpha_bar[t])
        self.beta_tilde = _table(0, remaining * beta)
        self.c_x0 = _table(1, np.sqrt(self.alpha_bar[t - 1]) * beta / (1 - self.alpha_bar[t]))
        self.c_xt = _table(0, np.sqrt(self.alpha[t]) * remaining)
        self.log_beta = _table(-np.inf, np.log(beta))
        # beta_tilde_1 = 0 has no logarithm: that of beta_tilde_2 is used (Nichol & Dhariwal 2021)
        floor = self.beta_tilde[min(2, self.T)] or beta[0]
        self.log_beta_tilde = np.log(np.where(self.beta_tilde > 0, self.beta_tilde, floor))
        # entropy of the posterior, in nats per number of x_{t-1}; 0 at t = 1, see bound_term
        self.posterior_entropy = 0.5 * (np.log(2 * np.pi) + 1 + self.log_beta_tilde)
        self.posterior_entropy[:2] = 0


def _table(entry_0, entries):
    return np.concatenate([[entry_0], entries])


def linear_schedule(T):
    """beta = 1 - (1-b)^(1000/T), b from 1e-4 to 0.02 in equal steps (Ho, section 4, for T = 1000).

    Why the power: without it, beta = b, and log alpha_bar_T = sum_t log(1 - beta_t) is about
    -0.0101 T. For T = 1000, alpha_bar_T is 4e-5: x_T is noise. For T = 100 it is 0.36: x_T still
    shows x_0. But sampling starts from pure noise, which the network would not know from training.
    With the power, one step does the work of 1000/T steps, and alpha_bar_T is 4e-5 for any T.
    """
    b = np.linspace(1e-4, 0.02, T) if T > 1 else np.array([0.01005])
    return Schedule(1 - (1 - b) ** (1000 / T))


def cosine_schedule(T, s=0.008):
    """alpha_bar_t = f(t)/f(0), f(t) = cos^2(pi/2 (t/T + s)/(1 + s)); beta <= 0.999.

    Nichol & Dhariwal 2021, eq. 17. It depends on t/T alone, so it suits any T. The limit on beta
    keeps alpha_bar_T above 0.
    """
    f = np.cos(np.pi / 2 * (np.arange(T + 1) / T + s) / (1 + s)) ** 2
    return Schedule(np.minimum(1 - f[1:] / f[:-1], 0.999))


SCHEDULES = {"cosine": cosine_schedule, "linear": linear_schedule}


def gather(table, t, x):
    """table[t], in the precision of x and shaped to multiply it.

    (B, 1, 1) for t (B,), a number for one t. float64 where x holds integers.
    """
    values = np.asarray(table[t], x.dtype if x.dtype.kind in "fc" else np.float64)
    return values.reshape(values.shape + (1,) * (len(x.shape) - 1)) if values.ndim else values


# ---- forward process -----------------------------------------------------------------------------

def q_step(schedule, x_prev, t, eps):
    """Eq. 1: a sample of q(x_t | x_{t-1}) = N(sqrt(1-beta_t) x_{t-1}, beta_t I); eps ~ N(0, I)."""
    keep = gather(np.sqrt(1 - schedule.beta), t, x_prev)
    return keep * x_prev + gather(np.sqrt(schedule.beta), t, x_prev) * eps


def q_chain(schedule, x0, rng):
    """Eq. 2: q(x_{1:T} | x_0) = prod_t q(x_t | x_{t-1}), step by step; yields x_1, x_2, .., x_T."""
    x = x0
    for t in range(1, schedule.T + 1):
        x = q_step(schedule, x, t, rng.standard_normal(x0.shape, dtype=x0.dtype))
        yield x


def q_mean_variance(schedule, x0, t):
    """Eq. 4: mean and variance of q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1-alpha_bar_t) I).

    By induction on t, with eq. 1. At t = 0 it holds: mean x_0, variance 0. If it holds at t-1, one
    step multiplies the mean by sqrt(alpha_t) and the variance by alpha_t, and adds beta_t:

        mean      sqrt(alpha_t) sqrt(alpha_bar_{t-1}) x_0 = sqrt(alpha_bar_t) x_0
        variance  alpha_t (1 - alpha_bar_{t-1}) + beta_t = alpha_t - alpha_bar_t + 1 - alpha_t
                  = 1 - alpha_bar_t

    And a Gaussian stays Gaussian when it is scaled and independent Gaussian noise is added.
    """
    return gather(schedule.signal, t, x0) * x0, gather(1 - schedule.alpha_bar, t, x0)


def q_sample(schedule, x0, t, eps):
    """Eq. 5: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1-alpha_bar_t) eps; differentiable in x_0."""
    return gather(schedule.signal, t, x0) * x0 + gather(schedule.noise, t, x0) * eps


def q_posterior(schedule, x0, x_t, t):
    """Mean and variance of q(x_{t-1} | x_t, x_0), a Gaussian by Bayes' rule (Ho eq. 6-7).

    This is the step back if x_0 is known; p_theta uses the predicted x_0 instead.

    Write x for x_{t-1} and a for alpha_bar_{t-1}, and let t > 1. Given x, x_t does not depend on
    x_0 (eq. 2), so the posterior is proportional to q(x_t | x) q(x | x_0). By eq. 1 and 4, -2 log
    of this product is, per number and up to a constant,

        (x_t - sqrt(alpha_t) x)^2 / beta_t + (x - sqrt(a) x_0)^2 / (1-a)

    Complete the square. The coefficient of x^2 is 1/beta_tilde_t, the inverse of the variance:

        alpha_t/beta_t + 1/(1-a) = (alpha_t (1-a) + beta_t) / (beta_t (1-a))
        beta_tilde_t = beta_t (1-a) / (1-alpha_bar_t),   as alpha_t (1-a) + beta_t = 1-alpha_bar_t

    The coefficient of -2x is sqrt(alpha_t) x_t / beta_t + sqrt(a) x_0 / (1-a); times beta_tilde_t
    it is the mean:

        mean = sqrt(a) beta_t / (1-alpha_bar_t) x_0 + sqrt(alpha_t) (1-a) / (1-alpha_bar_t) x_t

    At t = 1, a = 1 and x_{t-1} is x_0 itself: the two formulas give variance 0 and mean x_0.
    """
    mean = gather(schedule.c_x0, t, x_t) * x0 + gather(schedule.c_xt, t, x_t) * x_t
    return mean, gather(schedule.beta_tilde, t, x_t)


def x0_from_eps(schedule, x_t, t, eps):
    """Eq. 5 solved for x_0: (x_t - sqrt(1-alpha_bar_t) eps) / sqrt(alpha_bar_t).

    Let v = sqrt(alpha_bar_t) eps - sqrt(1-alpha_bar_t) x_0 (Salimans & Ho 2022). Given x_t, each of
    eps, x_0 and v is an affine function of any other. So the errors d of their predictions are
    proportional, d x_0 = -sqrt((1-alpha_bar)/alpha_bar) d eps, d v = d eps / sqrt(alpha_bar):

        |d eps|^2 = SNR_t |d x_0|^2 = alpha_bar_t |d v|^2,   SNR_t = alpha_bar_t / (1-alpha_bar_t)
    """
    return (x_t - gather(schedule.noise, t, x_t) * eps) / gather(schedule.signal, t, x_t)


def eps_from_x0(schedule, x_t, t, x0):
    """Eq. 5 solved for eps: (x_t - sqrt(alpha_bar_t) x_0) / sqrt(1-alpha_bar_t)."""
    return (x_t - gather(schedule.signal, t, x_t) * x0) / gather(schedule.noise, t, x_t)


def score_from_eps(schedule, t, eps):
    """Eq. 13: grad_{x_t} log q(x_t | x_0) = -eps / sqrt(1-alpha_bar_t).

    log q(x_t | x_0) = -|x_t - sqrt(alpha_bar) x_0|^2 / (2 (1-alpha_bar)) + const. Its gradient is
    -(x_t - sqrt(alpha_bar) x_0) / (1-alpha_bar), and the bracket is sqrt(1-alpha_bar) eps (eq. 5).
    The score of the noised data is grad log q(x_t), with q(x_t) = int q(x_0) q(x_t | x_0) dx_0.
    Differentiate the integral, and divide by q(x_t):

        grad log q(x_t) = E[grad log q(x_t | x_0) | x_t] = -E[eps | x_t] / sqrt(1-alpha_bar_t)

    E[eps | x_t] minimises the squared error of eq. 11, so eps_theta learns it. The score is
    estimated by -eps_theta / sqrt(1-alpha_bar_t).
    """
    return eps / -gather(schedule.noise, t, eps)


# ---- training objective --------------------------------------------------------------------------

def sample_t(schedule, batch, rng):
    """Eq. 12: t ~ U{1, .., T}, one for each element of the batch, (B,)."""
    return rng.integers(1, schedule.T + 1, batch)


def bound_weight(schedule, variance="beta"):
    """lambda(t) = beta_t^2 / (2 sigma_t^2 alpha_t (1-alpha_bar_t)), a table (T+1,) (Ho eq. 12).

    With it, T times eq. 11 is the variational bound up to a constant. If sigma_t^2, the variance of
    p_theta, is not learned, a term of the bound (see bound_term) depends on theta only through
    |d mean|^2 / (2 sigma_t^2). Here d mean is the difference between the means of the posterior and
    of p_theta. Both are c_x0 x_0 + c_xt x_t, the first with the true x_0, the second with the
    predicted one. So d mean = c_x0 d x_0. By x0_from_eps and alpha_bar_t = alpha_t alpha_bar_{t-1},

        c_x0^2 |d x_0|^2 = alpha_bar_{t-1} beta_t^2 / (1-alpha_bar_t)^2 |d eps|^2 / SNR_t
                         = beta_t^2 / (alpha_t (1-alpha_bar_t)) |d eps|^2

    L_simple drops this factor, as Ho found better samples without it (see loss_weight).
    """
    t = slice(1, None)
    sigma2 = fixed_variance(schedule, variance)[t]
    with np.errstate(divide="ignore"):  # beta_tilde_1 = 0: the weight at t = 1 is infinite
        denominator = 2 * sigma2 * schedule.alpha[t] * (1 - schedule.alpha_bar[t])
        return _table(0, schedule.beta[t]**2 / denominator)


WEIGHTS = ("uniform", "inverse-alpha-bar", "min-snr", "bound")


def loss_weight(schedule, name):
    """lambda(t) by name as a table (T+1,), scaled to mean one over t = 1..T.

    Adam divides by the gradient's size, so its updates by L_simple do not depend on the scale.

    uniform            1: every timestep's eps error counts the same (Ho eq. 14)
    inverse-alpha-bar  1/alpha_bar_t: the squared error of v, the output if preconditioned (see nn).
                       Cut at 1e4. At T the cosine schedule has 4e6, so v there hardly counts
    min-snr            min(SNR_t, 5)/SNR_t: the squared error of x_0 times SNR_t, or times 5 where
                       SNR_t is larger (Hang et al. 2023)
    bound              see bound_weight
    """
    if name == "uniform":
        weight = np.ones(schedule.T)
    elif name == "inverse-alpha-bar":
        weight = np.minimum(1 / schedule.alpha_bar[1:], 1e4)
    elif name == "min-snr":
        weight = np.minimum(schedule.snr[1:], 5) / schedule.snr[1:]
    elif name == "bound":
        weight = bound_weight(schedule)[1:]
    else:
        raise ValueError(f"weight '{name}': choose from {', '.join(WEIGHTS)}")
    return _table(0, weight / weight.mean())


def l_simple(schedule, eps_theta, x0, t, eps, cond, weight):
    """Eq. 11: L_simple = E[lambda(t) ||eps - eps_theta(x_t, t)||^2].

    The mean over batch, horizon and dimensions, for t (B,) by eq. 12 and eps ~ N(0, I).
    cond (B, F): the features that the network is given, too. weight: the table lambda (T+1,).
    Returns one number, while a tape is open a Tensor.
    """
    x_t = q_sample(schedule, x0, t, eps)
    return mse(eps_theta(x_t, t, cond), eps, gather(weight, t, x0))


# ---- reverse process -----------------------------------------------------------------------------

def fixed_variance(schedule, variance):
    """The table (T+1,) of sigma^2, "beta" or "beta-tilde", if Sigma_theta = sigma^2 I is fixed.

    The best Gaussian p_theta has the mean and variance of q(x_{t-1} | x_t). By the law of total
    variance, this variance is a sum, beta_tilde_t + c_x0^2 Var(x_0 | x_t): the posterior's own
    variance, and how much the posterior's mean varies with the unknown x_0. Two limits:

        x_0 one point     Var(x_0 | x_t) = 0                 sigma^2 = beta_tilde_t
        x_0 ~ N(0, I)     Var(x_0 | x_t) = 1-alpha_bar_t     sigma^2 = beta_t

    In the second the sum is, with a for alpha_bar_{t-1}, beta (1-a + a beta) / (1-alpha_bar_t) =
    beta, as a (1-beta) = alpha_bar_t. If E[x_0^2] <= 1, the sum's mean over x_t lies between the
    limits: E[Var(x_0 | x_t)] is the least mean squared error of any estimate of x_0 from x_t,
    and that of the estimate sqrt(alpha_bar_t) x_t is at most 1-alpha_bar_t.
    """
    if variance == "beta":
        return schedule.beta
    if variance == "beta-tilde":
        return schedule.beta_tilde
    raise ValueError(f"variance '{variance}': choose from beta-tilde, beta, learned")


def mean_from_eps(schedule, eps_hat, x_t, t, clip=None):
    """mu_theta: the posterior's mean at the predicted x_0 (Ho eq. 11). Without clip it equals

        (x_t - beta_t / sqrt(1-alpha_bar_t) eps_hat) / sqrt(alpha_t)

    as c_x0 / sqrt(alpha_bar_t) + c_xt = 1 / sqrt(alpha_t).
    clip bounds the predicted x_0 to [-clip, clip], for networks without preconditioning: near t = T
    x0_from_eps divides by a small number, so a small error of eps is a large one of x_0. With
    preconditioning (see nn.Denoiser) x_0 hardly ever reaches the bound.
    """
    x0_hat = x0_from_eps(schedule, x_t, t, eps_hat)
    if clip is not None:
        x0_hat = tn.clip(x0_hat, -clip, clip)
    return q_posterior(schedule, x0_hat, x_t, t)[0]


def learned_variance(schedule, v, x_t, t):
    """exp(v log beta_t + (1-v) log beta_tilde_t) (Nichol & Dhariwal 2021, eq. 15).

    v: (B, H, D), the second output of the network; it is not the v of v-prediction.
    """
    low = gather(schedule.log_beta_tilde, t, x_t)
    return tn.exp(v * (gather(schedule.log_beta, t, x_t) - low) + low)


def p_mean_variance(schedule, eps_theta, x_t, t, cond, variance="beta-tilde", clip=None):
    """Eq. 6: mean and variance of p_theta(x_{t-1} | x_t) = N(mu_theta, Sigma_theta).

    The true step back, q(x_{t-1} | x_t), is no Gaussian in general. But the smaller beta_t, the
    nearer it is to one (Sohl-Dickstein et al. 2015): this is why there are many steps.
    variance: "beta-tilde" or "beta" (see fixed_variance), or "learned", if the network predicts
    it (see learned_variance).
    clip: see mean_from_eps.
    """
    if variance == "learned":
        eps_hat, v = eps_theta.with_variance(x_t, t, cond)
        sigma2 = learned_variance(schedule, v, x_t, t)
    else:
        eps_hat = eps_theta(x_t, t, cond)
        sigma2 = gather(fixed_variance(schedule, variance), t, x_t)
    return mean_from_eps(schedule, eps_hat, x_t, t, clip), sigma2


def prior(shape, rng, dtype=np.float32):
    """Eq. 7: x_T ~ p(x_T) = N(0, I)."""
    return rng.standard_normal(shape, dtype=dtype)


def p_sample(schedule, eps_theta, x_t, t, cond, rng, variance="beta-tilde", clip=None):
    """A sample of p_theta(x_{t-1} | x_t): mean + sigma z, z ~ N(0, I) (Ho, algorithm 2).

    t: one int. The last step, t = 1, returns the mean, which is the predicted x_0 (c_x0 = 1,
    c_xt = 0). It adds no noise, as no later step would remove it. beta_tilde_1 is 0 anyway; with
    the other variances, only the bound uses sigma_1 (see bound_term).
    """
    mean, sigma2 = p_mean_variance(schedule, eps_theta, x_t, t, cond, variance, clip)
    if t == 1:
        return mean
    return mean + tn.sqrt(sigma2) * rng.standard_normal(mean.shape, dtype=mean.dtype)


def ancestral_sampling(schedule, eps_theta, x_T, cond, rng, variance="beta-tilde", clip=None):
    """Eq. 14: from x_T through the learned transitions down to x_0; yields x_T, x_{T-1}, .., x_0.

    If x_T is a Tensor and a tape is open, all x_t are Tensors: x_0 can be differentiated with
    respect to x_T.
    """
    x = x_T
    yield x
    for t in range(schedule.T, 0, -1):
        x = p_sample(schedule, eps_theta, x, t, cond, rng, variance, clip)
        yield x


# ---- variational bound ---------------------------------------------------------------------------

def gaussian_kl(mean, variance, other_mean, other_variance):
    """KL(q || p) = E_q[log q - log p] of Gaussians q and (other) p, elementwise, in nats."""
    ratio = variance / other_variance
    return 0.5 * (ratio - 1 - np.log(ratio) + (mean - other_mean) ** 2 / other_variance)


def bound_term(schedule, eps_theta, x0, x_t, t, cond, variance="beta"):
    """Eq. 9: the term of variational_bound for t (Ho eq. 5), in nats (B, H, D).

    It is the cross-entropy -E_q[log p_theta(x_{t-1} | x_t)] minus the entropy of the posterior:

        t = 2..T:  L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p_theta(x_{t-1} | x_t))
        t = 1:     L_0 = -log p_theta(x_0 | x_1). The posterior is x_0 itself: no entropy is
                   subtracted. L_0 is undefined for "beta-tilde", which is 0 at t = 1

    Where the terms come from: the bound is E_q[log q(x_{1:T} | x_0) - log p_theta(x_{0:T})]. For
    t > 1, Bayes' rule (see q_posterior) gives

        q(x_t | x_{t-1}) = q(x_{t-1} | x_t, x_0) q(x_t | x_0) / q(x_{t-1} | x_0)

    In the product over t, which begins with q(x_1 | x_0), the last two factors telescope to
    q(x_T | x_0). With p(x_T) it gives L_T = KL(q(x_T | x_0) || p(x_T)). The rest are the terms
    above (Ho, appendix A).
    """
    mean, sigma2 = p_mean_variance(schedule, eps_theta, x_t, t, cond, variance)
    return _bound_term(schedule, mean, sigma2, x0, x_t, t)


def _bound_term(schedule, mean, sigma2, x0, x_t, t):
    """bound_term for the mean and variance of p_theta."""
    q_mean, q_variance = q_posterior(schedule, x0, x_t, t)
    error = mean - q_mean
    cross_entropy = 0.5 * (tn.log(2 * np.pi * sigma2) + (error * error + q_variance) / sigma2)
    return cross_entropy - gather(schedule.posterior_entropy, t, x_t)


def variational_bound(schedule, eps_theta, x0, cond, rng, variance="beta"):
    """Eq. 10: terms [L_0, .., L_{T-1}, L_T] (T+1,) whose sum bounds -log p_theta(x_0) from above.

    By Jensen's inequality: -log p_theta(x_0) = -log E_q[p_theta(x_{0:T}) / q(x_{1:T} | x_0)]
    <= E_q[log q(x_{1:T} | x_0) - log p_theta(x_{0:T})], which bound_term splits by t.

    In nats per number of x_0. A term is a mean over the batch, with one sample of x_t per x_0.

    Eq. 8: in expectation over x_0 the sum is KL(q(x_{0:T}) || p_theta(x_{0:T})) plus the entropy of
    q(x_0). No model changes the entropy, so a smaller bound means a smaller divergence. And as no
    divergence is negative, the bound is never below the entropy.
    """
    terms = []
    for t in range(1, schedule.T + 1):
        x_t = q_sample(schedule, x0, t, rng.standard_normal(x0.shape, dtype=x0.dtype))
        terms.append(bound_term(schedule, eps_theta, x0, x_t, t, cond, variance).mean())
    mean, variance_T = q_mean_variance(schedule, x0, schedule.T)
    return np.array([*terms, gaussian_kl(mean, variance_T, 0, 1).mean()], np.float64)


def l_vlb(schedule, eps_theta, x0, t, eps, cond, weight=None, variance="learned"):
    """Eq. 10 as an objective: T E_t[L_{t-1}] for t as in eq. 12, which is L_0 + .. + L_{T-1}.

    L_T does not depend on theta. With a fixed variance the gradient is T times that of L_simple
    with lambda = `bound_weight`. `weight` is here only because all losses have the same arguments.
    Returns one number.
    """
    x_t = q_sample(schedule, x0, t, eps)
    terms = bound_term(schedule, eps_theta, x0, x_t, t, cond, variance)
    return tn.sum(terms) * (schedule.T / terms.size)


def l_hybrid(schedule, eps_theta, x0, t, eps, cond, weight, share=1e-3):
    """L_simple + share L_vlb (Nichol & Dhariwal 2021, eq. 16). Returns one number.

    The first term alone trains the mean, as the second holds eps_hat constant. The second trains
    the variance.
    """
    x_t = q_sample(schedule, x0, t, eps)
    eps_hat, v = eps_theta.with_variance(x_t, t, cond)
    sigma2 = learned_variance(schedule, v, x_t, t)
    mean = mean_from_eps(schedule, constant(eps_hat), x_t, t)
    terms = _bound_term(schedule, mean, sigma2, x0, x_t, t)
    vlb = tn.sum(terms) * (share * schedule.T / terms.size)
    return mse(eps_hat, eps, gather(weight, t, x0)) + vlb


LOSSES = {"simple": l_simple, "hybrid": l_hybrid, "bound": l_vlb}
