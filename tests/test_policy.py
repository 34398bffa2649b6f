"""The receding-horizon policy: its plan, and the file that it comes from."""
import numpy as np
import pytest
from conftest import CONFIG, mirror
from laws import gaussian_denoiser

from minidiff import checkpoint, policy
from minidiff.demos import Normaliser
from minidiff.diffusion import SCHEDULES
from minidiff.policy import DiffusionPolicy
from minidiff.pusht.features import PUSHT

# ---- the plan -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [{}, {"variance": "beta"}, {"sampler": "ddim", "steps": 3},
                                     {"sampler": "ddim", "steps": 5, "eta": 1.0}, {"start_noise": 0.2},
                                     {"sampler": "langevin"}, {"sampler": "pc"}], ids=str)
@pytest.mark.parametrize("schedule", [make(20) for make in SCHEDULES.values()], ids=list(SCHEDULES))
def test_with_the_ideal_denoiser_of_one_plan_the_policy_makes_exactly_that_plan(schedule, options):
    """eps = (x_t - sqrt(alpha_bar) c) / sqrt(1-alpha_bar): all of x_0 is at c, and so every sampler must end there."""
    rng = np.random.default_rng(0)
    c, scale = rng.uniform(-2, 2, (8, 2)), rng.uniform(5, 50, (8, 1))
    planner = DiffusionPolicy(gaussian_denoiser(schedule, c, 0), schedule, PUSHT,
                              Normaliser(np.zeros(43), np.ones(43), scale), 2, pred_horizon=8, **options)
    obs = rng.uniform(100, 400, (3, 2, 5))
    agent, axes = PUSHT.frame(obs)
    x, y = axes[:, None, :, 0], axes[:, None, :, 1]  # (3, 1, 2)
    expected = agent[:, None] + (c * scale)[:, :1] * x + (c * scale)[:, 1:] * y
    np.testing.assert_allclose(planner.plan(obs, rng), expected, rtol=0, atol=1e-2)


def test_the_ideal_plan_is_cut_off_at_the_clip():
    schedule, c = SCHEDULES["cosine"](20), np.array([[3.0, -0.5]] * 8)
    planner = DiffusionPolicy(gaussian_denoiser(schedule, c, 0), schedule, PUSHT,
                              Normaliser(np.zeros(43), np.ones(43), np.ones((8, 1))), 2, pred_horizon=8, clip=2)
    plan = planner.plan(np.zeros((1, 2, 5)), np.random.default_rng(0))
    np.testing.assert_allclose(plan[0], [[2, -0.5]] * 8, atol=1e-5)  # in the axes of a T that stands upright


def test_a_policy_in_a_mirror_does_what_is_seen_in_the_mirror(tiny_policy):
    """Whatever its weights: the frame sees to it (features.frame)."""
    obs = np.random.default_rng(0).uniform(100, 400, (5, 2, 5))
    plan, reflected = (tiny_policy().plan(o, np.random.default_rng(1)) for o in (obs, mirror(obs, obs)[0]))
    np.testing.assert_allclose(reflected, mirror(obs, plan)[1], atol=1e-3)
    assert np.ptp(plan, axis=1).max() > 5


def test_start_noise_scales_what_a_plan_starts_from(tiny_policy):
    """The prior is all that is random in DDIM with eta = 0: without it every plan is the same."""
    obs = np.random.default_rng(0).uniform(100, 400, (1, 2, 5))
    spread = [np.ptp([tiny_policy(sampler="ddim", steps=3, start_noise=scale).plan(obs, np.random.default_rng(seed))
                      for seed in range(4)], axis=0).max() for scale in (0, 0.1, 1)]
    assert spread[0] == 0 < spread[1] < spread[2] / 2


