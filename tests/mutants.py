"""The suite under test: plant one defect at a time in a copy of the method, and see the suite find it.

    python tests/mutants.py              all of them, a few seconds each; exit status 1 if one survives
    python tests/mutants.py 5            every fifth, as tests/test_mutants.py does

Each mutant is a file, a piece of its text that occurs once, and what to put in its place: slips of sign and index,
missing roots and factors, detached gradients, the bugs of published code. Only the tests that prove that file are run.
"""
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = {"tensor": "autograd", "layers": "autograd networks", "nn": "networks", "optim": "optim",
         "diffusion": "forward_process reverse_process objective bound", "samplers": "samplers", "guidance": "guidance",
         "baselines": "baselines", "demos": "demos", "pusht/features": "demos"}

MUTANTS = {
    "tensor": [
        ("lambda g: (g, -g))", "lambda g: (g, g))"),
        ("lambda g: (g * b.data, g * a.data))", "lambda g: (g * a.data, g * b.data))"),
        ("-g * y / b.data))", "g * y / b.data))"),
        ("(g / b.data, -g", "(g * b.data, -g"),
        ("return record(y, (a,), lambda g: (g * y,))", "return record(y, (a,), lambda g: (g * a.data,))"),
        ("lambda g: (g / a.data,))", "lambda g: (g * a.data,))"),
        ("d = 1 - s  #", "d = 1 + s  #"),
        ("        d *= y\n", ""),
        ("lambda g: (g / (2 * y),))", "lambda g: (g / y,))"),
        ("lambda g: (g * (y == a.data),))", "lambda g: (g,))"),
        ("x.grad = g if x.grad is None else x.grad + g", "x.grad = g"),
        ("                if x.needs_grad:\n                    g = _sum_to", "                if True:\n                    g = _sum_to"),
        ("    g = g.sum(axis=tuple(range(g.ndim - len(shape))))\n", "    g = g.mean(axis=tuple(range(g.ndim - len(shape))))\n"),
        ("if n == 1 and g.shape[i] != 1), keepdims=True)", "if n == 1 and g.shape[i] != 1), keepdims=False)"),
        ("while self._entries:\n            out, inputs, backward = self._entries.pop()",
         "while self._entries:\n            out, inputs, backward = self._entries.pop(0)"),
        ("        _open.tape = self._outer\n", "        _open.tape = None\n"),
        ("_open = threading.local()", "_open = type('Open', (), {})()"),
        ("        if axis is not None and not keepdims:\n            g = np.expand_dims(g, axis)\n", ""),
        ("lambda g: (g.swapaxes(i, j),))", "lambda g: (g.swapaxes(i, j).copy() * 0.5,))"),
        ("        out[index] = g\n", "        out[index] = 1\n"),
        ("np.cumsum([x.shape[axis] for x in xs])[:-1]", "np.cumsum([x.shape[axis] for x in xs])[1:]"),
        ("np.asarray(x, like.dtype) if np.isscalar(x)", "np.asarray(x) if np.isscalar(x)"),
    ],
    "layers": [
        ("return gx, rows.T @ g, g.sum(0)", "return gx, rows.T @ g, g.mean(0)"),
        ("gx = (g @ W.data.T).reshape(x.shape) if x.needs_grad else None\n        return gx, rows",
         "gx = None\n        return gx, rows"),
        ("    y += b.data\n    y = y.reshape(H", "    y = y.reshape(H"),
        ("taps = [(j, slice(max(0, middle - j), H + min(0, middle - j)), slice(max(0, j - middle), H + min(0, j - middle)))",
         "taps = [(j, slice(max(0, j - middle), H + min(0, j - middle)), slice(max(0, middle - j), H + min(0, middle - j)))"),
        ("            gW[j] = ", "            gW[-1 - j] = "),
        ("if x.needs_grad and j != middle:", "if x.needs_grad:"),
        ("return gx, gW, _rows(g).sum(0)", "return gx, gW, _rows(g).sum(0) * H"),
        ("rstd = 1 / np.sqrt(_row_dot(xhat, xhat) / n + eps)", "rstd = 1 / (_row_dot(xhat, xhat) / n + eps)"),
        ("        gx -= xhat * (_row_dot(gxhat, xhat) / n)\n", ""),
        ("gx = gxhat - gxhat @ average", "gx = gxhat.copy()"),
        ("rstd = (var + eps) ** -0.5", "rstd = (var + eps) ** -1"),
        ("    y += bias.data - mean * scale", "    y += bias.data"),
        ("- mean * gbias) * rstd", ") * rstd"),
        ("        gx += mean * c - over_group(gain.data * gbias) * rstd\n", ""),
        ("weighted_g = weighted * (2 * g / error.size)", "weighted_g = weighted * (g / error.size)"),
        ("return weighted_g, -weighted_g", "return weighted_g, weighted_g"),
        ("y = np.asarray(weighted.ravel() @ error.ravel() / error.size)",
         "y = np.asarray(weighted.ravel() @ weighted.ravel() / error.size)"),
    ],
    "nn": [
        ("return x_t * self.noise[t] + F * self.signal[t]", "return x_t * self.signal[t] + F * self.noise[t]"),
        ("self.net(x_t * self.gain[t]", "self.net(x_t"),
        ("F[..., :D], F[..., D:] * 0.5 + 0.5", "F[..., D:], F[..., :D] * 0.5 + 0.5"),
        ("F[..., D:] * 0.5 + 0.5", "F[..., D:] * 0.5"),
        ("np.sqrt(alpha_bar) / (alpha_bar + 4 * (1 - alpha_bar))", "np.sqrt(alpha_bar) / (alpha_bar + (1 - alpha_bar))"),
        ("tables = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)", "tables = alpha_bar, np.sqrt(1 - alpha_bar)"),
        ("np.broadcast_to(self.embedding[t]", "np.broadcast_to(self.embedding[t - 1]"),
        ("/ np.sqrt(np.prod(shape[:-1]))", "/ np.prod(shape[:-1])"),
        ("            h = h + block(i, h)\n", "            h = block(i, h)\n"),
        ("r = silu(groupnorm(r, 1 + gain_2, bias_2, self.groups))", "r = silu(groupnorm(r, gain_2, bias_2, self.groups))"),
        ("            part[:] = 1\n", "            part[:] = 0\n"),
        ("return np.concatenate([np.sin(phase), np.cos(phase)], 1)", "return np.concatenate([np.sin(phase), np.sin(phase)], 1)"),
    ],
    "optim": [
        ("            m += (1 - b1) * g\n", "            m += g\n"),
        ("            g *= 1 - b2\n", ""),
        ("root = lr / (1 - b1**self.n), 1 / math.sqrt(1 - b2**self.n)", "root = lr, 1 / math.sqrt(1 - b2**self.n)"),
        ("1 / math.sqrt(1 - b2**self.n)", "1 / (1 - b2**self.n)"),
        ("            np.sqrt(v, out=g)\n", "            g[:] = v\n"),
        ("            g += self.eps\n", ""),
        ("theta *= 1 - lr * self.weight_decay", "theta *= 1 - self.weight_decay"),
        ("            theta *= 1 - lr * self.weight_decay\n", "            g += self.weight_decay * theta\n"),
        ("d = min(self.ema_decay, (1 + self.n) / (10 + self.n))", "d = self.ema_decay"),
        ("ema += (1 - d) * theta", "ema += d * theta"),
        ("        self.n += 1\n", ""),
        ("np.zeros_like(theta), theta.copy(), 0", "np.zeros_like(theta), np.zeros_like(theta), 0"),
        ("return peak * (step + 1) / warmup", "return peak * step / warmup"),
        ("peak * 0.5 * (1 + math.cos", "peak * (1 + math.cos"),
        ("        p.grad = None\n", "        pass\n"),
    ],
    "diffusion": [
        ("self.alpha_bar = np.cumprod(self.alpha)", "self.alpha_bar = np.cumprod(self.alpha) * (1 - beta[0])"),
        ("self.alpha_bar = np.cumprod(self.alpha)", "self.alpha_bar = np.concatenate([self.alpha[1:], [0.0]]).cumprod()"),
        ("np.sqrt(self.alpha_bar), np.sqrt(1 - self.alpha_bar)", "np.sqrt(self.alpha_bar), 1 - self.alpha_bar"),
        ("remaining = (1 - self.alpha_bar[t - 1]) / (1 - self.alpha_bar[t])",
         "remaining = (1 - self.alpha_bar[t]) / (1 - self.alpha_bar[t - 1] + 1e-9)"),
        ("self.c_x0 = _table(1, np.sqrt(self.alpha_bar[t - 1])", "self.c_x0 = _table(1, np.sqrt(self.alpha_bar[t])"),
        ("self.c_xt = _table(0, np.sqrt(self.alpha[t])", "self.c_xt = _table(0, self.alpha[t]"),
        ("np.linspace(1e-4, 0.02, T) * 1000 / T", "np.linspace(1e-4, 0.02, T)"),
        ("/ T + s) / (1 + s)) ** 2", "/ T + s) / (1 + s))"),
        ("return at(np.sqrt(1 - schedule.beta), t, x_prev) * x_prev + at(np.sqrt(schedule.beta)",
         "return at(np.sqrt(1 - schedule.beta), t, x_prev) * x_prev + at(schedule.beta"),
        ("return at(schedule.signal, t, x0) * x0, at(1 - schedule.alpha_bar", "return at(schedule.signal, t, x0) * x0, at(schedule.noise"),
        ("    return (x_t - at(schedule.noise, t, x_t) * eps) / at(schedule.signal, t, x_t)",
         "    return (x_t - at(schedule.noise, t, x_t) * eps) * at(schedule.signal, t, x_t)"),
        ("return eps / -at(schedule.noise, t, eps)", "return eps / at(schedule.noise, t, eps)"),
        ("return rng.integers(1, schedule.T + 1, batch)", "return rng.integers(1, schedule.T, batch)"),
        ("return rng.integers(1, schedule.T + 1, batch)", "return rng.integers(0, schedule.T, batch)"),
        ("return _table(0, weight / weight.mean())", "return _table(0, weight)"),
        ("np.minimum(s.snr[1:], 5) / s.snr[1:]", "np.minimum(s.snr[1:], 5)"),
        ("return mse(eps_theta(x_t, t, cond), eps, at(weight, t, x0))", "return mse(eps_theta(x_t, t, cond), eps, at(weight, t - 1, x0))"),
        ("        x0 = tn.clip(x0, -clip, clip)\n", "        pass\n"),
        ("{\"beta-tilde\": lambda s: s.beta_tilde, \"beta\": lambda s: s.beta}",
         "{\"beta-tilde\": lambda s: s.beta, \"beta\": lambda s: s.beta_tilde}"),
        ("sigma2 = tn.exp(v * (at(schedule.log_beta, t, x_t) - low) + low)",
         "sigma2 = tn.exp(v * (low - at(schedule.log_beta, t, x_t)) + at(schedule.log_beta, t, x_t))"),
        ("floor = self.beta_tilde[min(2, self.T)] or beta[0]", "floor = beta[0]"),
        ("        self.posterior_entropy[:2] = 0  # x_0 given x_0\n", ""),
        ("        x = x if isinstance(x_T, Tensor) else x.data\n", "        x = x.data\n"),
        ("(error * error + q_variance) / sigma2)", "error * error / sigma2)"),
        ("return tn.sum(terms) * (schedule.T / terms.data.size)", "return tn.sum(terms) * (1 / terms.data.size)"),
        ("(Tensor(seen.data), v))", "(seen, v))"),
        ("return mse(seen, eps, at(weight, t, x0)) + tn.sum", "return mse(seen, eps) + tn.sum"),
        ("(share * schedule.T / terms.data.size)", "(share / terms.data.size)"),
        ("return rng.standard_normal(shape, dtype=dtype)", "return rng.uniform(-1.7, 1.7, shape).astype(dtype)"),
        ("for t in range(schedule.T, 0, -1):", "for t in range(schedule.T, 1, -1):"),
        ("for t in range(schedule.T, 0, -1):", "for t in range(schedule.T - 1, 0, -1):"),
        ("if t > 1 else mean", "if t > 0 else mean"),
        ("return mean + tn.sqrt(var) *", "return mean + var *"),
        ("return 0.5 * (ratio - 1 - np.log(ratio)", "return 0.5 * (ratio - 1 + np.log(ratio)"),
        ("schedule.beta[1:]**2 / (2 * sigma2", "schedule.beta[1:]**2 / (sigma2"),
        ("t, cond, variance).data.mean() for t in range(1, schedule.T + 1)]",
         "t, cond, variance).data.mean() for t in range(1, schedule.T)]"),
    ],
    "samplers": [
        ("np.round(np.linspace(T, 0, steps + 1))", "np.floor(np.linspace(T - 1, 0, steps + 1))"),
        ("np.sqrt(1 - ab[s] - sigma**2)", "np.sqrt(1 - ab[s])"),
        ("sigma = eta * np.sqrt((1 - ab[s]) / (1 - ab[t]) * (1 - ab[t] / ab[s]))",
         "sigma = eta * np.sqrt((1 - ab[t]) / (1 - ab[s] + 1e-9) * (1 - ab[t] / ab[s]))"),
        ("    return x0, eps_from_x0(schedule, x, t, x0)\n", "    return x0, eps\n"),
        ("        if sigma > 0:\n", "        if False:\n"),
        ("        x = c_x0 * x0 + c_eps * eps\n", "        x = c_x0 * x0 - c_eps * eps\n"),
        ("[1 + beta / 2, -beta / np.sqrt(1 - ab[t]), np.sqrt(beta)]", "[1 + beta, -beta / np.sqrt(1 - ab[t]), np.sqrt(beta)]"),
        ("[1 + beta / 2, -beta / np.sqrt(1 - ab[t]), np.sqrt(beta)]", "[1 + beta / 2, -beta / 2 / np.sqrt(1 - ab[t]), np.sqrt(beta)]"),
        ("[1 + beta / 2, -beta / np.sqrt(1 - ab[t]), np.sqrt(beta)]", "[1 + beta / 2, -beta / np.sqrt(1 - ab[t]), beta]"),
        ("        beta = 1 - ab[t] / ab[s]\n", "        beta = 1 - ab[t]\n"),
        ("        if s > 0:\n            x = x + c_z", "        if True:\n            x = x + c_z"),
        ("(eps(x, t) - x * noise[t]) / signal[t]", "(eps(x, t) + x * noise[t]) / signal[t]"),
        ("(eps(x, t) - x * noise[t]) / signal[t]", "eps(x, t) - x * noise[t]"),
        ("v = (v + velocity(x + v * step, s)) * 0.5", "v = velocity(x + v * step, s)"),
        ("v = (v + velocity(x + v * step, s)) * 0.5", "v = (v + velocity(x - v * step, s)) * 0.5"),
        ("    step = angle[s] - angle[t]\n", "    step = angle[t] - angle[s]\n"),
        ("ddim_timesteps(schedule.T, steps)[::-1]", "ddim_timesteps(schedule.T, steps)[:0:-1]"),
        ("        tape.backward(end, each_number)\n", "        tape.backward(end)\n"),
        ("    return log_det - 0.5 * (x_T**2 + np.log(2 * np.pi)).sum(1)", "    return -log_det - 0.5 * (x_T**2 + np.log(2 * np.pi)).sum(1)"),
        ("    return log_det - 0.5 * (x_T**2 + np.log(2 * np.pi)).sum(1)", "    return log_det - 0.5 * (x_T**2 + np.log(np.pi)).sum(1)"),
        ("[schedule.noise[t], size / 2,", "[schedule.noise[t], size,"),
        ("size / 2, np.sqrt(size)]", "size / 2, size]"),
        ("    yield denoised(schedule, eps_theta, x, t, cond, clip)[0]\n", "    yield x\n"),
        ("langevin_step(schedule, eps_theta, x, t - 1, cond", "langevin_step(schedule, eps_theta, x, t, cond"),
        ("repeats if t > 1 else 0", "repeats if t > 2 else 0"),
    ],
    "guidance": [
        ("* (1 + scale) - ", "* scale - "),
        ("eps_theta(x_t, t, 0 * cond) * scale", "eps_theta(x_t, t, cond) * scale"),
        ("seen.data + at(scale * schedule.noise", "seen.data - at(scale * schedule.noise"),
        ("at(scale * schedule.noise, t, x_t)", "at(scale * schedule.noise**2, t, x_t)"),
        ("cost(x0_from_eps(schedule, x, t, seen))", "cost(x)"),
        ("seen = eps_theta(x, t, cond)", "seen = Tensor(eps_theta(x, t, cond).data)"),
        ("q_sample(schedule, known, t - 1,", "q_sample(schedule, known, t,"),
        ("x = np.where(mask, settled, x)", "x = np.where(mask, x, settled)"),
        ("            if again:\n", "            if False:\n"),
        ("x = q_step(schedule, x, t,", "x = q_step(schedule, x, max(t - 1, 1),"),
        ("x = p_sample(schedule, eps_theta, x, t, cond, rng, variance, clip).data", "x = p_sample(schedule, eps_theta, x, t, cond, rng, variance).data"),
    ],
    "baselines": [
        ("offset for a whole plan, to make candidates of it.\"\"\"\n    x0 = answer(eps_theta, x_T.shape[1:], cond).data",
         "offset for a whole plan, to make candidates of it.\"\"\"\n    clip, x0 = None, answer(eps_theta, x_T.shape[1:], cond).data"),
        ("return mse(answer(eps_theta, x0.shape[1:], cond), x0)", "return mse(answer(eps_theta, x0.shape[1:], 0 * cond), x0)"),
        ("nothing = np.zeros(", "nothing = np.ones("),
        ("dtype=x_T.dtype)[:, :1]", "dtype=x_T.dtype)"),
        ("logit - log_sum_exp(logit)", "logit"),
        ("exp(log_s * -2.0) * 0.5", "exp(log_s * -1.0) * 0.5"),
        ("- log_s * float(n)", "- log_s"),
        ("return sum(log_sum_exp(log_p)) * (-1 / x0.size)", "return sum(log_sum_exp(log_p)) * (1 / x0.size)"),
        (" / np.exp(log_w)\n", " * np.exp(log_w)\n"),
        ("times = (rng.standard_normal((B, K, 2), dtype=x_T.dtype) ** 2)", "times = np.abs(rng.standard_normal((B, K, 2), dtype=x_T.dtype))"),
    ],
    "demos": [
        ("@ axes / self.scale", "@ axes.swapaxes(1, 2) / self.scale"),
        ("@ axes.swapaxes(1, 2) + origin", "@ axes + origin"),
        ("np.arange(1 - obs_horizon, 1)", "np.arange(-obs_horizon, 0)"),
        ("np.arange(pred_horizon), last", "np.arange(1, pred_horizon + 1), last"),
        ("(offset.astype(np.float64) ** 2).mean((0, 2))", "(offset.astype(np.float64) ** 2).mean((0, 2)) * 2"),
        ("part.episode_ends + row", "part.episode_ends"),
    ],
    "pusht/features": [
        ("    x = x * np.copysign", "    np.copysign"),
        ("[-np.sin(angle), np.cos(angle)]", "[np.sin(angle), np.cos(angle)]"),
        ("np.stack([x, y], 2)", "np.stack([x, y], 1)"),
        ("side * (GOAL_POSE[2] - angle)", "GOAL_POSE[2] - angle"),
        ("(GOAL_POSE[2] - angle)", "(angle - GOAL_POSE[2])"),
        ("side * turned]", "turned]"),
        ("seen(agent - before[:, :2])", "agent - before[:, :2]"),
        ("to_agent = here[:, None]", "to_agent = agent[:, None]"),
        ("[to_goal, to_agent], 1) / 15", "[to_goal, to_agent], 1) / 16"),
    ],
}

