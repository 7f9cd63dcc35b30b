"""Every rule written once more, straight from its paper, in float64 numpy.

Nothing here comes from the package, and where a paper writes a rule in another way than the
package does, the paper's way is taken: velocities that contain the learning rate, histories that
are looked back into, workers that keep their own state, sums over all workers. test_references.py
drives a reference and the package with the same pushes and pulls and compares what workers are
sent.

A reference is pulled from and pushed to; ``able`` says who has something to push. ``lr`` maps
gradients taken in so far to the rate of the next update.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Rate = Callable[[int], float]


class Asgd:
    """Asynchronous SGD: w <- w - eta g, whatever the weights were that g was computed at."""

    def __init__(self, w0: Vector, num_workers: int, lr: Rate) -> None:
        self.M = num_workers
        self.lr = lr
        self.w = w0.copy()
        self.t = 0
        self.taken = 0
        self.born = [0] * num_workers  # version that a worker's gradient is computed at
        self.bak = [w0.copy() for _ in range(num_workers)]  # and the weights it was sent

    def able(self) -> list[int]:
        return list(range(self.M))

    def pull(self, m: int) -> Vector:
        return self.bak[m]

    def push(self, m: int, g: Vector) -> None:
        eta, tau = self.lr(self.taken), self.t - self.born[m]
        self.taken += 1
        self.update(m, g, eta, tau)
        self.send(m, eta)

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        self.w = self.w - eta * g
        self.t += 1

    def send(self, m: int, eta: float) -> None:
        self.bak[m] = self.w.copy()
        self.born[m] = self.t


class DcConstant(Asgd):
    """Zheng et al. 2017, eq. 10 with lambda_t = lambda_0."""

    def __init__(self, *world: Any, lam: float) -> None:
        super().__init__(*world)
        self.lam = lam

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        self.w = self.w - eta * (g + self.lam * g * g * (self.w - self.bak[m]))
        self.t += 1


class DcAdaptive(Asgd):
    """Zheng et al. 2017, eq. 10 and 14: lambda_t = lambda_0 / sqrt(MeanSquare + eps)."""

    def __init__(self, *world: Any, lam: float, decay: float, eps: float, per_worker: bool) -> None:
        super().__init__(*world)
        self.lam, self.decay, self.eps, self.per_worker = lam, decay, eps, per_worker
        self.ms = [np.zeros_like(self.w) for _ in range(self.M)]

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        which = m if self.per_worker else 0
        self.ms[which] = self.decay * self.ms[which] + (1 - self.decay) * g**2
        lam = self.lam / np.sqrt(self.ms[which] + self.eps)
        self.w = self.w - eta * (g + lam * g * g * (self.w - self.bak[m]))
        self.t += 1


class StalenessAware(Asgd):
    """Zhang et al. 2016: eta = eta_0 / tau; a fresh gradient takes eta_0."""

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        super().update(m, g, eta if tau == 0 else eta / tau, tau)


class Stable(Asgd):
    """Giladi et al. 2020: eta / sin(pi / (2 (2 tau + 1))) is the same for all delays."""

    def __init__(self, *world: Any, measured: bool, asymptotic: bool) -> None:
        super().__init__(*world)
        self.measured, self.asymptotic = measured, asymptotic

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        delay = tau if self.measured else self.M - 1
        if not self.asymptotic:
            eta *= math.sin(math.pi / (2 * (2 * delay + 1)))
        elif delay > 0:
            eta *= math.pi / 4 / delay
        super().update(m, g, eta, tau)


class Mishchenko(Asgd):
    """Mishchenko et al. 2022: eta_t = eta M / max(M, tau_t)."""

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        super().update(m, g, eta * self.M / max(self.M, tau), tau)


class Koloskova(Asgd):
    """Koloskova et al. 2022, eq. 11, with eta tau_C / tau or 0 beyond tau_C."""

    def __init__(self, *world: Any, tau_c: int | None, drop: bool) -> None:
        super().__init__(*world)
        self.tau_c, self.drop = tau_c or self.M, drop

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        if tau > self.tau_c:
            eta = 0.0 if self.drop else eta * self.tau_c / tau
        super().update(m, g, eta, tau)


class GapAware(Asgd):
    """Barkai et al. 2020: g / Gap into the momentum, Gap = 1 + |w - w_bak| / C.

    C is the largest rate times the root mean square of the velocities of all updates before,
    each weighted by ``memory`` to the power of its age: the weighted mean, written as one.
    """

    def __init__(self, *world: Any, gamma: float, memory: float, eps: float) -> None:
        super().__init__(*world)
        self.gamma, self.memory, self.eps = gamma, memory, eps
        self.velocities: list[Vector] = []
        self.rates: list[float] = []

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        self.rates.append(eta)
        last = np.zeros_like(self.w)
        if self.velocities:
            ages = range(len(self.velocities) - 1, -1, -1)
            weights = [self.memory**age for age in ages]
            squares = [x * v**2 for x, v in zip(weights, self.velocities, strict=True)]
            c = max(self.rates) * (np.sqrt(sum(squares) / sum(weights)) + self.eps)
            g = g / (1 + np.abs(self.w - self.bak[m]) / c)
            last = self.velocities[-1]
        self.velocities.append(self.gamma * last + g)
        self.w = self.w - eta * self.velocities[-1]
        self.t += 1


class HeavyBall(Asgd):
    """w_{t+1} = w_t - eta sum_k mu^(t-k) (1 - dampening) g_k, as the sum that momentum is."""

    def __init__(self, *world: Any, mu: float, dampening: float = 0.0) -> None:
        super().__init__(*world)
        self.mu, self.intake = mu, 1 - dampening
        self.past: list[Vector] = []

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        self.past.append(g)
        n = len(self.past)
        self.w = self.w - eta * self.intake * sum(
            self.mu ** (n - 1 - k) * old for k, old in enumerate(self.past)
        )
        self.t += 1


class NagAsgd(Asgd):
    """Nesterov at the server, constant eta: v <- mu v + g; theta <- theta - eta v;
    sends theta - eta mu v."""

    def __init__(self, *world: Any, mu: float) -> None:
        super().__init__(*world)
        self.mu = mu
        self.v = np.zeros_like(self.w)

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        self.v = self.mu * self.v + g
        self.w = self.w - eta * self.v
        self.t += 1

    def send(self, m: int, eta: float) -> None:
        self.bak[m] = self.w - eta * self.mu * self.v
        self.born[m] = self.t


class Shifted(Asgd):
    """Giladi et al. 2020: v_{t+1} = m v_{t-tau} + (1 - m) g_{t-tau}; w_{t+1} = w_t - eta v_{t+1}.

    The whole history of v is kept, and looked back into by the delay of the gradient.
    """

    def __init__(self, *world: Any, mu: float) -> None:
        super().__init__(*world)
        self.mu = mu
        self.history = [np.zeros_like(self.w)]

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        self.history.append(self.mu * self.history[self.t - tau] + (1 - self.mu) * g)
        self.w = self.w - eta * self.history[-1]
        self.t += 1


class WorkersStep(Asgd):
    """Every worker runs momentum SGD with a buffer of its own and pushes the step it would make,
    constant eta; the server adds it."""

    def __init__(self, *world: Any, mu: float, dampening: float) -> None:
        super().__init__(*world)
        self.mu, self.intake = mu, 1 - dampening
        self.steps = [np.zeros_like(self.w) for _ in range(self.M)]

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        self.steps[m] = self.mu * self.steps[m] - eta * self.intake * g
        self.w = self.w + self.steps[m]
        self.t += 1


class DanaZero(Asgd):
    """Hakimi et al. 2019, DANA-Zero: sends theta - eta gamma sum_j v_j."""

    def __init__(self, *world: Any, gamma: float) -> None:
        super().__init__(*world)
        self.gamma = gamma
        self.v = [np.zeros_like(self.w) for _ in range(self.M)]

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        self.v[m] = self.gamma * self.v[m] + g
        self.w = self.w - eta * self.v[m]
        self.t += 1

    def send(self, m: int, eta: float) -> None:
        self.bak[m] = self.w - eta * self.gamma * sum(self.v)
        self.born[m] = self.t


class DanaSlim(Asgd):
    """Hakimi et al. 2019, DANA-Slim: worker m keeps v and pushes u = gamma v + g."""

    def __init__(self, *world: Any, gamma: float) -> None:
        super().__init__(*world)
        self.gamma = gamma
        self.v = [np.zeros_like(self.w) for _ in range(self.M)]

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        self.v[m] = self.gamma * self.v[m] + g
        u = self.gamma * self.v[m] + g
        self.w = self.w - eta * u
        self.t += 1


class DanaDc(DanaSlim):
    """Hakimi et al. 2019, DANA-DC: the gradient is compensated first."""

    def __init__(self, *world: Any, gamma: float, lam: float) -> None:
        super().__init__(*world, gamma=gamma)
        self.lam = lam

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        super().update(m, g + self.lam * g * g * (self.w - self.bak[m]), eta, tau)


class AdamW(Asgd):
    """Kingma and Ba 2015, Algorithm 1, and Loshchilov and Hutter 2019, Algorithm 2."""

    def __init__(
        self, *world: Any, betas: tuple[float, float], eps: float, decay: float = 0.0
    ) -> None:
        super().__init__(*world)
        self.betas, self.eps, self.decay = betas, eps, decay
        self.m = np.zeros_like(self.w)
        self.v = np.zeros_like(self.w)

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        b1, b2 = self.betas
        self.t += 1
        self.m = b1 * self.m + (1 - b1) * g
        self.v = b2 * self.v + (1 - b2) * g**2
        m_hat = self.m / (1 - b1**self.t)
        v_hat = self.v / (1 - b2**self.t)
        self.w = self.w - eta * (m_hat / (np.sqrt(v_hat) + self.eps) + self.decay * self.w)


class Ringmaster(Asgd):
    """Maranjyan et al. 2025: apply iff tau < R, else forget the gradient."""

    def __init__(self, *world: Any, limit: int | None) -> None:
        super().__init__(*world)
        self.limit = 2 * self.M if limit is None else limit

    def push(self, m: int, g: Vector) -> None:
        if self.t - self.born[m] < self.limit:
            super().push(m, g)
        else:
            self.send(m, 0.0)


class Rennala(Asgd):
    """Tyurin and Richtarik 2023: S gradients at the weights of now, from anyone, then a step."""

    def __init__(self, *world: Any, wanted: int | None) -> None:
        super().__init__(*world)
        self.wanted = self.M if wanted is None else wanted
        self.collected: list[Vector] = []

    def push(self, m: int, g: Vector) -> None:
        if self.born[m] == self.t:
            eta = self.lr(self.taken)
            self.taken += 1
            self.collected.append(g)
            if len(self.collected) == self.wanted:
                self.w = self.w - eta * np.mean(self.collected, axis=0)
                self.t += 1
                self.collected = []
        self.send(m, 0.0)


class Ssp(Asgd):
    """Ho et al. 2013: a worker at clock c waits while c - min(clocks) > s."""

    def __init__(self, *world: Any, s: int) -> None:
        super().__init__(*world)
        self.s = s
        self.clock = [0] * self.M
        self.waiting = [False] * self.M

    def able(self) -> list[int]:
        return [m for m in range(self.M) if not self.waiting[m]]

    def push(self, m: int, g: Vector) -> None:
        eta, tau = self.lr(self.taken), self.t - self.born[m]
        self.taken += 1
        self.update(m, g, eta, tau)
        self.clock[m] += 1
        self.waiting[m] = True
        for other in [m, *range(self.M)]:
            if self.waiting[other] and self.clock[other] - min(self.clock) <= self.s:
                self.waiting[other] = False
                self.send(other, eta)


class Decayed(DcConstant):
    """Delay compensation with L2 decay outside or inside of what is squared."""

    def __init__(self, *world: Any, lam: float, rate: float, inside: bool) -> None:
        super().__init__(*world, lam=lam)
        self.rate, self.inside = rate, inside

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        decay = self.rate * self.w
        if self.inside:
            super().update(m, g + decay, eta, tau)
        else:
            super().update(m, g, eta, tau)
            self.w = self.w - eta * decay


class Clipped(DcConstant):
    """Pascanu et al. 2013: g <- g max_norm / |g| where |g| > max_norm, then compensation."""

    def __init__(self, *world: Any, lam: float, max_norm: float) -> None:
        super().__init__(*world, lam=lam)
        self.max_norm = max_norm

    def update(self, m: int, g: Vector, eta: float, tau: int) -> None:
        norm = float(np.sqrt(np.sum(g**2)))
        super().update(m, g * self.max_norm / norm if norm > self.max_norm else g, eta, tau)