def test_guidance_is_handed_on_to_the_denoiser(tiny_policy):
    """With scale -1 the observation is forgotten: plans differ by where they start alone."""
    obs = np.random.default_rng(0).uniform(100, 400, (2, 2, 5))
    offsets = lambda **options: [(tiny_policy(sampler="ddim", steps=3, **options).plan(one[None], np.random.default_rng(0))
                                  - one[-1, :2]) @ PUSHT.frame(one[None])[1] for one in obs]
    assert np.abs(np.subtract(*offsets(guidance=-1))).max() < 1e-3 < 1 < np.abs(np.subtract(*offsets())).max()


@pytest.mark.parametrize("options, said", [
    ({"action_horizon": 0}, "action_horizon 0"), ({"action_horizon": 9}, "a plan has 8 actions"),
    ({"sampler": "euler"}, "'euler': choose from ancestral, ddim")])
def test_bad_options_are_refused_in_words(tiny_policy, options, said):
    with pytest.raises(ValueError, match=said):
        tiny_policy(**options)


@pytest.mark.parametrize("options, said", [
    ({"sampler": "ddim", "steps": 7}, "1 to T = 6 steps, not 7"), ({"sampler": "ddim", "steps": 0}, "not 0")])
def test_steps_that_the_chain_does_not_have_are_refused_in_words(tiny_policy, options, said):
    with pytest.raises(ValueError, match=said):
        tiny_policy(**options).plan(np.zeros((1, 2, 5)), np.random.default_rng(0))


def test_observations_of_another_horizon_are_refused_in_words(tiny_policy):
    with pytest.raises(ValueError, match=r"observations of shape \(B, 2, 5\), not \(3, 1, 5\)"):
        tiny_policy().plan(np.zeros((3, 1, 5)), np.random.default_rng(0))


# ---- a policy from its checkpoint ---------------------------------------------------------------------------------

@pytest.fixture
def saved(tmp_path, tiny_policy):
    """save(**changes): the tiny policy's checkpoint, some arrays or meta changed -> its path."""
    def save(arrays={}, **meta):
        planner = tiny_policy()
        theta = planner.eps_theta.net.theta
        checkpoint.save(tmp_path / "p.npz", {"ema": theta, "theta": 0 * theta, "beta": planner.schedule.beta[1:],
                                             **planner.normaliser._asdict()} | arrays,
                        {"task": "pusht", "config": CONFIG} | meta)
        return tmp_path / "p.npz"
    return save


def test_a_loaded_policy_plans_as_the_saved_one_with_the_averaged_weights(saved, tiny_policy):
    obs = np.random.default_rng(0).uniform(100, 400, (2, 2, 5))
    loaded, meta = policy.load(saved(), PUSHT, sampler="ddim", steps=2)
    assert meta["config"] == CONFIG
    np.testing.assert_array_equal(loaded.plan(obs, np.random.default_rng(1)),
                                  tiny_policy(sampler="ddim", steps=2).plan(obs, np.random.default_rng(1)))


def test_a_short_plan_is_carried_out_whole_unless_told_otherwise(saved):
    assert policy.load(saved(), PUSHT)[0].action_horizon == 2
    path = saved({"scale": np.ones((1, 1)), "ema": np.zeros_like(short_theta())}, config=CONFIG | {"pred_horizon": 1})
    assert policy.load(path, PUSHT)[0].action_horizon == 1


def short_theta():
    return policy.build(CONFIG | {"pred_horizon": 1}, PUSHT, 43, np.random.default_rng(0))[1].net.theta


def test_checkpoints_that_do_not_fit_are_refused_in_words(saved):
    for path, said in ((lambda: saved(task="chess"), "for the task 'chess', not for 'pusht'"),
                       (lambda: saved({"ema": np.zeros(3)}), "do not fit"),
                       (lambda: saved({"beta": np.full(6, 0.1)}), "do not fit"),
                       (lambda: saved(config=CONFIG | {"width": 24}), "do not fit")):
        with pytest.raises(ValueError, match=said):
            policy.load(path(), PUSHT)
