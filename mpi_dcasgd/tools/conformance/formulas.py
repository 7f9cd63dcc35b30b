"""Formulas of the built-in parts in NumPy, written from their papers and not from the parts.

Nothing of ``mpi_dcasgd.rules`` is imported here, and defaults are written out again, so that a
sign, a factor or a default that is wrong there differs from what is here. Each takes one push in
the letters of docs/algorithms.md (``OnePush``) and the part's settings by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mpi_dcasgd.tools.conformance.formula import OnePush, Vector


def as_it_is(p: OnePush) -> Vector:
    """The parts called none."""
    return p.d


def clip_norm(p: OnePush, max_norm: float = 1.0) -> Vector:
    """Pascanu et al. 2013, Algorithm 1."""
    return p.g * (max_norm / p.norm) if p.norm >= max_norm else p.g


def l2(p: OnePush, rate: float = 0.0) -> Vector:
    """Gradient of rate |w|^2 / 2, added to the direction."""
    return p.d + rate * p.w


def dc_constant(p: OnePush, dc_lambda: float = 0.04) -> Vector:
    """Zheng et al. 2017, eq. 10 with a constant lambda_t."""
    return p.d + dc_lambda * p.g**2 * (p.w - p.w_bak)


def dc_adaptive(
    p: OnePush,
    dc_lambda: float = 2.0,
    decay: float = 0.95,
    eps: float = 1e-7,
    mean_square: str = "global",
) -> Vector:
    """Zheng et al. 2017, eq. 10 and 14: lambda_t = lambda_0 / sqrt(MeanSquare + eps)."""
    whose = p.m if mean_square == "per_worker" else "server"
    square = decay * p.state.get(whose, np.zeros_like(p.w)) + (1 - decay) * p.g**2
    p.state[whose] = square
    lambda_t: Vector = dc_lambda / np.sqrt(square + eps)
    return p.d + lambda_t * p.g**2 * (p.w - p.w_bak)


def _velocity(p: OnePush, whose: Any, momentum: float, intake: float = 1.0) -> Vector:
    p.state[whose] = momentum * p.state.get(whose, np.zeros_like(p.w)) + intake * p.d
    velocity: Vector = p.state[whose]
    return velocity


def heavy_ball(p: OnePush, momentum: float = 0.9, dampening: float = 0.0) -> Vector:
    """Polyak 1964, one buffer at the server."""
    return _velocity(p, "server", momentum, 1 - dampening)


def nesterov(p: OnePush, momentum: float = 0.9) -> Vector:
    """Sutskever et al. 2013, in terms of the look-ahead point."""
    return p.d + momentum * _velocity(p, "server", momentum)


def per_worker(p: OnePush, momentum: float = 0.9, dampening: float = 0.0) -> Vector:
    """The step of momentum SGD that the worker would make itself."""
    return _velocity(p, p.m, momentum, 1 - dampening)


def shifted(p: OnePush, momentum: float = 0.9) -> Vector:
    """Giladi et al. 2020: v_{t+1} = m v_{t - tau} + (1 - m) g.

    v_{t - tau} is what the same worker's last push made.
    """
    return _velocity(p, p.m, momentum, 1 - momentum)


def dana_zero(
    p: OnePush, momentum: float = 0.9
) -> tuple[Vector, Callable[[Vector, float], Vector]]:
    """Hakimi et al. 2019, DANA-Zero: sends theta - eta gamma sum_j v_j."""
    mine, all_of_them = _velocity(p, p.m, momentum), p.state
    return mine, lambda w, eta: w - eta * momentum * sum(all_of_them.values())


def dana_slim(p: OnePush, momentum: float = 0.9) -> Vector:
    """Hakimi et al. 2019, DANA-Slim: u = gamma v + g with v = gamma v + g."""
    return momentum * _velocity(p, p.m, momentum) + p.d


def gap_aware(p: OnePush, momentum: float = 0.9, decay: float = 0.999, eps: float = 1e-8) -> Vector:
    """Barkai et al. 2020: g / Gap into the momentum, Gap = 1 + |w - w_bak| / C.

    C is the largest rate times the root mean square of all velocities before, each weighted by
    ``decay`` to the power of its age.
    """
    velocities: list[Vector] = p.state.setdefault("velocities", [])
    gap, last = np.ones_like(p.w), np.zeros_like(p.w)
    if velocities and p.eta_max > 0:
        ages = decay ** np.arange(len(velocities) - 1, -1, -1.0)
        mean_square = np.tensordot(ages, np.square(velocities), 1) / ages.sum()
        gap = 1 + np.abs(p.w - p.w_bak) / (p.eta_max * (np.sqrt(mean_square) + eps))
    if velocities:
        last = velocities[-1]
    velocities.append(momentum * last + p.d / gap)
    return velocities[-1]


def adam(p: OnePush, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Vector:
    """Kingma and Ba 2015, Algorithm 1."""
    n = p.t + 1
    p.state["m"] = beta1 * p.state.get("m", 0.0) + (1 - beta1) * p.d
    p.state["v"] = beta2 * p.state.get("v", 0.0) + (1 - beta2) * p.d**2
    m_hat = p.state["m"] / (1 - beta1**n)
    v_hat = p.state["v"] / (1 - beta2**n)
    direction: Vector = m_hat / (np.sqrt(v_hat) + eps)
    return direction


def whole_rate(p: OnePush) -> float:
    """The schedule's rate."""
    return 1.0


