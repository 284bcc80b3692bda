"""Rules of other papers that are written here: a step of each worked by hand in float64, and what each reduces to."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from vrbench.optimizers.activelr import ActiveLR, adapt
from vrbench.optimizers.adaptive_heavy_ball import AdaptiveHeavyBall, AdaptiveHeavyBallAdam
from vrbench.optimizers.cautious_adamw import CautiousAdamW, cautious
from vrbench.optimizers.rad import RAD, annealed, reciprocal_root
from vrbench.optimizers.scaled_momentum import ScaledMomentumSGD, momentum_at

SGD = torch.optim.SGD
Make = Callable[[list[Tensor]], torch.optim.Optimizer]


def run(make: Make, start: list[float], gradients: list[list[float]]) -> list[list[float]]:
    """The points that an optimizer visits at these gradients."""
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = make([x])
    points = []
    for g in gradients:
        x.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        points.append(x.tolist())
    return points


def noisy(make: Make, steps: int = 40) -> Tensor:
    """Where an optimizer ends on a bowl with noisy gradients."""
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).requires_grad_()
    optimizer = make([x])
    noise = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x.grad = x.detach() + torch.randn(8, generator=noise, dtype=torch.float64)
        optimizer.step()
    return x.detach()


def near(want: Any) -> Any:
    return pytest.approx(want, rel=1e-12)


# ---- cautious AdamW -------------------------------------------------------------------------------------------------


def test_cautious_adamw_by_hand() -> None:
    """Step 1: u = sign(g), all agree. In step 2 the first coordinate disagrees: it stays, the other counts twice."""
    points = run(lambda p: CautiousAdamW(p, lr=0.1, betas=(0.9, 0.99), eps=0.0, weight_decay=0.5), [1.0, 1.0],
                 [[1.0, -2.0], [-0.5, -2.0]])  # fmt: skip
    assert points[0] == near([1 * 0.95 - 0.1, 1 * 0.95 + 0.1])
    m, v = 0.9 * 0.1 - 0.1 * 0.5, 0.99 * 0.01 + 0.01 * 0.25  # m is above 0, g is not
    assert m > 0
    assert v > 0
    assert points[1] == near([0.85 * 0.95, 1.05 * 0.95 + 0.1 * 2])


def test_cautious_mask() -> None:
    u, g = torch.tensor([1.0, -2.0, 3.0, 4.0]), torch.tensor([1.0, 1.0, -1.0, 0.0])
    assert cautious(u, g).tolist() == [4.0, 0.0, 0.0, 0.0]  # a quarter agrees
    assert cautious(u, -u).tolist() == [0.0, 0.0, 0.0, 0.0]


def test_cautious_adamw_is_adamw_where_signs_agree() -> None:
    gradients = [[1.0, -2.0], [0.5, -3.0], [2.0, -0.1]]
    ours = run(lambda p: CautiousAdamW(p, lr=0.1, weight_decay=0.1), [1.0, 2.0], gradients)
    theirs = run(lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1), [1.0, 2.0], gradients)
    assert ours[-1] == near(theirs[-1])


# ---- RAD ------------------------------------------------------------------------------------------------------------


def test_rad_by_hand() -> None:
    """g = 3 with beta (.5, .75), delta 2, zeta 7: m = 1.5, v = 2.25, sqrt(4·2.25 + 7) = 4; sqrt(.25)/.5 = 1."""
    points = run(lambda p: RAD(p, 0.1, (0.5, 0.75), delta=2.0, zeta=7.0, weight_decay=0.5), [1.0], [[3.0]])
    assert points[0] == near([0.95 - 0.1 * 1.5 / 4])
    points = run(lambda p: RAD(p, 0.1, (0.5, 0.75), 2.0, zeta=4.0, order=2), [1.0], [[3.0]])
    assert points[0] == near([1 - 0.1 * 1.5 * (1 / math.sqrt(13) + 1 / 5) / 2])  # 9 + 4 and 9 + 4/.25


def test_rad_annealing() -> None:
    """exp(40 (k/N - 1)): 1e-16 at the start, exp(-20) half-way, 1 at the end and after it."""
    assert [annealed(k, 100) for k in (1, 50, 100, 130)] == near([1e-16, math.exp(-20), 1.0, 1.0])
    points = run(lambda p: RAD(p, 0.1, (0.5, 0.75), total_steps=2), [0.0], [[3.0], [3.0]])
    m, v = 2.25, 3.9375  # at k = N, with corrections sqrt(1 - .75²) / (1 - .5²)
    rate = 0.1 * math.sqrt(1 - 0.75**2) / 0.75
    assert points[1][0] - points[0][0] == near(-rate * m / math.sqrt(v + 1))
    assert reciprocal_root(torch.tensor([3.0]), 1.0, 1.0).tolist() == [0.5]


def test_rad_is_adam_at_small_zeta() -> None:
    ours = noisy(lambda p: RAD(p, 0.01, zeta=1e-30, weight_decay=0.1))
    theirs = noisy(lambda p: torch.optim.AdamW(p, 0.01, eps=0.0, weight_decay=0.1))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "total_steps=None"),
        ({"zeta": 0.0}, "zeta=0"),
        ({"zeta": "cold"}, "zeta='cold'"),
        ({"zeta": 1.0, "order": 3}, "order=3"),
    ],
)
def test_rad_refuses(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RAD([torch.ones(1, requires_grad=True)], **settings)


# ---- ActiveLR -------------------------------------------------------------------------------------------------------


def test_activelr_by_hand() -> None:
    """Epochs of one step: the second agrees in the first coordinate alone, so the third step is 3 and ½ as long."""
    make: Make = lambda p: ActiveLR(p, SGD, 2.0, 0.5, steps_per_epoch=1, lr=0.1)  # noqa: E731
    points = run(make, [0.0, 0.0], [[1.0, 1.0], [2.0, -1.0], [1.0, 1.0]])
    assert points[1] == near([-0.3, 0.0])
    assert points[2] == near([-0.3 - 0.1 * 3, 0.0 - 0.1 * 0.5])


def test_activelr_sums_over_an_epoch_and_decays_by_its_gain() -> None:
    """Sums (1, then 2 - 1 = 1) agree over epochs of two steps though gradients turn; decay is lr s lambda."""
    make: Make = lambda p: ActiveLR(p, torch.optim.AdamW, 1.0, 0.5, 2, lr=0.1, weight_decay=0.5)  # noqa: E731
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = make([x])
    for g in (2.0, -1.0, 2.0, -1.0):
        x.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
    assert optimizer.state[x]["gain"].tolist() == [2.0]
    before, (m, v) = x.item(), (float(optimizer.state[x][key]) for key in ("exp_avg", "exp_avg_sq"))
    x.grad.zero_()
    optimizer.step()
    step = 0.9 * m / (1 - 0.9**5) / (math.sqrt(0.999 * v / (1 - 0.999**5)) + 1e-8)
    assert x.item() == near(before - 0.2 * (0.5 * before + step))
    assert float(optimizer.param_groups[0]["effective_lr"]) == near(0.2)


def test_activelr_adapts() -> None:
    gain = torch.ones(4)
    adapt(gain, torch.tensor([1.0, -1.0, 0.0, 1e-30]), torch.tensor([1.0, 1.0, 1.0, 1e-30]), 0.05, 0.95)
    assert gain.tolist() == pytest.approx([1.05, 0.95, 0.95, 1.05])


@pytest.mark.parametrize("base", [SGD, torch.optim.AdamW, torch.optim.RAdam])
def test_activelr_with_no_gain_is_its_base(base: type[torch.optim.Optimizer]) -> None:
    settings: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.1}
    ours = noisy(lambda p: ActiveLR(p, base, 0.0, 1.0, steps_per_epoch=3, **settings))
    assert torch.equal(ours, noisy(lambda p: base(p, **settings)))


# ---- the adaptive heavy ball ----------------------------------------------------------------------------------------


def test_adaptive_heavy_ball_by_hand() -> None:
    """x moves by (-.3, -.4), .5 long; g changes by (0, -1): L = 1/(.5 + 1e-6), beta = (1 - sqrt(.1 L))²."""
    points = run(lambda p: AdaptiveHeavyBall(p, lr=0.1), [0.0, 0.0], [[3.0, 4.0], [3.0, 3.0]])
    assert points[0] == near([-0.3, -0.4])
    beta = (1 - math.sqrt(0.1 / 0.500001)) ** 2
    assert points[1] == near([-0.3 - 0.1 * (beta * 3 + 3), -0.4 - 0.1 * (beta * 4 + 3)])


def test_adaptive_heavy_ball_adam_by_hand() -> None:
    """m begins as g; the second step mixes with (1 - beta) g. v is corrected by 1 - beta2^t."""
    points = run(lambda p: AdaptiveHeavyBallAdam(p, lr=0.1, beta2=0.75, eps=0.0), [0.0], [[2.0], [4.0]])
    assert points[0] == near([-0.1])
    beta = (1 - math.sqrt(0.1 * 2 / 0.100001)) ** 2
    m, v = beta * 2 + (1 - beta) * 4, (0.75 * 1 + 0.25 * 16) / (1 - 0.75**2)
    assert points[1] == near([-0.1 - 0.1 * m / math.sqrt(v)])


def test_adaptive_heavy_ball_is_sgd_with_the_momentum_of_its_bound() -> None:
    """Where the gradient stands still L is 0 and the momentum 1 - delta, from the second step on."""
    gradients = [[1.0, 2.0]] * 4
    ours = run(lambda p: AdaptiveHeavyBall(p, lr=0.1, delta=0.25), [0.0, 0.0], gradients)
    assert ours[-1] == near(run(lambda p: SGD(p, lr=0.1, momentum=0.75), [0.0, 0.0], gradients)[-1])


# ---- momentum that is scaled with the rate --------------------------------------------------------------------------


def test_scaled_momentum_by_hand_and_as_sgd() -> None:
    """c lr^(2/3) = 2·.001^(2/3) = .02."""
    assert momentum_at(0.001, 2.0) == near(0.98)
    assert momentum_at(1.0, 2.0) == 0.0
    points = run(lambda p: ScaledMomentumSGD(p, lr=0.001, c=2.0), [0.0], [[1.0], [1.0]])
    assert points == [near([-0.001]), near([-0.001 - 0.001 * 1.98])]
    ours = noisy(lambda p: ScaledMomentumSGD(p, lr=0.001, c=2.0, weight_decay=0.1))
    theirs = noisy(lambda p: SGD(p, lr=0.001, momentum=momentum_at(0.001, 2.0), weight_decay=0.1))
    assert torch.equal(ours, theirs)


def test_scaled_momentum_follows_a_schedule() -> None:
    optimizer = ScaledMomentumSGD([x := torch.ones(1, requires_grad=True)], lr=0.001, c=2.0)
    x.grad = torch.ones(1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.125)
    for want in (0.98, 0.995):  # an eighth of the rate is a quarter of 1 - beta
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["momentum"] == near(want)


# ---- all of them ----------------------------------------------------------------------------------------------------

ALL: dict[str, Make] = {
    "cautious_adamw": lambda p: CautiousAdamW(p, lr=0.05),
    "rad": lambda p: RAD(p, lr=0.05, total_steps=20),
    "activelr": lambda p: ActiveLR(p, SGD, 0.05, 0.95, steps_per_epoch=3, lr=0.05, momentum=0.9),
    "adaptive_heavy_ball": lambda p: AdaptiveHeavyBall(p, lr=0.05),
    "adaptive_heavy_ball_adam": lambda p: AdaptiveHeavyBallAdam(p, lr=0.05),
    "scaled_momentum": lambda p: ScaledMomentumSGD(p, lr=0.05),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_a_state_of_any_step_goes_on_bit_for_bit(name: str, stop: int) -> None:
    """Within an epoch, at its end and after several."""

    def train(x: Tensor, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            x.grad = x.detach() * torch.tensor([1.0, 3.0]) + math.sin(step)
            optimizer.step()

    x = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = ALL[name]([x])
    train(x, optimizer, range(stop))
    file = io.BytesIO()
    torch.save({"x": x.detach(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    twin = saved["x"].clone().requires_grad_()
    other = ALL[name]([twin])
    other.load_state_dict(saved["optimizer"])
    train(x, optimizer, range(stop, stop + 8))
    train(twin, other, range(stop, stop + 8))
    assert torch.equal(x, twin)
