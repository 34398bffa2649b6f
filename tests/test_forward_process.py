"""The forward process (eq. 1-5): single steps compose to the closed form, for every schedule."""
from minidiff import diffusion
from minidiff.diffusion import (
    SCHEDULES,
    WEIGHTS,
    Schedule,
    bound_weight,
    cosine_schedule,
    linear_schedule,
    loss_weight,
    prior,
    q_chain,
    q_mean_variance,
    q_sample,
    q_step,
)
from minidiff.tensor import Tape, Tensor
from minidiff.tensor import sum as tensor_sum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import Impulses, log_normal, named_schedules, numbers, one, schedule_and_t, schedules


@given(schedules)
def test_tables_hold_the_products_of_one_minus_beta(schedule):  # eq. 3
    product = 1.0
    assert schedule.alpha_bar[0] == 1 and len(schedule.alpha_bar) == schedule.T + 1
    for t in range(1, schedule.T + 1):
        assert schedule.alpha[t] == 1 - schedule.beta[t]
        product *= 1 - schedule.beta[t]
        assert schedule.alpha_bar[t] == pytest.approx(product, rel=1e-13)
        assert schedule.snr[t] == pytest.approx(product / (1 - product), rel=1e-10)


@given(schedules)
def test_entry_0_of_every_table_is_the_data_without_noise(schedule):
    first = {"beta": 0, "alpha": 1, "alpha_bar": 1, "signal": 1, "noise": 0, "snr": np.inf,
             "beta_tilde": 0, "c_x0": 1, "c_xt": 0, "log_beta": -np.inf, "posterior_entropy": 0}
    for name, value in first.items():
        table = getattr(schedule, name)
        assert table.shape == (schedule.T + 1,) and table[0] == value, name
    assert bound_weight(schedule)[0] == 0
    assert [loss_weight(schedule, name)[0] for name in WEIGHTS] == [0] * len(WEIGHTS)


def test_schedules_are_float64_and_noise_as_precise_as_the_data():
    assert Schedule(np.float32([0.1, 0.2])).alpha_bar.dtype == np.float64
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        chain = list(q_chain(cosine_schedule(3), np.ones((2, 1, 1), dtype), rng))
        assert [x.dtype for x in chain] == [dtype] * 3
        assert prior((2, 1, 1), rng, dtype).dtype == dtype
    assert prior((2, 1, 1), rng).dtype == np.float32


@given(schedules, numbers)
def test_forward_steps_compose_to_the_closed_form(schedule, x0):  # eq. 1 and 2 against eq. 4
    batch = one(np.full(schedule.T + 2, x0))
    rng = Impulses()  # sample n+2 feels only the n-th noise, samples 0 and 1 none
    for t, x in enumerate(q_chain(schedule, batch, rng), start=1):
        mean, variance = q_mean_variance(schedule, one(x0), t)
        assert x[0] == pytest.approx(mean[0], rel=1e-12, abs=1e-14)
        assert ((x - x[0]) ** 2).sum() == pytest.approx(float(variance), rel=1e-11)
        assert rng.calls == t
    assert t == schedule.T


@given(schedules, st.integers(0, 2**32))
def test_the_chain_factorises_forwards_and_backwards(schedule, seed):
    """Eq. 2 both ways round, on any trajectory.

    prod q(x_t | x_{t-1}) = q(x_T | x_0) prod_{t>1} q(x_{t-1} | x_t, x_0)
    """
    rng = np.random.default_rng(seed)
    T = schedule.T
    x_0 = one(rng.standard_normal())
    x = [x_0, *q_chain(schedule, x_0, rng)]
    forwards = []
    backwards = [log_normal(x[T], *q_mean_variance(schedule, x_0, T))]
    for t in range(1, T + 1):
        mean = q_step(schedule, x[t - 1], t, one(0))
        forwards.append(log_normal(x[t], mean, schedule.beta[t]))
        if t > 1:
            mean, variance = diffusion.q_posterior(schedule, x_0, x[t], t)
            backwards.append(log_normal(x[t - 1], mean, variance))
    scale = np.abs(forwards).sum() + np.abs(backwards).sum()
    assert sum(forwards) == pytest.approx(sum(backwards), abs=1e-9 * scale)


@given(schedule_and_t(), numbers, numbers)
def test_one_forward_step_scales_by_sqrt_alpha_and_adds_sqrt_beta(s_t, x, eps):  # eq. 1
    schedule, t = s_t
    beta = schedule.beta[t]
    expected = np.sqrt(1 - beta) * x + np.sqrt(beta) * eps
    assert q_step(schedule, one(x), t, one(eps)) == pytest.approx(expected, abs=1e-14)


@given(schedule_and_t(), numbers, numbers)
def test_the_reparameterised_sample_has_the_moments_of_the_closed_form(s_t, x0, eps):
    """Eq. 5 against eq. 4."""
    schedule, t = s_t
    mean, variance = q_mean_variance(schedule, one(x0), t)
    assert mean == pytest.approx(np.sqrt(schedule.alpha_bar[t]) * x0, abs=1e-14)
    assert float(variance) == pytest.approx(1 - schedule.alpha_bar[t], rel=1e-14)
    x_t = q_sample(schedule, one(x0), t, one(eps))
    assert x_t == pytest.approx(mean + np.sqrt(variance) * eps, abs=1e-14)


