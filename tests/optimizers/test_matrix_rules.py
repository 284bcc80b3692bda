"""Shampoo, Scion and what is wrapped around a library's: steps worked by hand in float64."""

from __future__ import annotations

import math

import pytest
import torch
from each_optimizer import build
from torch import nn
from vrbench.optimizers.dion import Dion, dion
from vrbench.optimizers.scion import Scion, orthogonal, sharp
from vrbench.optimizers.shampoo import Shampoo, along, inverse_root

FLOAT = {"dtype": torch.float64}


def test_shampoo_by_hand() -> None:
    """A diagonal gradient (2, 3): H_1 = H_2 = diag(4, 9) + eps, so P is G / |G| at first; then 1/sqrt(2)."""
    x = torch.zeros(2, 2, **FLOAT).requires_grad_()
    optimizer = Shampoo([x], lr=0.1, momentum=0.5, eps=1e-30, root_every=1)
    x.grad = torch.diag(torch.tensor([2.0, -3.0], **FLOAT))
    optimizer.step()
    torch.testing.assert_close(x.detach(), torch.diag(torch.tensor([-0.1, 0.1], **FLOAT)), rtol=1e-12, atol=1e-15)
    optimizer.step()
    want = 0.1 + 0.1 * (0.5 + 1 / math.sqrt(2))  # eigenvalues 8 and 18 to the power -1/4, twice
    torch.testing.assert_close(x.detach(), torch.diag(torch.tensor([-want, want], **FLOAT)), rtol=1e-12, atol=1e-15)


def test_shampoo_of_one_element_is_adagrad() -> None:
    x, y = (torch.ones(1, **FLOAT).requires_grad_() for _ in range(2))
    ours = Shampoo([x], lr=0.1, momentum=0.0, eps=1e-30, root_every=1)
    theirs = torch.optim.Adagrad([y], lr=0.1, eps=0.0)
    for g in (3.0, -1.0, 2.0):
        x.grad, y.grad = torch.tensor([g], **FLOAT), torch.tensor([g], **FLOAT)
        ours.step()
        theirs.step()
    torch.testing.assert_close(x, y, rtol=1e-12, atol=0)


def test_roots_of_matrices() -> None:
    noise = torch.Generator().manual_seed(0)
    a = torch.randn(4, 6, generator=noise, **FLOAT)
    matrix = a @ a.T
    root = inverse_root(matrix, 4, 1e-12)
    torch.testing.assert_close(torch.linalg.matrix_power(root, 4) @ matrix, torch.eye(4, **FLOAT), rtol=0, atol=1e-8)
    assert torch.isfinite(inverse_root(torch.zeros(3, 3), 2, 1e-6)).all()
    tensor = torch.randn(3, 4, 2, generator=noise, **FLOAT)
    torch.testing.assert_close(along(tensor, matrix, 1), torch.einsum("ij,ajb->aib", matrix, tensor))


def test_scion_by_hand() -> None:
    """A vector (3, -4, 0, 0) has rms 2.5; momentum does not change the direction of the first step."""
    x = torch.ones(4, **FLOAT).requires_grad_()
    optimizer = Scion([x], lr=0.1, scale=2.0, constrained=True)
    x.grad = torch.tensor([3.0, -4.0, 0.0, 0.0], **FLOAT)
    optimizer.step()
    assert x.tolist() == pytest.approx([0.9 - 0.2 * 1.2, 0.9 + 0.2 * 1.6, 0.9, 0.9], rel=1e-12)


def test_scion_of_a_matrix_is_near_its_orthogonal_factor() -> None:
    """Singular values 3, 2, 1 become nearly one; a matrix of 2 × 8 moves by sqrt(2/8)."""
    noise = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(3, 3, generator=noise, **FLOAT))
    v, _ = torch.linalg.qr(torch.randn(5, 3, generator=noise, **FLOAT))
    near = orthogonal((u * torch.tensor([3.0, 2.0, 1.0], **FLOAT)) @ v.T, 5)
    values = torch.diagonal(u.T @ near @ v)
    assert values.min() > 0.68
    assert values.max() < 1.21
    torch.testing.assert_close(u @ torch.diag(values) @ v.T, near, rtol=0, atol=1e-12)
    assert float(torch.linalg.matrix_norm(sharp(torch.randn(2, 8, generator=noise, **FLOAT), 5), 2)) < 0.61
    assert torch.equal(sharp(torch.zeros(2, 3), 5), torch.zeros(2, 3))


