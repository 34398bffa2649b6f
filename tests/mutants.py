"""The suite under test: plant one defect at a time in a copy, and see that the suite finds it.

    python tests/mutants.py              all, a few seconds each; exit status 1 if one survives
    python tests/mutants.py 5            every fifth; tests/test_mutants.py takes every 100th
    python tests/mutants.py 1 nn wall    all of these files

Each defect is a file, a piece of its text that occurs once, and what to put in its place: slips of
sign and index, missing roots and factors, detached gradients, the bugs of published code. Only the
tests that prove that file are run.
"""
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("minidiff", "tests", "train.py", "pyproject.toml")
TESTS = {
    "tensor": ["test_autograd"],
    "layers": ["test_autograd", "test_networks"],
    "nn": ["test_networks"],
    "optim": ["test_optim"],
    "diffusion": ["test_forward_process", "test_reverse_process", "test_objective", "test_bound"],
    "demos": ["test_demos"],
    "checkpoint": ["test_checkpoint"],
    "training": ["test_training"],
    "policy": ["test_policy"],
    "wall": ["test_wall"],
    "beyond/samplers": ["test_samplers"],
    "beyond/guidance": ["test_guidance"],
    "beyond/baselines": ["test_baselines"],
    "beyond/__init__": ["test_beyond"],
    "pusht/features": ["pusht/test_features"],
}