def suite_passes(folder, name):
    """Whether the tests that prove minidiff/NAME.py pass in the copy in `folder`."""
    tests = [f"tests/test_{test}.py" for test in TESTS[name].split()]
    try:
        return subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", "--hypothesis-profile=hunt", *tests],
                              cwd=folder, timeout=300, capture_output=True).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def hunt(every=1, show=print):
    """Plant every n-th mutant; -> the survivors, as (name, old, new). RuntimeError if the suite fails without any."""
    chosen = [(name, old, new) for name, group in MUTANTS.items() for old, new in group][::every]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        for part in ("minidiff", "tests", "train.py", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, Path(folder) / part)
        for name in {name: None for name, _, _ in chosen}:  # the control
            if not suite_passes(folder, name):
                raise RuntimeError(f"the tests of {name}.py fail as it is, so they tell nothing about mutants")
        for k, (name, old, new) in enumerate(chosen):
            path = Path(folder) / "minidiff" / f"{name}.py"
            text = path.read_text()
            if text.count(old) != 1:
                raise RuntimeError(f"{name}.py: this occurs {text.count(old)} times, not once: {old!r}")
            path.write_text(text.replace(old, new))
            alive = suite_passes(folder, name)
            path.write_text(text)
            show(f"{k + 1}/{len(chosen)} {'SURVIVES' if alive else 'found'}  {name}: {old.strip()!r} -> {new.strip()!r}")
            if alive:
                survivors.append((name, old, new))
    return survivors


if __name__ == "__main__":
    left = hunt(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    sys.exit(f"{len(left)} survive" if left else 0)