def test_adopt_clips_as_its_authors_do() -> None:
    """Step 1 sets v = 1; in step 2 the gradient 100 is held at 2^0.25 and m is a tenth of it."""
    for power, held in ((0.25, 2**0.25), (None, 100.0)):
        x = torch.zeros(1, **FLOAT).requires_grad_()
        optimizer = build("adopt", [x], lr=0.5, weight_decay=0.0, clip_power=power)
        for g in (1.0, 100.0):
            x.grad = torch.tensor([g], **FLOAT)
            optimizer.step()
        assert x.item() == pytest.approx(-0.5 * 0.1 * held, rel=1e-12)


def test_normuon_splits_by_shape() -> None:
    optimizer = build("normuon", nn.Linear(4, 3).parameters())
    assert [(g["use_muon"], [p.ndim for p in g["params"]]) for g in optimizer.param_groups] == [
        (True, [2]),
        (False, [1]),
    ]
    with pytest.raises(ValueError, match="params is empty"):
        build("normuon", [])


def test_nadamw_is_nesterovs_adamw_from_the_first_step_on() -> None:
    """(beta1 m_t / (1 - beta1^(t+1)) + (1 - beta1) g_t / (1 - beta1^t)) / sqrt(v_t / (1 - beta2^t)); torch keeps a
    product of the corrections in float32."""
    x = torch.ones(1, **FLOAT).requires_grad_()
    optimizer = build("nadamw", [x], lr=0.1, betas=[0.9, 0.99], eps=0.0, weight_decay=0.5)
    m = v = 0.0
    want = 1.0
    for t, g in enumerate((2.0, -1.0, 0.5), 1):
        x.grad = torch.tensor([g], **FLOAT)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        top = 0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
        want = want * 0.95 - 0.1 * top / math.sqrt(v / (1 - 0.99**t))
        assert x.item() == pytest.approx(want, rel=1e-6)


def test_lambs_first_step_is_not_ten_times_as_long() -> None:
    """A step is lr times the norm of its tensor."""
    x = torch.full((4,), 2.0, **FLOAT).requires_grad_()
    optimizer = build("lamb", [x], lr=0.01, weight_decay=0.0)
    x.grad = torch.ones(4, **FLOAT)
    optimizer.step()
    assert x.tolist() == pytest.approx([2 - 0.02] * 4, rel=1e-5)


def test_adamc_decays_with_the_square_of_the_rate() -> None:
    x = torch.ones(1, **FLOAT).requires_grad_()
    optimizer = build("adamc", [x], lr=0.1, weight_decay=0.5)
    optimizer.param_groups[0]["lr"] = 0.02
    x.grad = torch.zeros(1, **FLOAT)
    optimizer.step()
    assert x.item() == pytest.approx(1 - 0.5 * 0.02**2 / 0.1, rel=1e-12)


def test_dion_by_hand() -> None:
    """G = diag(3, 1) with Q = I: P = I up to signs, R = G, so that the step is I and M keeps mu G."""
    g, identity = torch.diag(torch.tensor([3.0, 1.0], **FLOAT)), torch.eye(2, **FLOAT)
    step, momentum, right = dion(g, identity, 0.75)
    torch.testing.assert_close(step, identity)
    torch.testing.assert_close(momentum, 0.75 * g)
    torch.testing.assert_close(right.abs(), identity)
    step, momentum, _ = dion(g, identity[:, 1:], 0.75)  # rank one, in the second direction alone
    torch.testing.assert_close(step, torch.diag(torch.tensor([0.0, 1.0], **FLOAT)))
    torch.testing.assert_close(momentum, torch.diag(torch.tensor([3.0, 0.75], **FLOAT)))


def test_dion_finds_the_orthogonal_factor_and_moves_vectors_as_adamw() -> None:
    """Of a gradient that stands still: U V^T after some power iterations; vectors at a tenth of the rate."""
    noise = torch.Generator().manual_seed(0)
    x, v, w = torch.zeros(3, 4, **FLOAT), torch.ones(3, **FLOAT), torch.ones(3, **FLOAT)
    for leaf in (x, v, w):
        leaf.requires_grad_()
    ours, theirs = Dion([x, v], lr=0.1), torch.optim.AdamW([w], lr=0.01, weight_decay=0.0)
    x.grad = torch.randn(3, 4, generator=noise, **FLOAT)
    v.grad = w.grad = torch.tensor([1.0, -2.0, 0.5], **FLOAT)
    for _ in range(60):
        before = x.detach().clone()
        ours.step()
        theirs.step()
    u, _, vh = torch.linalg.svd(x.grad, full_matrices=False)
    torch.testing.assert_close(before - x.detach(), 0.1 * (3 / 4) ** 0.5 * u @ vh, rtol=0, atol=1e-4)
    torch.testing.assert_close(v, w, rtol=1e-12, atol=0)
    assert not dion(torch.zeros(2, 3), torch.eye(3)[:, :2], 0.9)[0].any()