MUTANTS = {
    "tensor": [
        ("lambda g: (g, -g))", "lambda g: (g, g))"),
        ("lambda g: (g * b.data, g * a.data))", "lambda g: (g * a.data, g * b.data))"),
        ("-g * y / b.data))", "g * y / b.data))"),
        ("(g / b.data, -g", "(g * b.data, -g"),
        ("(y, (a,), lambda g: (g * y,))", "(y, (a,), lambda g: (g * a.data,))"),
        ("lambda g: (g / a.data,))", "lambda g: (g * a.data,))"),
        ("d = 1 - s  #", "d = 1 + s  #"),
        ("        d *= y\n", ""),
        ("lambda g: (g / (2 * y),))", "lambda g: (g / y,))"),
        ("lambda g: (g * (y == a.data),))", "lambda g: (g,))"),
        ("x.grad = g if x.grad is None else x.grad + g", "x.grad = g"),
        ("                if x.needs_grad:\n", "                if True:\n"),
        ("g = g.sum(axis=tuple(", "g = g.mean(axis=tuple("),
        ("g.sum(axis=repeated, keepdims=True)", "g.sum(axis=repeated, keepdims=False)"),
        ("backward = self._entries.pop()", "backward = self._entries.pop(0)"),
        ("        _open.tape = self._outer\n", "        _open.tape = None\n"),
        ("_open = threading.local()", "_open = type('Open', (), {})()"),
        ("if axis is not None and not keepdims:", "if False:"),
        ("lambda g: (g.swapaxes(i, j),))", "lambda g: (g.swapaxes(i, j).copy() * 0.5,))"),
        ("            out[index] = g\n        else:", "            out[index] = 1\n        else:"),
        ("            np.add.at(out, index, g)\n", "            out[index] = g\n"),
        ("if not any(out is result for", "if not any(True for"),
        ("if self.data.dtype.kind not in", "if False and self.data.dtype.kind not in"),
        ("return data.astype(np.float64)", "return data"),
        ('hasattr(like, "dtype") and like.dtype.kind in "fc"', 'hasattr(like, "dtype")'),
        ("np.cumsum([x.shape[axis] for x in xs])[:-1]",
         "np.cumsum([x.shape[axis] for x in xs])[1:]"),
        ("Tensor(np.asarray(x, like.dtype))", "Tensor(np.asarray(x))"),
        ("    return Tensor(x.data)\n", "    return x\n"),
    ],
    "layers": [
        ("return gx, rows.T @ g, g.sum(0)", "return gx, rows.T @ g, g.mean(0)"),
        ("gx = (g @ W.data.T).reshape(x.shape) if x.needs_grad else None", "gx = None"),
        ("    y += b.data\n    y = y.reshape(H", "    y = y.reshape(H"),
        ("return slice(shift, H), slice(0, H - shift)",
         "return slice(0, H - shift), slice(shift, H)"),
        ("            gW[j] = ", "            gW[-1 - j] = "),
        ("if tap != middle and abs(", "if abs("),
        ("gW[middle] = _rows(x.data).T @ _rows(g)", "gW[middle] = 0"),
        ("gx[into] += ", "gx[into] -= "),
        ("return gx, gW, _rows(g).sum(0)", "return gx, gW, _rows(g).sum(0) * H"),
        ("1 / np.sqrt(_row_dot(xhat, xhat) / n + eps)", "1 / (_row_dot(xhat, xhat) / n + eps)"),
        ("        gx -= xhat * (_row_dot(gxhat, xhat) / n)\n", ""),
        ("gx = gxhat - gxhat @ average", "gx = gxhat.copy()"),
        ("centred, centred)) + eps) ** -0.5", "centred, centred)) + eps) ** -1"),
        ('x.data - over_group(np.einsum("hbc->bc", x.data))', "x.data"),
        ("g, centred) * rstd  # the sum", "g, x.data) * rstd  # the sum"),
        ("        gx -= over_group(gain.data * gbias) * rstd\n", ""),
        ("weighted * (2 * g / error.size)", "weighted * (g / error.size)"),
        ("return weighted_g, -weighted_g", "return weighted_g, weighted_g"),
        ("weighted.ravel() @ error.ravel()", "weighted.ravel() @ weighted.ravel()"),
    ],
    "nn": [
        ("x_t * self.noise[t] + F * self.signal[t]", "x_t * self.signal[t] + F * self.noise[t]"),
        ("x_t * self.c_in[t] if self.precondition else x_t", "x_t"),
        ("part = self.theta[start:start + size].reshape(shape)",
         "part = self.theta[start:start + size].reshape(shape).copy()"),
        ("v = F[..., D:] * 0.5 + 0.5", "v = F[..., :D] * 0.5 + 0.5"),
        ("F[..., D:] * 0.5 + 0.5", "F[..., D:] * 0.5"),
        ("/ (alpha_bar + 4 * (1 - alpha_bar))", "/ (alpha_bar + (1 - alpha_bar))"),
        ("_column(np.sqrt(alpha_bar))", "_column(alpha_bar)"),
        ("_column(np.sqrt(1 - alpha_bar))", "_column(1 - alpha_bar)"),
        ("np.broadcast_to(self.embedding[t]", "np.broadcast_to(self.embedding[t - 1]"),
        ("/ np.sqrt(np.prod(shape[:-1]))", "/ np.prod(shape[:-1])"),
        ('name.endswith("W") and name not in zero', 'name.endswith("W")'),
        ("h = h + self.block(i, h)", "h = self.block(i, h)"),
        ("groupnorm(r, 1 + gain_2, bias_2", "groupnorm(r, gain_2, bias_2"),
        ("for k in range(4))", "for k in (1, 0, 2, 3))"),
        (" + swapaxes(start, 0, 1)", ""),
        ("            part[:] = 1\n", "            part[:] = 0\n"),
        ("[np.sin(phase), np.cos(phase)]", "[np.sin(phase), np.sin(phase)]"),
        ("1e4 ** -np.linspace(", "1e3 ** -np.linspace("),
    ],
    "optim": [
        ("            m *= b1\n", ""),
        ("            m += (1 - b1) * g\n", "            m += g\n"),
        ("            g *= 1 - b2\n", ""),
        ("rate = lr / (1 - b1**self.n)", "rate = lr"),
        ("root = 1 / math.sqrt(1 - b2**self.n)", "root = 1 / (1 - b2**self.n)"),
        ("            np.sqrt(v, out=g)\n", "            g[:] = v\n"),
        ("            g += self.eps\n", ""),
        ("theta *= 1 - lr * self.weight_decay", "theta *= 1 - self.weight_decay"),
        ("            theta *= 1 - lr * self.weight_decay\n",
         "            g += self.weight_decay * theta\n"),
        ("d = min(self.ema_decay, (1 + self.n) / (10 + self.n))", "d = self.ema_decay"),
        ("ema += (1 - d) * theta", "ema += d * theta"),
        ("        self.n += 1\n", ""),
        ("self.ema = theta.copy()", "self.ema = np.zeros_like(theta)"),
        ("block = slice(i, i + BLOCK)", "block = slice(i, i + BLOCK - 1)"),
        ("return peak * (step + 1) / warmup", "return peak * step / warmup"),
        ("peak * 0.5 * (1 + math.cos", "peak * (1 + math.cos"),
        ("        p.grad = None\n", "        pass\n"),
    ],
    "diffusion": [
        ("np.cumprod(self.alpha)", "np.cumprod(self.alpha) * (1 - beta[0])"),
        ("np.cumprod(self.alpha)", "np.concatenate([self.alpha[1:], [0.0]]).cumprod()"),
        ("self.noise = np.sqrt(1 - self.alpha_bar)", "self.noise = 1 - self.alpha_bar"),
        ("remaining = (1 - self.alpha_bar[t - 1]) / (1 - self.alpha_bar[t])",
         "remaining = (1 - self.alpha_bar[t]) / (1 - self.alpha_bar[t - 1] + 1e-9)"),
        ("_table(1, np.sqrt(self.alpha_bar[t - 1])", "_table(1, np.sqrt(self.alpha_bar[t])"),
        ("_table(0, np.sqrt(self.alpha[t])", "_table(0, self.alpha[t]"),
        ("Schedule(1 - (1 - b) ** (1000 / T))", "Schedule(b)"),
        ("/ T + s) / (1 + s)) ** 2", "/ T + s) / (1 + s))"),
        ("x.dtype if x.dtype.kind in \"fc\" else np.float64", "np.float64"),
        ("gather(np.sqrt(schedule.beta), t, x_prev)", "gather(schedule.beta, t, x_prev)"),
        ("gather(1 - schedule.alpha_bar, t, x0)", "gather(schedule.noise, t, x0)"),
        ("* eps) / gather(schedule.signal", "* eps) * gather(schedule.signal"),
        ("* x0) / gather(schedule.noise", "* x0) / gather(schedule.signal"),
        ("return eps / -gather(", "return eps / gather("),
        ("rng.integers(1, schedule.T + 1, batch)", "rng.integers(1, schedule.T, batch)"),
        ("rng.integers(1, schedule.T + 1, batch)", "rng.integers(0, schedule.T, batch)"),
        ("return _table(0, weight / weight.mean())", "return _table(0, weight)"),
        ("np.minimum(schedule.snr[1:], 5) / schedule.snr[1:]",
         "np.minimum(schedule.snr[1:], 5)"),
        ("np.minimum(1 / schedule.alpha_bar[1:], 1e4)", "1 / schedule.alpha_bar[1:]"),
        ("weight = bound_weight(schedule)[1:]", "weight = bound_weight(schedule)[1:] ** 2"),
        ("cond), eps, gather(weight, t, x0))", "cond), eps, gather(weight, t - 1, x0))"),
        ("        x0_hat = tn.clip(x0_hat, -clip, clip)\n", "        pass\n"),
        ("tn.clip(x0_hat, -clip, clip)", "tn.clip(x0_hat, -10 * clip, clip)"),
        ("return q_posterior(schedule, x0_hat, x_t, t)[0]", "return x0_hat"),
        ("        return schedule.beta\n", "        return schedule.beta_tilde\n"),
        ("        return schedule.beta_tilde\n", "        return schedule.beta\n"),
        ("tn.exp(v * (gather(schedule.log_beta", "tn.exp((1 - v) * (gather(schedule.log_beta"),
        ("floor = self.beta_tilde[min(2, self.T)] or beta[0]", "floor = beta[0]"),
        ("        self.posterior_entropy[:2] = 0\n", ""),
        ("x = x if isinstance(x_T, Tensor) else x.data", "x = x.data"),
        ("(error * error + q_variance) / sigma2)", "error * error / sigma2)"),
        ("tn.sum(terms) * (schedule.T / terms", "tn.sum(terms) * (1 / terms"),
        ("stop_gradient(eps_hat)", "eps_hat"),
        ("return mse(eps_hat, eps, gather(weight, t, x0)) + vlb",
         "return mse(eps_hat, eps) + vlb"),
        ("(share * schedule.T / terms.data.size)", "(share / terms.data.size)"),
        ("return rng.standard_normal(shape, dtype=dtype)",
         "return rng.uniform(-1.7, 1.7, shape).astype(dtype)"),
        ("for t in range(schedule.T, 0, -1):", "for t in range(schedule.T, 1, -1):"),
        ("for t in range(schedule.T, 0, -1):", "for t in range(schedule.T - 1, 0, -1):"),
        ("    if t == 1:\n", "    if False:\n"),
        ("return mean + tn.sqrt(sigma2) *", "return mean + sigma2 *"),
        ("0.5 * (ratio - 1 - np.log(ratio)", "0.5 * (ratio - 1 + np.log(ratio)"),
        ("denominator = 2 * sigma2", "denominator = sigma2"),
        ("schedule.beta[t]**2 / denominator", "schedule.beta[t] / denominator"),
        ("for t in range(1, schedule.T + 1):\n        x_t = ",
         "for t in range(1, schedule.T):\n        x_t = "),
        ("variance_T = q_mean_variance(schedule, x0, schedule.T)",
         "variance_T = q_mean_variance(schedule, x0, schedule.T - 1)"),
    ],
    "demos": [
        ("(actions - origin[:, None]) @ axes", "(actions - origin[:, None]) @ axes.swapaxes(1, 2)"),
        ("offsets @ axes.swapaxes(1, 2) + origin", "offsets @ axes + origin"),
        ("np.arange(1 - obs_horizon, 1)", "np.arange(-obs_horizon, 0)"),
        ("np.arange(pred_horizon), last", "np.arange(1, pred_horizon + 1), last"),
        ("(offsets ** 2).mean((0, 2))", "(offsets ** 2).mean((0, 2)) * 2"),
        ("part.episode_ends + row", "part.episode_ends"),
        ("(features - self.mean) / self.std", "features / self.std"),
        ("np.where(magnitude > 0, magnitude, 1), spread)", "spread, spread)"),
        ("np.clip(normaliser.normalise(actions, frame), -clip, clip)",
         "normaliser.normalise(actions, frame)"),
        ("rising = ends > np.", "rising = ends >= np."),
        ("(rows < low) | (rows > high)", "rows > high"),
        ("self.std, -BOUND, BOUND)", "self.std, -1e9, 1e9)"),
        ("offsets.std((0, 1)), np.abs", "offsets.std(), np.abs"),
        ("centre = offsets.mean((0, 1))", "centre = offsets.mean() * np.ones(actions.shape[2])"),
        ("rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)",
         "rows.astype(np.float32)"),
        ("else rows.astype(np.float64)", "else rows.astype(np.float32)"),
    ],
    "checkpoint": [
        ("            os.fsync(file.fileno())\n        os.replace(temporary, path)\n",
         "        path.write_bytes(temporary.read_bytes())\n"),
        ("Path(os.path.realpath(path))\n    path.parent", "Path(path)\n    path.parent"),
        ("if path.exists() and not path.is_file() and not path.is_dir():", "if False:"),
        ("    clean(path)\n", ""),
        (".{threading.get_ident()}", ""),
        ("not alive(int(process[1]))", "alive(int(process[1]))"),
        ("            if names is None or name in names:\n", "            if True:\n"),
        ("* dtype.itemsize > info.file_size:", "* dtype.itemsize > 1e18:"),
        ('dtype.kind not in "fiubU" or', 'dtype.kind not in "fiubUM" or'),
        (" or not dtype.itemsize:", ":"),
        ("if version != FORMAT_VERSION:", "if False:"),
        ("name not in held]", "False]"),
    ],
    "training": [
        ("(initial=0)) <= LARGEST:", "(initial=0)) < np.inf:"),
        ("cond = self.cond[rows]", "cond = self.cond[self.rng.permutation(rows)]"),
        (">= config.drop_cond", "< config.drop_cond"),
        ("cond = cond * kept.astype(np.float32)", "cond = cond * kept.mean(dtype=np.float32)"),
        ("self.rng.integers(0, len(self.x0), config.batch)",
         "self.rng.integers(0, len(self.x0) // 2, config.batch)"),
        ("sample_t(self.schedule, len(x0), self.rng)", "sample_t(self.schedule, 1, self.rng)"),
        ("eps = self.rng.standard_normal(x0.shape",
         "eps = np.random.default_rng(0).standard_normal(x0.shape"),
        ("learning_rate(self.n, ", "learning_rate(self.n + 1, "),
        ("while self.n < self.config.steps:", "while self.n < self.config.steps - 1:"),
        ("loss_weight(self.schedule, config.weight)", 'loss_weight(self.schedule, "uniform")'),
        ("config.precondition, learned)", "True, learned)"),
        ("        rng = np.random.default_rng(self.config.seed)\n", "        rng = self.rng\n"),
        ("t = 1 + np.arange(batch) * self.schedule.T // batch",
         "t = np.full(batch, self.schedule.T)"),
        ("self.loss not in (l_simple, l_hybrid) or not due", "not due"),
        ("if not math.isfinite(loss.data):", "if False:"),
        ("        self.optimiser.n = n\n", ""),
        ('self.rng.bit_generator.state = meta["rng"]', "pass"),
        ('"v": self.optimiser.v, ', ""),
        ('if self.demos_sha256 != meta.get("demos_sha256"):', "if False:"),
        ("not 0 <= n <= config.steps", "not 0 <= n"),
        ("arrays[name].shape != array.shape or ", ""),
        ("not value >= limits[\"least\"]", "value < limits[\"least\"]"),
        ("not value < limits[\"below\"]", "not value <= limits[\"below\"]"),
        ('if limits["choices"] and value not in', "if False and value not in"),
        ("isinstance(value, bool) and field.type is not bool", "False"),
    ],
    "policy": [
        ("seen[max(0, len(seen) - k)]", "seen[max(0, len(seen) - k - 1)]"),
        ("            seen.append(obs)\n", ""),
        ("plan[:policy.action_horizon]", "plan"),
        ("            if terminated or truncated:\n", "            if terminated:\n"),
        ("decide(env, latest, rng) if decide else policy", "policy"),
        ("np.float32(self.start_noise) * prior", "prior"),
        ("clip=self.clip)", "clip=None)"),
        ("self.normaliser.standardise(self.task.features(obs, frame))",
         "np.float32(self.task.features(obs, frame))"),
        ('{"ema": trainer.optimiser.ema', '{"ema": trainer.net.theta'),
        ("param.needs_grad = False", "param.needs_grad = True"),
        ("if eps_theta.learned and sampler is", "if False and sampler is"),
        ("min(2, config.pred_horizon)", "2"),
        ("{find(path)}: {error}", "{error}"),
        ("return whole if whole.exists() else path", "return path"),
        ("        check_numbers(going_on)\n", "        pass\n"),
        ("or not np.allclose(schedule.beta[1:], arrays[\"beta\"])", ""),
    ],
    "wall": [
        ("min(1, SPEED /", "min(2, SPEED /"),
        ("abs(x) < WALL", "x < WALL"),
        ("crossed = before[1] < 0 <= self.position[1]", "crossed = before[1] < 0"),
        ("self.position[1] > 0.95", "self.position[1] > 0.5"),
        ("[before[0], self.position[0]])", "[before[0], before[0]])"),
        ("self.steps >= 3 * H", "self.steps > 3 * H"),
    ],
    "beyond/samplers": [
        ("np.round(np.linspace(T, 0, steps + 1))", "np.floor(np.linspace(T - 1, 0, steps + 1))"),
        ("np.sqrt(1 - ab[s] - sigma**2)", "np.sqrt(1 - ab[s])"),
        ("(1 - ab[s]) / (1 - ab[t]) * (1 - ab[t] / ab[s])",
         "(1 - ab[t]) / (1 - ab[s] + 1e-9) * (1 - ab[t] / ab[s])"),
        ("    return x0_hat, eps_from_x0(schedule, x, t, x0_hat)\n",
         "    return x0_hat, eps_hat\n"),
        ("        if sigma > 0:\n", "        if False:\n"),
        ("x = c_x0 * x0_hat + c_eps * eps_hat", "x = c_x0 * x0_hat - c_eps * eps_hat"),
        ("coefficients = 1 + beta / 2, -beta", "coefficients = 1 + beta, -beta"),
        ("-beta / np.sqrt(1 - ab[t])", "-beta / 2 / np.sqrt(1 - ab[t])"),
        (", np.sqrt(beta)\n", ", beta\n"),
        ("        beta = 1 - ab[t] / ab[s]\n", "        beta = 1 - ab[t]\n"),
        ("        if s > 0:\n            x = x + c_z", "        if True:\n            x = x + c_z"),
        ("(eps(x, t) - x * noise[t]) / signal[t]", "(eps(x, t) + x * noise[t]) / signal[t]"),
        ("(eps(x, t) - x * noise[t]) / signal[t]", "eps(x, t) - x * noise[t]"),
        ("v = (v + velocity(x + v * step, s)) * 0.5", "v = velocity(x + v * step, s)"),
        ("velocity(x + v * step, s)", "velocity(x - v * step, s)"),
        ("    step = angle[s] - angle[t]\n", "    step = angle[t] - angle[s]\n"),
        ("ddim_timesteps(schedule.T, steps)[::-1]", "ddim_timesteps(schedule.T, steps)[:0:-1]"),
        ("tape.backward(end, each_number)", "tape.backward(end)"),
        ("return log_det - 0.5 *", "return -log_det - 0.5 *"),
        ("(x_T**2 + np.log(2 * np.pi))", "(x_T**2 + np.log(np.pi))"),
        ("[schedule.noise[t], size / 2,", "[schedule.noise[t], size,"),
        ("size / 2, np.sqrt(size)]", "size / 2, size]"),
        ("    yield denoised(schedule, eps_theta, x, t, cond, clip)[0]\n", "    yield x\n"),
        ("eps_theta, x, t - 1, cond, rng, size", "eps_theta, x, t, cond, rng, size"),
        ("repeats if t > 1 else 0", "repeats if t > 2 else 0"),
    ],
    "beyond/guidance": [
        ("eps_hat * (1 + self.scale) - ", "eps_hat * self.scale - "),
        ("(x_t, t, 0 * cond) * self.scale", "(x_t, t, cond) * self.scale"),
        ("return self.guided(eps_hat, x_t, t, cond), v", "return eps_hat, v"),
        ("Tensor(eps_hat.data + gather(", "Tensor(eps_hat.data - gather("),
        ("self.schedule.noise, t, x_t)", "self.schedule.noise**2, t, x_t)"),
        ("self.cost(x0_from_eps(self.schedule, x, t, eps_hat))", "self.cost(x)"),
        ("eps_hat = self.eps_theta(x, t, cond)",
         "eps_hat = Tensor(self.eps_theta(x, t, cond).data)"),
        ("return self(x_t, t, cond), self", "return self.eps_theta(x_t, t, cond), self"),
        ("q_sample(schedule, given, t - 1,", "q_sample(schedule, given, t,"),
        ("np.where(mask, noised, x)", "np.where(mask, x, noised)"),
        ("            if again:\n", "            if False:\n"),
        ("x = q_step(schedule, x, t,", "x = q_step(schedule, x, max(t - 1, 1),"),
        ("rng, variance, clip).data", "rng, variance).data"),
    ],
    "beyond/baselines": [
        ("[:, :1]\n    yield x0 if clip is None else np.clip(x0, -clip, clip)",
         "[:, :1]\n    yield x0"),
        ("x_T.shape[1], 1)\n    yield x0 if clip is None else np.clip(x0, -clip, clip)",
         "x_T.shape[1], 1)\n    yield x0"),
        ("s * x_T\n    yield x0 if clip is None else np.clip(x0, -clip, clip)",
         "s * x_T\n    yield x0"),
        ("mse(network_output(eps_theta, x0.shape[1:], cond), x0)",
         "mse(network_output(eps_theta, x0.shape[1:], 0 * cond), x0)"),
        ("nothing = np.zeros(", "nothing = np.ones("),
        ("eps_theta.embedding[0]", "eps_theta.embedding[1]"),
        ("dtype=x_T.dtype)[:, :1]", "dtype=x_T.dtype)"),
        ("logit - log_sum_exp(logit)", "logit"),
        ("exp(log_s * -2.0) * 0.5", "exp(log_s * -1.0) * 0.5"),
        ("- log_s * float(n)", "- log_s"),
        ("* (-1 / x0.size)", "* (1 / x0.size)"),
        (".sum(2) / np.exp(log_w))", ".sum(2) * np.exp(log_w))"),
        ("((normal ** 2).sum(2)", "(np.abs(normal).sum(2)"),
        ("np.float32(spread) * s * x_T", "np.float32(spread) * x_T"),
    ],
    "beyond/__init__": [
        ("name = sampler or fitting[0]", "name = sampler or fitting[-1]"),
        ("    if name not in fitting:\n", "    if False:\n"),
        ('options.get("variance") == "learned" and config.outputs != 2', "False"),
        ("if guidance and not config.drop_cond:", "if False:"),
        ("        changes[\"action_horizon\"] = action_horizon\n", "        pass\n"),
        ("ClassifierFree(policy.eps_theta, guidance)", "ClassifierFree(policy.eps_theta, 1.0)"),
        ("functools.partial(function, **options)", "functools.partial(function)"),
        ("        if option not in takes:\n", "        if False:\n"),
    ],
    "pusht/features": [
        ("    x = x * np.copysign", "    np.copysign"),
        ("np.hstack([-np.sin(angle), np.cos(angle)])", "np.hstack([np.sin(angle), np.cos(angle)])"),
        ("np.stack([x, y], 2)", "np.stack([x, y], 1)"),
        ("side = np.sign(", "side = np.abs("),
        ("turn = side * (GOAL_POSE[2] - angle)", "turn = GOAL_POSE[2] - angle"),
        ("(GOAL_POSE[2] - angle)", "(angle - GOAL_POSE[2])"),
        ("parts.append(side * turned)", "parts.append(turned)"),
        ("along(axes, agent - earlier[:, :2])", "agent - earlier[:, :2]"),
        ("along(axes, block - earlier[:, 2:4])", "block - earlier[:, 2:4]"),
        ("to_agent[:, None] - KEYPOINTS", "agent[:, None] - KEYPOINTS"),
        ("np.hstack([to_goal, turn])) - KEYPOINTS", "np.hstack([to_goal, turn]))"),
        ("corners_to_agent], 1) / 15)", "corners_to_agent], 1) / 16)"),
        ("np.arctan2(np.sin(difference), np.cos(difference))", "difference"),
    ],
}


