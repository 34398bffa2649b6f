"""The suite under test: defects that published code has had, planted in ours one at a time.

    python tests/mutants.py              all; exit status 1 if one survives
    python tests/mutants.py 5            every fifth
    python tests/mutants.py 1 nn optim   all of these files

Slips of sign and index a machine can plant by itself. What it cannot invent is here: what others
got wrong, each with its source. `owner/repository#1` is github.com/owner/repository/issues/1,
`owner/repository@1` the commit. Only the tests that prove the file are run.
"""
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = ("minidiff", "tests", "train.py", "pyproject.toml")
TESTS = {
    "tensor": ["test_autograd"],
    "layers": ["test_autograd", "test_networks"],
    "nn": ["test_networks"],
    "optim": ["test_optim"],
    "diffusion": ["test_objective", "test_forward_process", "test_reverse_process", "test_bound"],
    "demos": ["test_demos"],
    "checkpoint": ["test_checkpoint"],
    "training": ["test_training"],
    "policy": ["test_policy"],
    "beyond/__init__": ["test_beyond"],
    "beyond/samplers": ["test_samplers"],
    "beyond/guidance": ["test_guidance"],
    "beyond/baselines": ["test_baselines"],
    "beyond/formats": ["test_formats"],
    "pusht/env": ["pusht/test_env"],
    "pusht/geometry": ["pusht/test_geometry"],
    "pusht/features": ["pusht/test_features"],
    "scoring/scores": ["scoring/test_scores"],
    "scoring/rollout": ["scoring/test_rollout"],
}


class Defect(NamedTuple):
    """What was wrong in the code of the source, and a piece of our text, which occurs once, and
    what to put in its place, so that it is wrong in ours."""
    source: str
    wrong: str
    old: str
    new: str


