"""Training: a step is Ho's algorithm 1 on rows that belong together, and can stop and go on."""
from minidiff import demos, policy, training, wall
from minidiff.diffusion import l_hybrid, l_simple, l_vlb, loss_weight, q_sample, sample_t
from minidiff.optim import flat_gradient, learning_rate
from minidiff.pusht.features import PUSHT
from minidiff.tensor import Tape
from minidiff.training import STATE, Config, Diverged, Trainer

import functools
import hashlib
import itertools
from types import SimpleNamespace

import laws
import numpy as np
import pytest

DATA = demos.check(wall.demonstrations(5), wall.TASK)  # 80 windows
TINY = {"width": 8, "blocks": 1, "T": 6, "pred_horizon": 4, "batch": 32, "steps": 10, "warmup": 3}


def make(loss=l_simple, data=DATA, **options):
    return Trainer(Config(**TINY | options), wall.TASK, data, loss)


def finish(trainer):
    """-> the losses of all the steps that were left."""
    return list(trainer)


class Spy:
    """A loss that notes what it is called with, and is L_simple."""

    def __init__(self):
        self.calls = []

    def __call__(self, schedule, eps_theta, x0, t, eps, cond, weight):
        self.calls.append((x0, t, eps, cond, weight))
        return l_simple(schedule, eps_theta, x0, t, eps, cond, weight)


# ---- what a step hands to the loss ---------------------------------------------------------------

def numbered(spy, **options):
    """A Trainer whose rows of x0 and of cond are all filled with 1 + their own number."""
    trainer = make(spy, **options)
    number = 1 + np.arange(len(trainer.x0), dtype=np.float32)
    trainer.x0[:] = number[:, None, None]
    trainer.cond[:] = number[:, None]
    return trainer


def test_rows_of_x0_and_cond_that_the_loss_gets_belong_together():
    spy = Spy()
    trainer = numbered(spy)
    finish(trainer)
    assert len(spy.calls) == 10
    for x0, _, _, cond, _ in spy.calls:
        assert x0.shape == (32, 4, 2) and cond.shape == (32, 2)
        assert x0.dtype == cond.dtype == np.float32
        assert (x0 == x0[:, :1, :1]).all()
        assert (cond == x0[:, 0, :1]).all()


def test_every_row_is_sampled_as_often_as_any_other():
    """16,000 rows of 80: each about 200 times."""
    spy = Spy()
    trainer = numbered(spy, batch=1600)
    finish(trainer)
    rows = np.concatenate([x0[:, 0, 0] for x0, *_ in spy.calls]).astype(int)
    counts = np.bincount(rows, minlength=81)
    assert counts[0] == 0 and len(counts) == 81
    laws.assert_close(counts[1:], 200, np.sqrt(200))


def test_each_step_has_its_own_rows_timesteps_and_noise():
    spy = Spy()
    trainer = make(spy)
    finish(trainer)
    for x0, t, eps, _, weight in spy.calls:
        assert t.shape == (32,) and t.min() >= 1 and t.max() <= 6
        assert eps.shape == x0.shape and eps.dtype == np.float32
        assert weight is trainer.weight
        assert len(np.unique(t)) > 1
        assert len(np.unique(eps, axis=0)) == 32  # each sample has its own
    assert set(np.concatenate([t for _, t, *_ in spy.calls])) == set(range(1, 7))
    for first, second in zip(spy.calls, spy.calls[1:]):
        for before, after in zip(first[:4], second[:4]):
            assert (before != after).any()
    noise = np.concatenate([eps.ravel() for _, _, eps, *_ in spy.calls])
    laws.assert_close(noise.mean(), 0, 1 / np.sqrt(noise.size))
    laws.assert_close(noise.var(), 1, np.sqrt(2 / noise.size))


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_share_of_the_windows_is_shown_no_observation(share):
    """--drop-cond; all else stays."""
    spy = Spy()
    finish(numbered(spy, drop_cond=share, batch=1600))
    dropped = 0
    for x0, _, _, cond, _ in spy.calls:
        shown = cond[:, 0] != 0
        assert cond.dtype == np.float32
        assert (cond[~shown] == 0).all()
        assert (cond[shown] == x0[shown, 0, :1]).all() and (x0 > 0).all()
        dropped += (~shown).sum()
    laws.assert_close(dropped, 16_000 * share, np.sqrt(16_000 * share * (1 - share)) + 1e-9)