def chosen(names=tuple(MUTANTS)):
    """All defects of these files, as (name, old, new)."""
    mutants = []
    for name in names:
        mutants += [(name, old, new) for old, new in MUTANTS[name]]
    return mutants


def planted(text, old, new):
    """A file's text with the defect. RuntimeError unless its place is there, and there alone."""
    if text.count(old) != 1:
        raise RuntimeError(f"this occurs {text.count(old)} times, not once: {old!r}")
    return text.replace(old, new)


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


def hunt(every=1, names=tuple(MUTANTS), show=print):
    """Plant every n-th defect of these files; -> the survivors, as (name, old, new).

    RuntimeError if the suite fails without any.
    """
    mutants = chosen(names)[::every]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        for part in COPIED:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, Path(folder) / part)
        for name in dict.fromkeys(name for name, _, _ in mutants):  # the control
            if not suite_passes(folder, name):
                raise RuntimeError(f"the tests of {name}.py fail as it is, so they tell nothing")
        for k, (name, old, new) in enumerate(mutants, start=1):
            path = source(folder, name)
            text = path.read_text(encoding="utf-8")
            path.write_text(planted(text, old, new), encoding="utf-8")
            survives = suite_passes(folder, name)
            path.write_text(text, encoding="utf-8")
            result = "SURVIVES" if survives else "found"
            show(f"{k}/{len(mutants)} {result}  {name}: {old.strip()!r} -> {new.strip()!r}")
            if survives:
                survivors.append((name, old, new))
    return survivors


if __name__ == "__main__":
    every = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    left = hunt(every, sys.argv[2:] or tuple(MUTANTS))
    sys.exit(f"{len(left)} survive" if left else 0)