@given(schedule_and_t())
def test_the_reparameterised_sample_is_differentiable_in_x0(s_t):  # eq. 5
    schedule, t = s_t
    x0 = Tensor(np.ones((3, 2, 2)))
    with Tape() as tape:
        total = tensor_sum(q_sample(schedule, x0, np.full(3, t), np.ones((3, 2, 2))))
    tape.backward(total)
    assert x0.grad == pytest.approx(np.sqrt(schedule.alpha_bar[t]), rel=1e-14)


@given(schedule_and_t(), numbers, numbers)
def test_x0_and_eps_are_recovered_from_x_t(s_t, x0, eps):  # eq. 5 solved
    schedule, t = s_t
    x_t = q_sample(schedule, one(x0), t, one(eps))
    signal = np.sqrt(schedule.alpha_bar[t])
    noise = np.sqrt(1 - schedule.alpha_bar[t])
    x0_found = diffusion.x0_from_eps(schedule, x_t, t, one(eps))
    eps_found = diffusion.eps_from_x0(schedule, x_t, t, one(x0))
    assert x0_found == pytest.approx(x0, abs=1e-14 / signal)
    assert eps_found == pytest.approx(eps, abs=1e-14 / noise)


@given(schedules, st.data())
def test_a_batch_may_mix_timesteps(schedule, data):
    t = np.array(data.draw(st.lists(st.integers(1, schedule.T), min_size=1, max_size=5)))
    x0, eps = np.random.default_rng(0).standard_normal((2, len(t), 4, 2))
    together = q_sample(schedule, x0, t, eps)
    for i in range(len(t)):
        alone = q_sample(schedule, x0[i:i + 1], int(t[i]), eps[i:i + 1])
        assert np.array_equal(together[i], alone[0])


@given(named_schedules, st.data())
def test_float32_stays_float32(schedule, data):
    t = np.array([data.draw(st.integers(1, schedule.T))])
    x = np.ones((1, 2, 2), np.float32)
    for function in q_step, q_sample, diffusion.x0_from_eps, diffusion.eps_from_x0:
        assert function(schedule, x, t, x).dtype == np.float32
    for result in q_mean_variance(schedule, x, t):
        assert result.dtype == np.float32


def test_gather_takes_an_entry_of_a_table_for_each_sample_of_a_batch():
    table = np.array([1.0, 0.7, 0.4])
    x = np.zeros((2, 3, 5), np.float32)
    of_each = diffusion.gather(table, np.array([2, 0]), x)
    assert of_each.dtype == np.float32
    np.testing.assert_array_equal(of_each, np.float32([[[0.4]], [[1.0]]]))
    of_all = diffusion.gather(table, 1, x)
    assert of_all.dtype == np.float32 and of_all.shape == () and of_all == np.float32(0.7)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("T", [20, 50, 100, 1000])
def test_every_schedule_reaches_the_prior(name, T):
    """KL(q(x_T | x_0) || N(0, I)) at |x_0| = 1, in nats.

    Published chains at T = 1000 have 2e-5 (linear).
    """
    ab = SCHEDULES[name](T).alpha_bar[-1]
    assert 0.5 * (ab + (1 - ab) - 1 - np.log(1 - ab)) < 1e-4


def test_the_linear_schedule_at_1000_steps_is_that_of_ho_et_al():
    schedule = diffusion.linear_schedule(1000)
    assert (schedule.beta[1], schedule.beta[1000]) == pytest.approx((1e-4, 0.02), rel=1e-14)
    assert schedule.alpha_bar[1000] == pytest.approx(4.0358e-5, rel=1e-4)
    assert np.diff(schedule.beta[1:]) == pytest.approx(0.0199 / 999, rel=1e-8)


@pytest.mark.parametrize("T", [10, 100, 1000])
def test_the_cosine_schedule_is_that_of_nichol_and_dhariwal(T):
    schedule = diffusion.cosine_schedule(T)
    t = np.arange(T)  # the last beta is capped
    f = np.cos((t / T + 0.008) / 1.008 * np.pi / 2) ** 2
    assert schedule.alpha_bar[:-1] == pytest.approx(f / f[0], rel=1e-9)
    assert schedule.beta[T] == 0.999


@pytest.mark.parametrize("beta", [[], [0.0, 0.1], [0.1, 1.0], [-0.1], [np.nan], [[0.1]]])
def test_a_beta_outside_0_to_1_is_refused(beta):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        diffusion.Schedule(beta)


@pytest.mark.parametrize("T", [1, 2, 3, 10, 100, 1000])
def test_the_linear_schedule_ends_in_noise_for_any_length(T):
    assert linear_schedule(T).alpha_bar[-1] == pytest.approx(4e-5, rel=0.05)


def test_the_linear_schedule_of_a_thousand_steps_is_that_of_ho():
    beta = linear_schedule(1000).beta[1:]
    np.testing.assert_allclose(beta, np.linspace(1e-4, 0.02, 1000), rtol=1e-12)


def test_integers_are_noised_as_floats():
    schedule = linear_schedule(10)
    x0 = np.array([[[1], [2]]])
    for t in (3, np.array([3])):
        exact = q_sample(schedule, x0.astype(float), t, np.ones((1, 2, 1)))
        np.testing.assert_array_equal(q_sample(schedule, x0, t, np.ones((1, 2, 1))), exact)
        assert q_mean_variance(schedule, x0, t)[0].dtype == np.float64