def staleness_aware(p: OnePush) -> float:
    """Zhang et al. 2016: eta / tau; a fresh gradient takes eta."""
    return 1 / p.tau if p.tau else 1.0


def stability_preserving(
    p: OnePush, form: str = "exact", delay: str = "nominal"
) -> tuple[float, float]:
    """Giladi et al. 2020: eta / sin(pi / (2 (2 tau + 1))) is the same for all delays."""
    tau = p.M - 1 if delay == "nominal" else p.tau
    if form == "exact":
        factor = math.sin(math.pi / (2 * (2 * tau + 1)))
    else:
        factor = math.pi / (4 * tau) if tau else 1.0
    return factor, factor if delay == "nominal" else 1.0


def delay_adaptive(p: OnePush) -> float:
    """Mishchenko et al. 2022: eta M / max(M, tau)."""
    return p.M / max(p.M, p.tau)


def concurrency_aware(p: OnePush, concurrency: int | None = None, beyond: str = "scale") -> float:
    """Koloskova et al. 2022, eq. 11, with eta tau_C / tau or nothing beyond tau_C."""
    tau_c = concurrency or p.M
    if p.tau <= tau_c:
        return 1.0
    return tau_c / p.tau if beyond == "scale" else 0.0


def accept_all(p: OnePush) -> str:
    """Asynchronous SGD."""
    return "apply"


def threshold(p: OnePush, threshold: int | None = None) -> str:
    """Maranjyan et al. 2025: apply iff tau < R."""
    return "apply" if p.tau < (threshold or 2 * p.M) else "drop"


def collect(p: OnePush, gradients: int | None = None) -> str | tuple[str, int]:
    """Tyurin and Richtarik 2023: a step along the mean of B gradients at the weights of now."""
    return ("hold", gradients or p.M) if p.tau == 0 else "drop"


def stale_synchronous(p: OnePush, bound: int = 3) -> tuple[str, Callable[[int, int], bool]]:
    """Ho et al. 2013: a worker at clock c goes on iff c - min(clocks) <= s."""
    return "apply", lambda clock, lowest: clock - lowest <= bound


FORMULAS: dict[str, dict[str, Callable[..., Any]]] = {
    "admission": {
        "all": accept_all,
        "threshold": threshold,
        "collect": collect,
        "ssp": stale_synchronous,
    },
    "clipping": {"none": as_it_is, "norm": clip_norm},
    "weight_decay": {"l2": l2},
    "compensation": {"none": as_it_is, "dc-constant": dc_constant, "dc-adaptive": dc_adaptive},
    "momentum": {
        "none": as_it_is,
        "heavy-ball": heavy_ball,
        "nesterov": nesterov,
        "shifted": shifted,
        "per-worker": per_worker,
        "dana": dana_zero,
        "dana-slim": dana_slim,
        "gap-aware": gap_aware,
        "adam": adam,
    },
    "step_size": {
        "constant": whole_rate,
        "staleness-aware": staleness_aware,
        "stability-preserving": stability_preserving,
        "delay-adaptive": delay_adaptive,
        "concurrency-aware": concurrency_aware,
    },
}
"""Every built-in part's formula, by role and by the name that jobs use."""
