"""The gate over a run, as docs/vradam.md shows it: `python scripts/plot_gate.py`.

Full-size batches would hide the noise that the gate reacts to, so this is ordinary training: a small convolutional
network on scikit-learn's digits, batches of 64, one run for each of three penalties beta3, same weights and batches.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from vrbench.optimizers import VRAdam

PENALTIES = (0.1, 1.0, 10.0)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images of shape (1797, 1, 8, 8), standardised, and their classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1)
    return (images - images.mean()) / images.std(), torch.tensor(data.target)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def run(beta3: float, steps: int, seed: int) -> dict[str, list[float]]:
    """Train; returns velocity_sq, gate and loss of each step."""
    torch.manual_seed(seed)
    model, (images, classes) = network(), digits()
    optimizer = VRAdam(model.parameters(), lr=1e-2, beta3=beta3)
    order = torch.Generator().manual_seed(seed)
    history: dict[str, list[torch.Tensor]] = {"velocity_sq": [], "gate": [], "loss": []}
    for _ in range(steps):
        batch = torch.randint(len(images), (64,), generator=order)
        loss = nn.functional.cross_entropy(model(images[batch]), classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        group = optimizer.param_groups[0]
        for name, value in (("velocity_sq", group["velocity_sq"]), ("gate", group["gate"]), ("loss", loss.detach())):
            history[name].append(value)
    return {name: torch.stack(values).tolist() for name, values in history.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs/images/gate.svg"))
    options = parser.parse_args()

    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "vrbench"
    import matplotlib.pyplot as plt

    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), constrained_layout=True)
    for beta3 in PENALTIES:
        history = run(beta3, options.steps, options.seed)
        steps = range(1, options.steps + 1)
        for axis, name in zip(axes, ("velocity_sq", "gate", "loss"), strict=True):
            axis.plot(steps, history[name], lw=1, label=rf"$\beta_3$ = {beta3:g}")
        lowest = min(range(options.steps), key=history["gate"].__getitem__)
        print(
            f"beta3 {beta3:g}: gate {history['gate'][0]:.3f} at step 1, lowest {history['gate'][lowest]:.3f} at step "
            f"{lowest + 1}, mean of the last 50 steps {sum(history['gate'][-50:]) / 50:.3f}"
        )
    axes[0].set(title=r"velocity $\|v_t\|^2$", yscale="log")
    axes[1].set(title=r"gate $\eta_t/\alpha_0$", ylim=(0, 1.02))
    axes[2].set(title="training loss (batch)", yscale="log")
    for axis in axes:
        axis.set_xlabel("step")
        axis.set_xscale("log")
    axes[1].legend(frameon=False, loc="lower right")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, metadata={"Date": None})
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
