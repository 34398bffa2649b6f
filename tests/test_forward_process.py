"""The forward process (eq. 1-5): single steps compose to the closed form, for every schedule, in float64."""
import numpy as np
import pytest
from hypothesis import given, strategies as st
from laws import Impulses, log_normal, named_schedules, numbers, one, schedule_and_t, schedules

from minidiff.diffusion import (SCHEDULES, Schedule, cosine_schedule, eps_from_x0, linear_schedule, q_chain,
                                q_mean_variance, q_posterior, q_sample, q_step, x0_from_eps)
from minidiff.tensor import Tape, Tensor, sum as tensor_sum


@given(schedules)
def test_tables_hold_the_products_of_one_minus_beta(schedule):  # eq. 3
    product = 1.0
    assert schedule.alpha_bar[0] == 1 and len(schedule.alpha_bar) == schedule.T + 1
    for t in range(1, schedule.T + 1):
        assert schedule.alpha[t] == 1 - schedule.beta[t]
        product *= 1 - schedule.beta[t]
        assert schedule.alpha_bar[t] == pytest.approx(product, rel=1e-13)
        assert schedule.snr[t] == pytest.approx(product / (1 - product), rel=1e-10)


@given(schedules, numbers)
def test_forward_steps_compose_to_the_closed_form(schedule, x0):  # eq. 1 and 2 against eq. 4
    batch = one(np.full(schedule.T + 2, x0))
    rng = Impulses()  # sample n+2 feels only the n-th draw, samples 0 and 1 none
    for t, x in enumerate(q_chain(schedule, batch, rng), start=1):
        mean, variance = q_mean_variance(schedule, one(x0), t)
        assert x[0] == pytest.approx(mean[0], rel=1e-12, abs=1e-14)
        assert ((x - x[0]) ** 2).sum() == pytest.approx(float(variance), rel=1e-11)
        assert rng.draws == t
    assert t == schedule.T


@given(schedules, st.integers(0, 2**32))
def test_the_chain_factorises_forwards_and_backwards(schedule, seed):
    """Eq. 2 both ways round, on any trajectory: prod q(x_t | x_{t-1}) = q(x_T | x_0) prod_{t>1} q(x_{t-1} | x_t, x_0)."""
    rng, T = np.random.default_rng(seed), schedule.T
    x = [one(rng.standard_normal())]
    x += [*q_chain(schedule, x[0], rng)]
    forwards = [log_normal(x[t], q_step(schedule, x[t - 1], t, one(0)), schedule.beta[t]) for t in range(1, T + 1)]
    backwards = [log_normal(x[T], *q_mean_variance(schedule, x[0], T))]
    backwards += [log_normal(x[t - 1], *q_posterior(schedule, x[0], x[t], t)) for t in range(2, T + 1)]
    scale = np.abs(forwards).sum() + np.abs(backwards).sum()
    assert sum(forwards) == pytest.approx(sum(backwards), abs=1e-9 * scale)


@given(schedule_and_t(), numbers, numbers)
def test_one_forward_step_scales_by_sqrt_alpha_and_adds_sqrt_beta(s_t, x, eps):  # eq. 1
    schedule, t = s_t
    beta = schedule.beta[t]
    assert q_step(schedule, one(x), t, one(eps)) == pytest.approx(np.sqrt(1 - beta) * x + np.sqrt(beta) * eps, abs=1e-14)


@given(schedule_and_t(), numbers, numbers)
def test_the_reparameterised_sample_has_the_moments_of_the_closed_form(s_t, x0, eps):  # eq. 5 against eq. 4
    schedule, t = s_t
    mean, variance = q_mean_variance(schedule, one(x0), t)
    assert mean == pytest.approx(np.sqrt(schedule.alpha_bar[t]) * x0, abs=1e-14)
    assert float(variance) == pytest.approx(1 - schedule.alpha_bar[t], rel=1e-14)
    assert q_sample(schedule, one(x0), t, one(eps)) == pytest.approx(mean + np.sqrt(variance) * eps, abs=1e-14)