def test_the_weight_is_that_of_the_config():
    for name in ("uniform", "min-snr"):
        trainer = make(weight=name)
        assert np.array_equal(trainer.weight, loss_weight(trainer.schedule, name))


# ---- what a step does ----------------------------------------------------------------------------

def test_a_step_is_adamw_along_the_gradient_of_the_loss():
    """Rows, then timesteps, then noise: the order of the random numbers decides the weights."""
    trainer = make()
    by_hand = make()
    schedule = by_hand.schedule
    for n in range(5):
        loss = trainer.step()
        rows = by_hand.rows[by_hand.rng.integers(0, len(by_hand.rows), 32)]
        t = sample_t(schedule, 32, by_hand.rng)
        eps = by_hand.rng.standard_normal((32, 4, 2), dtype=np.float32)
        with Tape() as tape:
            value = l_simple(schedule, by_hand.eps_theta, by_hand.x0[rows], t, eps,
                             by_hand.cond[rows], by_hand.weight)
        tape.backward(value)
        rate = learning_rate(n, 10, 5e-3, warmup=3)
        by_hand.optimiser.step(flat_gradient(by_hand.net.params), rate)
        assert loss == float(value.data) and trainer.n == n + 1
        assert np.array_equal(trainer.net.theta, by_hand.net.theta)
        assert np.array_equal(trainer.optimiser.ema, by_hand.optimiser.ema)
    assert (trainer.net.theta != make().net.theta).any()


def test_iterating_takes_the_steps_that_are_left():
    trainer = make()
    first = trainer.step()
    losses = [first, *trainer]
    assert len(losses) == trainer.n == 10
    assert np.array_equal(trainer.losses, np.float32(losses))
    assert finish(trainer) == []


def test_the_config_reaches_network_schedule_and_optimiser():
    trainer = make(weight_decay=0.02, ema=0.7, schedule="linear", net="conv", width=16, outputs=2,
                   precondition=False, clip=0.5)
    assert trainer.optimiser.weight_decay == 0.02 and trainer.optimiser.ema_decay == 0.7
    assert np.array_equal(trainer.schedule.beta, training.SCHEDULES["linear"](6).beta)
    assert type(trainer.net) is training.NETWORKS["conv"] and trainer.net.width == 16
    assert trainer.eps_theta.learned and not trainer.eps_theta.precondition
    assert make().eps_theta.precondition
    assert np.abs(trainer.x0).max() == 0.5
    assert trainer.x0.shape == (80, 4, 2) and trainer.cond.shape == (80, 2)


def test_a_number_at_either_end_counts_as_clipped():
    trainer = make(clip=0.1)
    trainer.x0[:] = 0.09
    trainer.x0[:10], trainer.x0[10:20] = 0.1, -0.1
    assert trainer.clipped() == 0.25


def test_the_horizons_are_those_of_the_config():
    def all_that_is_seen(obs, frame):
        return obs.reshape(len(obs), -1)

    task = wall.TASK._replace(features=all_that_is_seen)
    config = Config(**TINY | {"obs_horizon": 3, "pred_horizon": 5})
    trainer = Trainer(config, task, DATA)
    assert trainer.cond.shape == (80, 6) and trainer.x0.shape == (80, 5, 2)


def test_the_number_of_blocks_is_that_of_the_config():
    sizes = [make(blocks=blocks).net.theta.size for blocks in (1, 2, 4)]
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0]) > 0


def test_a_seed_decides_the_weights_and_all_that_is_random():
    first = make(seed=3)
    again = make(seed=3)
    other = make(seed=4)
    assert np.array_equal(first.net.theta, again.net.theta)
    assert (first.net.theta != other.net.theta).any()
    assert finish(first) == finish(again) != finish(other)


def test_training_lowers_the_loss():
    losses = finish(make(steps=300, batch=64, width=32))
    assert np.mean(losses[-50:]) < 0.5 * np.mean(losses[:20])


def test_a_loss_that_is_no_longer_finite_stops_the_training():
    trainer = make(steps=50, lr=1e30)
    with np.errstate(over="ignore", invalid="ignore"):
        with pytest.raises(Diverged, match=r"diverged at step \d+: the loss is no longer finite"):
            finish(trainer)
    assert not np.isfinite(trainer.losses[trainer.n - 1])


# ---- the loss by t -------------------------------------------------------------------------------