D = Defect
DEFECTS = {
    "tensor": [
        D("karpathy/nn-zero-to-hero#52", "of the uses of a value only the last gave it a gradient",
          "x.grad = g if x.grad is None else x.grad + g",
          "x.grad = g"),
        D("Oneflow-Inc/oneflow#8248", "gradients were added up in an array that two inputs share",
          "x.grad = g if x.grad is None else x.grad + g",
          "x.grad = g if x.grad is None else np.add(x.grad, g, out=x.grad)"),
        D("sebgao/cTensor#5", "a gradient was passed on before all of it had come in",
          "self._entries.pop()",
          "self._entries.pop(0)"),
        D("karpathy/micrograd#102", "results inside the graph kept their gradients for later calls",
          "            out.grad = None\n",
          ""),
        D("HIPS/autograd#39", "an element that an index picks twice got one gradient",
          "np.add.at(out, index, g)",
          "out[index] += g"),
        D("deeplearning4j/nd4j#2424", "what was broadcast got a gradient of the broadcast shape",
          "_sum_to(gradient_of(grad), x.data.shape)",
          "gradient_of(grad)"),
        D("pytorch/pytorch#7002", "a clip stopped the gradient of what lies just on its bounds",
          "(y == a)",
          "((low < a) & (a < high))"),
        D("chainer/chainer#1047", "the sigmoid took the exponential of large numbers",
          "    s = np.tanh(x * 0.5)\n    s += 1\n    s *= 0.5\n",
          "    s = 1 / (1 + np.exp(-x))\n"),
    ],
    "layers": [
        D("pytorch/pytorch#40302", "a group's variance was E[x^2] - E[x]^2, which cancels",
          "over_group(np.einsum(\"hbc,hbc->bc\", centred, centred))",
          "over_group(np.einsum(\"hbc,hbc->bc\", x, x))"
          " - over_group(np.einsum(\"hbc->bc\", x))**2"),
        D("microsoft/CNTK#3816", "eps was added to the standard deviation, after the root",
          "np.sqrt(_row_dot(x, x) / n + eps)",
          "np.sqrt(_row_dot(x, x) / n) + eps"),
        D("bayesflow-org/bayesflow#787", "each error met the weights of the whole batch",
          "weighted = weight * error",
          "weighted = np.mean(weight, dtype=error.dtype) * error"),
    ],
    "nn": [
        D("gmongaras/Diffusion_models_from_scratch#10",
          "sine and cosine alternated along the batch, not along the embedding",
          "np.concatenate([np.sin(phase), np.cos(phase)], 1)",
          "np.where(np.arange(len(phase))[:, None] % 2,"
          " np.cos(np.tile(phase, 2)), np.sin(np.tile(phase, 2)))"),
        D("flashinfer-ai/flashinfer#3819", "the halves of the time embedding were exchanged",
          "[np.sin(phase), np.cos(phase)]",
          "[np.cos(phase), np.sin(phase)]"),
        D("sihyun-yu/REPA#40", "the embedding for t in 0..T was given t in 0..1",
          "time_embedding(np.arange(len(alpha_bar)))",
          "time_embedding(np.linspace(0, 1, len(alpha_bar)))"),
        D("huggingface/diffusers#1486", "an output that is not the noise was taken for it",
          "return x_t * self.noise[t] + F * self.signal[t], v",
          "return F, v"),
    ],
    "optim": [
        D("Loshchilov & Hutter 2019, arXiv 1711.05101",
          "weight decay went through Adam's moments (an L2 penalty)",
          "            g = grad[block]\n            m *= b1\n            m += (1 - b1) * g\n"
          "            v *= b2\n            g = g * g\n            g *= 1 - b2\n"
          "            v += g\n            theta *= 1 - lr * self.weight_decay\n",
          "            g = grad[block] + self.weight_decay * theta\n            m *= b1\n"
          "            m += (1 - b1) * g\n            v *= b2\n            g = g * g\n"
          "            g *= 1 - b2\n            v += g\n"),
        D("allenai/OLMo-core#317", "steps were not counted, so nothing corrected the bias",
          "        rate = lr / (1 - b1**self.n)\n        root = 1 / math.sqrt(1 - b2**self.n)\n",
          "        rate = lr\n        root = 1.0\n"),
        D("eriklindernoren/ML-From-Scratch#35", "the correction of the bias lacked the power n",
          "        rate = lr / (1 - b1**self.n)\n        root = 1 / math.sqrt(1 - b2**self.n)\n",
          "        rate = lr / (1 - b1)\n        root = 1 / math.sqrt(1 - b2)\n"),
        D("flashlight/flashlight#143", "a step counted once for each array of parameters",
          "            block = slice(i, i + BLOCK)\n",
          "            block = slice(i, i + BLOCK)\n            self.n += i > 0\n"),
        D("frgfm/holocron#1", "the corrected moment was kept, and corrected again at the next step",
          "            m += (1 - b1) * g\n",
          "            m += (1 - b1) * g\n            m /= 1 - b1**self.n\n"),
        D("huggingface/diffusers#1864", "the EMA's decay at a step overwrote the one that was set",
          "        d = min(",
          "        d = self.ema_decay = min("),
        D("Tencent-Hunyuan/UniRL#223", "the cosine made room for a warm-up, but began with it",
          "(step - warmup) / (steps - warmup)",
          "step / (steps - warmup)"),
    ],
    "diffusion": [
        D("zoubohao/DenoisingDiffusionProbabilityModel-ddpm-#14",
          "the betas made for T = 1000 were used for any T, so x_T was no noise",
          "Schedule(1 - (1 - b) ** (1000 / T))",
          "Schedule(b)"),
        D("Project-MONAI/GenerativeModels#489", "alpha_bar began at 1 in the first step: 0/0",
          "np.cumprod(self.alpha)",
          "np.cumprod(np.concatenate([[1], self.alpha[:-1]]))"),
        D("varun-ml/diffusion-models-tutorial#1",
          "the posterior's variance was not divided by 1 - alpha_bar_t",
          "self.beta_tilde = _table(0, remaining * beta)",
          "self.beta_tilde = _table(0, (1 - self.alpha_bar[t - 1]) * beta)"),
        D("tqch/ddpm-torch#9", "the variance of q(x_t | x_0) was not 1 - alpha_bar_t",
          "gather(1 - schedule.alpha_bar, t, x0)",
          "gather(schedule.noise, t, x0)"),
        D("lucidrains/imagen-pytorch#265", "training never drew the t at which sampling starts",
          "rng.integers(1, schedule.T + 1, batch)",
          "rng.integers(1, schedule.T, batch)"),
        D("lucidrains/recurrent-interface-network-pytorch#11", "min-SNR was max-SNR",
          "np.minimum(schedule.snr[1:], 5)",
          "np.maximum(schedule.snr[1:], 5)"),
        D("huggingface/diffusers#5654", "min-SNR for v clipped SNR + 1, not SNR",
          "np.minimum(schedule.snr[1:], 5)",
          "np.minimum(schedule.snr[1:] + 1, 5)"),
        D("huggingface/diffusers#2090", "a learned variance lay between the two, not their logs",
          "    return tn.exp(v * (gather(schedule.log_beta, t, x_t) - low) + low)\n",
          "    return v * (gather(schedule.beta, t, x_t) - np.exp(low)) + np.exp(low)\n"),
        D("wjmaddox/drbayes#6", "normal numbers were scaled by the variance, not its root",
          "tn.sqrt(sigma2) * rng",
          "sigma2 * rng"),
        D("openai/improved-diffusion#114", "L_vlb was a mean over t, where its weight is for a sum",
          "(share * schedule.T / terms.size)",
          "(share / terms.size)"),
    ],
    "demos": [
        D("huggingface/lerobot#211", "a feature that never varies was divided by 0",
          "std = varying(features.std(0, np.float64), np.abs(features).max(0))",
          "std = features.std(0, np.float64)"),
        D("huggingface/lerobot#4704", "a feature's variance was E[x^2] - E[x]^2, which cancels",
          "varying(features.std(0, np.float64),",
          "varying(np.sqrt(np.maximum((features**2).mean(0) - features.mean(0)**2, 0)),"),
        D("mani-skill/ManiSkill#1083", "a plan began with the action of an earlier observation",
          "np.minimum(i + np.arange(pred_horizon), last)",
          "np.clip(i + np.arange(pred_horizon) + 1 - obs_horizon, first, last)"),
    ],
    "checkpoint": [
        D("numpy/numpy#12759", "to load an array could run code that the file brings",
          "_read_array(archive, archive.getinfo(f\"{name}.npy\"))",
          "np.load(path, allow_pickle=True)[name]"),
        D("mir-group/nequip#26", "a file was written in place, so an interruption left half of it",
          "        with open(temporary, \"wb\") as file:\n            write(file)\n"
          "            file.flush()\n            os.fsync(file.fileno())\n"
          "        os.replace(temporary, path)\n",
          "        with open(path, \"wb\") as file:\n            write(file)\n"),
        D("IfcOpenShell/IfcOpenShell#8341", "the old file was removed before the new one took over",
          "        os.replace(temporary, path)\n",
          "        path.unlink(missing_ok=True)\n        os.replace(temporary, path)\n"),
    ],
    "training": [
        D("NVIDIA-NeMo/Automodel#763", "a resumed optimiser counted its steps from 0",
          "        self.optimiser.n = n\n",
          ""),
        D("lightly-ai/lightly-train#301", "a resumed run began its learning rates anew",
          "        self.n = n\n",
          "        self.n = 0\n"),
        D("pytorch/pytorch#5059", "copies of one generator gave all batches the same noise",
          "        eps = self.rng.standard_normal(x0.shape, dtype=np.float32)\n",
          "        eps = np.random.default_rng(0).standard_normal(x0.shape, dtype=np.float32)\n"),
        D("NVlabs/Sana#188", "nothing was ever dropped of what guidance needs dropped",
          "if config.drop_cond:",
          "if False:"),
    ],
    "policy": [
        D("pengzhiliang/MAE-pytorch#31", "the averaged weights were kept, and never used",
          "\"ema\": trainer.optimiser.ema",
          "\"ema\": trainer.net.theta"),
        D("TensorAuto/OpenTau#552", "a full queue lost its front, which were the next actions",
          "for action in plan[:policy.action_horizon]:",
          "for action in plan[-policy.action_horizon:]:"),
    ],
    "beyond/__init__": [
        D("lucidrains/denoising-diffusion-pytorch#256", "an option was not passed on to a sampler",
          "return functools.partial(function, **options) if options else function",
          "return function"),
    ],
    "beyond/samplers": [
        D("Lin et al. 2023, arXiv 2305.08891", "a shorter chain did not start at T",
          "np.round(np.linspace(T, 0, steps + 1)).astype(int)",
          "np.arange(steps, -1, -1) * (T // steps)"),
        D("lucidrains/denoising-diffusion-pytorch#84", "x_0 was clipped, but the eps of it was not",
          "return x0_hat, eps_from_x0(schedule, x, t, x0_hat)",
          "return x0_hat, eps_hat"),
        D("huggingface/diffusers#9261", "a step went to t - T // steps, not to the next timestep",
          "        sigma = eta * np.sqrt(",
          "        s = max(t - schedule.T // steps, 0)\n        sigma = eta * np.sqrt("),
        D("Stability-AI/stablediffusion#345", "the last step ended at alpha_bar_1, and left noise",
          "        sigma = eta * np.sqrt(",
          "        s = max(s, 1)\n        sigma = eta * np.sqrt("),
        D("jsboige/CoursIA#16158", "the noise of a step was that of t, not of the jump from t to s",
          "eta * np.sqrt((1 - ab[s]) / (1 - ab[t]) * (1 - ab[t] / ab[s]))",
          "min(eta * np.sqrt(1 - ab[t]), np.sqrt(1 - ab[s]))"),
        D("huggingface/diffusers#3006", "a step over several timesteps took the beta of one",
          "beta = 1 - ab[t] / ab[s]",
          "beta = schedule.beta[t]"),
        D("huggingface/diffusers#1512", "Heun's second slope was taken at the noise of the first",
          "velocity(x + v * step, s)",
          "velocity(x + v * step, t)"),
        D("google-research/ibc#6", "Langevin noise was scaled by the step's size, not its root",
          "size / 2, np.sqrt(size)]",
          "size / 2, size]"),
    ],
    "beyond/guidance": [
        D("labmlai/annotated_deep_learning_paper_implementations#177",
          "the unconditional part was added, not subtracted",
          "- self.eps_theta(x_t, t, 0 * cond)",
          "+ self.eps_theta(x_t, t, 0 * cond)"),
        D("lucidrains/denoising-diffusion-pytorch#208", "one of the samplers left out the guidance",
          "return self.guided(eps_hat, x_t, t, cond), v",
          "return eps_hat, v"),
        D("huggingface/diffusers#1581", "the given part had the noise of t, the rest that of t-1",
          "q_sample(schedule, given, t - 1,",
          "q_sample(schedule, given, t,"),
        D("huggingface/diffusers#10185", "the given part's noise was scaled by its variance",
          "given, t - 1, rng",
          "given, t - 1, x.dtype.type(schedule.noise[t - 1]) * rng"),
    ],
    "beyond/baselines": [
        D("mlberkeley/scae-pytorch#4", "a log-sum-exp without its shift overflowed",
          "log(sum(exp(bounded(a - top, -40.0, 0.0)), axis=1, keepdims=True)) + top",
          "log(sum(exp(a), axis=1, keepdims=True))"),
        D("tonyduan/mixture-density-network#4", "weights went to 0 before their log was taken",
          "logit - log_sum_exp(logit)",
          "log(exp(logit - log_sum_exp(logit)))"),
    ],
    "beyond/formats": [
        D("zarr-developers/zarr-python#486", "chunks that were lost came back as fill values",
          "    if missing:\n",
          "    if False:\n"),
    ],
    "pusht/env": [
        D("huggingface/gym-pusht@291cca7", "the block's angle was set after its position",
          "            block.angle = start[4]\n            block.position = start[2:4]\n"
          "        space.step",
          "            block.position = start[2:4]\n            block.angle = start[4]\n"
          "        space.step"),
        D("Farama-Foundation/Metaworld#252", "a reset left part of the last episode's state",
          "start[5:] or (0.0, 0.0)",
          "start[5:] or getattr(self, \"_velocity\", (0.0, 0.0))"),
        D("huggingface/lerobot#1116", "a reset left the actions of the last episode in a queue",
          "        self._actions = []\n",
          "        self._actions = getattr(self, \"_actions\", [])\n"),
        D("irom-princeton/dppo#32", "success never ended an episode",
          "reward, info[\"is_success\"], truncated",
          "reward, False, truncated"),
    ],
    "pusht/geometry": [
        D("facebookresearch/fairo#1093", "an angle a turn off was far from the goal's",
          "2 * SPREAD * (1 - np.cos(pose[..., 2] - GOAL_POSE[2]))",
          "SPREAD * (pose[..., 2] - GOAL_POSE[2])**2"),
        D("JuliaGeo/GeometryOps.jl#468", "what meets in nothing came back as a whole polygon",
          "        return (), ()\n",
          "        return xs, ys\n"),
    ],
    "pusht/features": [
        D("open-rmf/rmf_traffic_editor#538", "a turn across pi counted as nearly a full one",
          "np.arctan2(np.sin(difference), np.cos(difference))",
          "difference"),
    ],
    "scoring/scores": [
        D("scikit-hep/hist#281", "with no success the interval ended at 0",
          "1 - least(n - successes)",
          "(1 - least(n - successes) if successes else 0.0)"),
    ],
    "scoring/rollout": [
        D("huggingface/lerobot#45", "the generator had moved on before the first episode",
          "first, _ = env.reset(seed=int(seed))\n",
          "first, _ = (env.reset(seed=int(seed)), env.reset())[1]\n"),
        D("nottombrown/rl-teacher#21", "all episodes had the same random numbers",
          "np.random.default_rng([noise_seed, int(seed)]) for",
          "np.random.default_rng(noise_seed) for"),
        D("huggingface/lerobot#185", "the horizon was cut from the batch, not from the plans",
          "plans = policy.plan(np.stack(obs), noise)",
          "plans = policy.plan(np.stack(obs), noise)[:policy.action_horizon]"),
        D("huggingface/lerobot#4485", "steps after the end of an episode counted",
          "        if terminated or truncated or last:\n            return True\n"
          "    return False\n",
          "    return terminated or truncated\n"),
        D("real-stanford/diffusion_policy@5e36d50", "of all episodes the first batch counted",
          "        for future in futures:\n            episodes += workers.awaited(",
          "        for future in futures[:1]:\n            episodes += workers.awaited("),
    ],
}