@given(schedule_and_t())
def test_the_reparameterised_sample_is_differentiable_in_x0(s_t):  # eq. 5
    schedule, t = s_t
    x0 = Tensor(np.ones((3, 2, 2)), needs_grad=True)
    with Tape() as tape:
        total = tensor_sum(q_sample(schedule, x0, np.full(3, t), np.ones((3, 2, 2))))
    tape.backward(total)
    assert x0.grad == pytest.approx(np.sqrt(schedule.alpha_bar[t]), rel=1e-14)


@given(schedule_and_t(), numbers, numbers)
def test_x0_and_eps_are_recovered_from_x_t(s_t, x0, eps):  # eq. 5 solved
    schedule, t = s_t
    x_t = q_sample(schedule, one(x0), t, one(eps))
    signal, noise = np.sqrt(schedule.alpha_bar[t]), np.sqrt(1 - schedule.alpha_bar[t])
    assert x0_from_eps(schedule, x_t, t, one(eps)) == pytest.approx(x0, abs=1e-14 / signal)
    assert eps_from_x0(schedule, x_t, t, one(x0)) == pytest.approx(eps, abs=1e-14 / noise)


@given(schedules, st.data())
def test_a_batch_may_mix_timesteps(schedule, data):
    t = np.array(data.draw(st.lists(st.integers(1, schedule.T), min_size=1, max_size=5)))
    x0, eps = np.random.default_rng(0).standard_normal((2, len(t), 4, 2))
    together = q_sample(schedule, x0, t, eps)
    for i in range(len(t)):
        assert np.array_equal(together[i], q_sample(schedule, x0[i:i + 1], int(t[i]), eps[i:i + 1])[0])


@given(named_schedules, st.data())
def test_float32_stays_float32(schedule, data):
    t = np.array([data.draw(st.integers(1, schedule.T))])
    x = np.ones((1, 2, 2), np.float32)
    for result in (q_step(schedule, x, t, x), q_sample(schedule, x, t, x), *q_mean_variance(schedule, x, t),
                   x0_from_eps(schedule, x, t, x), eps_from_x0(schedule, x, t, x)):
        assert result.dtype == np.float32


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("T", [20, 50, 100, 1000])
def test_every_schedule_reaches_the_prior(name, T):
    """KL(q(x_T | x_0) || N(0, I)) at |x_0| = 1, in nats: published chains at T = 1000 have 2e-5 (linear)."""
    ab = SCHEDULES[name](T).alpha_bar[-1]
    assert 0.5 * (ab + (1 - ab) - 1 - np.log(1 - ab)) < 1e-4


def test_the_linear_schedule_at_1000_steps_is_that_of_ho_et_al():
    schedule = linear_schedule(1000)
    assert (schedule.beta[1], schedule.beta[1000]) == pytest.approx((1e-4, 0.02), rel=1e-14)
    assert schedule.alpha_bar[1000] == pytest.approx(4.0358e-5, rel=1e-4)
    assert np.diff(schedule.beta[1:]) == pytest.approx(0.0199 / 999, rel=1e-8)


@pytest.mark.parametrize("T", [10, 100, 1000])
def test_the_cosine_schedule_is_that_of_nichol_and_dhariwal(T):
    f = lambda t: np.cos((t / T + 0.008) / 1.008 * np.pi / 2) ** 2
    schedule, t = cosine_schedule(T), np.arange(T)  # the last beta is capped
    assert schedule.alpha_bar[:-1] == pytest.approx(f(t) / f(0), rel=1e-9)
    assert schedule.beta[T] == 0.999


@pytest.mark.parametrize("beta", [[], [0.0, 0.1], [0.1, 1.0], [-0.1], [np.nan], [[0.1]]])
def test_a_beta_outside_0_to_1_is_refused(beta):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        Schedule(beta)