def test_the_loss_by_t_is_l_simple_on_a_sample_that_stays():
    """Before the first update; over all quarters its mean is the loss itself."""
    trainer = make(T=8)
    schedule = trainer.schedule
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 80, 256)
    t = np.repeat(np.arange(1, 9), 32)
    eps = rng.standard_normal((256, 4, 2), dtype=np.float32)
    x0 = trainer.x0[rows]
    cond = trainer.cond[rows]
    trainer.record_loss_by_t()
    for quarter in range(4):
        part = slice(64 * quarter, 64 * quarter + 64)
        loss = l_simple(schedule, trainer.eps_theta, x0[part], t[part], eps[part], cond[part],
                        trainer.weight)
        assert trainer.loss_by_t[0, quarter] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("steps, points", [(10, 10), (100, 100), (250, 100)])
def test_the_loss_by_t_is_recorded_at_up_to_100_steps(steps, points, monkeypatch):
    recorded = []
    monkeypatch.setattr(training, "q_sample", lambda *each: recorded.append(1) or q_sample(*each))
    trainer = make(steps=steps, batch=4)
    finish(trainer)
    assert trainer.loss_by_t.shape == (points, 4) and trainer.loss_by_t.dtype == np.float32
    assert np.isfinite(trainer.loss_by_t).all() and len(recorded) == points
    changes = np.abs(np.diff(trainer.loss_by_t, axis=0)).max(1)
    assert (changes > 0).all()  # each point has weights of its own


def test_the_loss_by_t_is_that_of_one_sample_all_along():
    """Where the weights hardly move, neither does it; another seed has another sample."""
    curves = []
    for seed in (1, 2):
        trainer = make(steps=3, lr=1e-9, seed=seed)
        finish(trainer)
        curves.append(trainer.loss_by_t)
        np.testing.assert_allclose(trainer.loss_by_t, trainer.loss_by_t[:1].repeat(3, 0), rtol=1e-4)
    assert np.abs(curves[0] - curves[1]).max() > 1e-5


def test_recording_the_loss_by_t_changes_no_weight(monkeypatch):
    trainer = make()
    finish(trainer)
    silent = make()
    monkeypatch.setattr(silent, "record_loss_by_t", lambda: None)
    finish(silent)
    assert np.array_equal(trainer.net.theta, silent.net.theta)


def test_the_loss_by_t_is_that_of_losses_that_weigh_the_eps_error():
    hybrid = make(l_hybrid, outputs=2)
    bound = make(functools.partial(l_vlb, variance="beta"))
    for trainer in (hybrid, bound):
        finish(trainer)
    assert np.isfinite(hybrid.loss_by_t).all()
    assert np.isnan(bound.loss_by_t).all()


# ---- stop and go on ------------------------------------------------------------------------------