def chosen(names=tuple(DEFECTS)):
    """All defects of these files, as (name, Defect)."""
    return [(name, defect) for name in names for defect in DEFECTS[name]]


def planted(text, defect):
    """A file's text with the defect. RuntimeError unless its place is there, and there alone."""
    if text.count(defect.old) != 1:
        raise RuntimeError(f"this occurs {text.count(defect.old)} times, not once: {defect.old!r}")
    return text.replace(defect.old, defect.new)


def source(folder, name):
    return Path(folder) / "minidiff" / f"{name}.py"


def suite_passes(folder, name):
    """Whether the tests that prove minidiff/NAME.py pass in the copy in `folder`."""
    tests = [f"tests/{test}.py" for test in TESTS[name]]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--hypothesis-profile=hunt", *tests]
    try:
        return subprocess.run(command, cwd=folder, timeout=300, capture_output=True).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def hunt(defects, show=print):
    """Plant these (name, Defect), one after another; -> those that survive.

    RuntimeError if the suite fails without any.
    """
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        for part in COPIED:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, Path(folder) / part)
        for name in dict.fromkeys(name for name, _ in defects):  # the control
            if not suite_passes(folder, name):
                raise RuntimeError(f"the tests of {name}.py fail as it is, so they tell nothing")
        for k, (name, defect) in enumerate(defects, start=1):
            path = source(folder, name)
            text = path.read_text(encoding="utf-8")
            path.write_text(planted(text, defect), encoding="utf-8")
            survives = suite_passes(folder, name)
            path.write_text(text, encoding="utf-8")
            result = "SURVIVES" if survives else "found"
            show(f"{k}/{len(defects)} {result}  {name}: {defect.wrong} ({defect.source})")
            if survives:
                survivors.append((name, defect))
    return survivors


if __name__ == "__main__":
    every = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    left = hunt(chosen(sys.argv[2:] or tuple(DEFECTS))[::every])
    sys.exit(f"{len(left)} survive" if left else 0)