def state(trainer):
    """All that decides how training goes on, and all that it has recorded."""
    numbers = {"n": trainer.n, "updates": trainer.optimiser.n,
               "rng": trainer.rng.bit_generator.state}
    arrays = trainer.state() | {"losses": trainer.losses}
    return numbers, {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("done", [0, 4, 10])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(done, tmp_path):
    whole = make(drop_cond=0.1)
    finish(whole)
    stopped = make(drop_cond=0.1)
    for loss in itertools.islice(stopped, done):
        assert np.isfinite(loss)
    policy.save(tmp_path / "checkpoint.npz", stopped, resumable=True)
    resumed = make(drop_cond=0.1)
    resumed.restore(*policy.read(tmp_path / "checkpoint.npz", STATE))
    assert resumed.n == done and state(resumed) == state(stopped)
    assert len(finish(resumed)) == 10 - done
    assert state(resumed) == state(whole)


def of_a_run(folder):
    """What the file of a run that was stopped after 3 steps holds."""
    stopped = make()
    for _ in range(3):
        stopped.step()
    policy.save(folder / "checkpoint.npz", stopped, resumable=True)
    return policy.read(folder / "checkpoint.npz", STATE)


def refused(arrays, meta, said):
    """restore says this, and leaves the Trainer as it was."""
    trainer = make()
    before = state(trainer)
    with pytest.raises(ValueError) as error:
        trainer.restore(arrays, meta)
    assert said in str(error.value)
    assert state(trainer) == before and 0 <= trainer.cpu_seconds() < 1


def test_a_run_knows_its_demonstrations_by_the_sum_of_their_bytes():
    """Whatever wrote its file."""
    content = DATA.state.tobytes() + DATA.action.tobytes() + DATA.episode_ends.tobytes()
    assert make().demos_sha256 == hashlib.sha256(content).hexdigest()


def test_a_run_does_not_go_on_with_other_demonstrations(tmp_path):
    trainer = make()
    policy.save(tmp_path / "checkpoint.npz", trainer, resumable=True)
    other = make(data=DATA._replace(action=DATA.action + 1e-3))
    with pytest.raises(ValueError, match="not the demonstrations that the run was started with"):
        other.restore(*policy.read(tmp_path / "checkpoint.npz", STATE))


def test_numbers_that_no_file_may_hold_are_refused_before_the_work():
    far = DATA._replace(state=DATA.state.astype(np.float64) + 1e10)
    with pytest.raises(ValueError, match=r"array 'mean' is not made of finite numbers within"):
        make(data=far)


def not_finite(array):
    array.flat[1] = np.inf
    return array


@pytest.mark.parametrize("name", ["theta", "ema", "m", "v", "losses"])
@pytest.mark.parametrize("change, said", [
    (lambda array: array[:-1], "is float32 "),
    (lambda array: array[:1], "is float32 "),
    (np.float64, "is float64 "),
    (not_finite, "is not made of finite numbers"),
    (lambda array: array + np.float32(3e9), "is not made of finite numbers within +-1e+09")],
    ids=["short", "one number", "float64", "inf", "huge"])
def test_a_run_with_an_array_that_does_not_fit_is_refused_by_name(name, change, said, tmp_path):
    arrays, meta = of_a_run(tmp_path)
    arrays[name] = change(arrays[name].copy())
    refused(arrays, meta, f"array '{name}' {said}")


@pytest.mark.parametrize("change, said", [
    ({"update": 2.5}, "a run of 10 steps cannot have done 2.5"),
    ({"update": 3.0}, "cannot have done 3.0"),
    ({"update": "3"}, "cannot have done 3"),
    ({"update": None}, "cannot have done None"),
    ({"update": -1}, "cannot have done -1"),
    ({"update": 11}, "cannot have done 11"),
    ({"rng": None}, "random generator is damaged"),
    ({"rng": {}}, "random generator is damaged"),
    ({"rng": "PCG64"}, "random generator is damaged"),
    ({"rng": {"bit_generator": "PCG64"}}, "random generator is damaged"),
    ({"rng": {"bit_generator": "MT19937"}}, "random generator is damaged"),
    ({"cpu_seconds": "5"}, "'cpu_seconds' cannot be 5"),
    ({"cpu_seconds": float("inf")}, "'cpu_seconds' cannot be inf"),
    ({"cpu_seconds": -1.0}, "'cpu_seconds' cannot be -1.0"),
    ({"demos_sha256": 5}, "not the demonstrations"),
], ids=str)
def test_a_run_whose_meta_is_damaged_is_refused_in_words(change, said, tmp_path):
    arrays, meta = of_a_run(tmp_path)
    refused(arrays, meta | change, said)


def test_mean_squares_below_0_and_curves_of_another_shape_are_refused(tmp_path):
    arrays, meta = of_a_run(tmp_path)
    refused(arrays | {"v": -1 - arrays["v"]}, meta, "array 'v' holds mean squares, but some are")
    refused(arrays | {"loss_by_t": np.zeros((2, 2), np.float32)}, meta, "array 'loss_by_t' is")


def test_cpu_seconds_add_up_over_sessions(tmp_path, monkeypatch):
    """Those that the process took before do not count."""
    clock = SimpleNamespace(now=50, process_time=lambda: clock.now)
    monkeypatch.setattr(training, "time", clock)
    first = make()
    clock.now = 57
    policy.save(tmp_path / "checkpoint.npz", first, resumable=True)
    second = make()
    clock.now = 60
    second.restore(*policy.read(tmp_path / "checkpoint.npz", STATE))
    assert second.cpu_seconds() == 7 + 3


# ---- the configuration ---------------------------------------------------------------------------

@pytest.mark.parametrize("options, said", [
    ({"net": "unet"}, "--net must be one of mlp, conv, not 'unet'"),
    ({"schedule": "sqrt"}, "--schedule must be one of cosine, linear, not 'sqrt'"),
    ({"weight": "snr"}, "--weight must be one of uniform, inverse-alpha-bar, min-snr, bound, not"),
    ({"outputs": 0}, "--outputs must be at least 1, not 0"),
    ({"width": -1}, "--width must be at least 0, not -1"),
    ({"net": "conv", "width": 12}, "--width must be a multiple of 8 for --net conv, not 12"),
    ({"blocks": 0}, "--blocks must be at least 1, not 0"),
    ({"obs_horizon": 0}, "--obs-horizon must be at least 1, not 0"),
    ({"pred_horizon": 0}, "--pred-horizon must be at least 1, not 0"),
    ({"clip": 0.0}, "--clip must be at least 0.001, not 0.0"),
    ({"T": 0}, "--T must be at least 1, not 0"),
    ({"drop_cond": -0.1}, "--drop-cond must be at least 0, not -0.1"),
    ({"drop_cond": 1.0}, "--drop-cond must be below 1, not 1.0"),
    ({"steps": 0}, "--steps must be at least 1, not 0"),
    ({"batch": 0}, "--batch must be at least 1, not 0"),
    ({"lr": 0.0}, "--lr must be at least 1e-09, not 0.0"),
    ({"lr": float("nan")}, "--lr must be at least 1e-09, not nan"),
    ({"warmup": -1}, "--warmup must be at least 0, not -1"),
    ({"weight_decay": -1e-4}, "--weight-decay must be at least 0, not -0.0001"),
    ({"ema": 1.0}, "--ema must be below 1, not 1.0"),
    ({"seed": -1}, "--seed must be at least 0, not -1"),
    ({"outputs": 1001}, "--outputs must be at most 1000, not 1001"),
    ({"width": 8193}, "--width must be at most 8192, not 8193"),
    ({"T": 100_001}, "--T must be at most 100000, not 100001"),
    ({"batch": 10**7}, "--batch must be at most 1000000, not 10000000"),
    ({"lr": float("inf")}, "--lr must be at most 1e+39, not inf"),
    ({"steps": 2.5}, "--steps must be of the type int, not 2.5"),
    ({"T": "100"}, "--T must be of the type int, not '100'"),
    ({"blocks": True}, "--blocks must be of the type int, not True"),
    ({"lr": "0.1"}, "--lr must be of the type float, not '0.1'"),
    ({"lr": True}, "--lr must be of the type float, not True"),
    ({"precondition": 1}, "--precondition must be of the type bool, not 1"),
    ({"objective": None}, "--objective must be of the type str, not None"),
], ids=str)
def test_a_value_that_makes_no_sense_is_refused_by_name(options, said):
    with pytest.raises(ValueError) as error:
        Config(**options)
    assert str(error.value).startswith(said)


def test_values_at_their_limits_are_accepted():
    least = Config(width=0, obs_horizon=1, pred_horizon=1, T=1, steps=1, batch=1, drop_cond=0,
                   warmup=0, weight_decay=0, ema=0, seed=0, lr=1e-9, clip=1e-3)
    assert least.width == 128 and least.drop_cond == least.ema == 0
    assert Config(width=8192, T=100_000, outputs=1000, weight_decay=1).weight_decay == 1


def test_the_width_by_default_is_that_of_the_network():
    assert Config().width == 128 and Config(net="conv").width == 64
    assert Config(width=24).width == 24 and Config(net="conv", width=16).width == 16


# ---- what is learned of the demonstrations -------------------------------------------------------

def test_a_task_that_can_relabels_the_demonstrations(arrays):
    """With relabel, and where the task has a way; the file's fingerprint stays."""
    data = demos.check(arrays, PUSHT)
    small = {"width": 8, "blocks": 1, "steps": 1}
    as_they_are = Trainer(Config(relabel=False, **small), PUSHT, data)
    relabelled = Trainer(Config(**small), PUSHT, data)
    by_hand = Trainer(Config(relabel=False, **small), PUSHT, PUSHT.relabel(data))
    without = Trainer(Config(**small), PUSHT._replace(relabel=None), data)
    assert np.array_equal(relabelled.cond, by_hand.cond)
    assert not np.array_equal(relabelled.cond, as_they_are.cond)
    assert np.array_equal(without.cond, as_they_are.cond)
    assert relabelled.demos_sha256 == as_they_are.demos_sha256


def test_the_ends_of_demonstrations_are_drawn_more_often(arrays):
    data = demos.check(arrays, PUSHT)
    trainer = Trainer(Config(width=8, blocks=1, steps=1, finish=3), PUSHT, data)
    assert np.array_equal(trainer.rows, demos.drawn(data.episode_ends, 25, 3))
    trainer.rows = np.array([7, 7, 7])
    x0, cond = trainer.batch()
    assert (x0 == trainer.x0[7]).all() and (cond == trainer.cond[7]).all()
