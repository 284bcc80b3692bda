"""What a training loop has to do for an optimizer: asked of the object itself, never of its name.

The protocol, capability by capability. An optimizer that has none of them wants `loss.backward(); optimizer.step()`.

- `two_step` (sharpness-aware minimization): the object has `first_step(zero_grad)` and `second_step(zero_grad)`. After
  backward (and clipping), `first_step` moves the parameters to the perturbed point; the same batch with the same noise
  goes forward and backward again; `second_step` moves back and takes the step with the new gradients. Equivalent is
  `step(closure)` after a first backward, with a closure that zeroes the gradients, recomputes them and returns the
  loss; it is the form to choose beside a torch LR scheduler, which warns where it never saw `step` called.
- `closure` (line searches, L-BFGS): `step` has an argument without a default. It is called with a closure that zeroes
  the gradients, recomputes them on the same batches with the same noise and returns the loss, as often as it is asked.
- `create_graph` (Hessian-based): `step` takes a `hessian` argument, the estimate of the Hessian's diagonal; an
  optimizer that is not handed one computes it by differentiating `p.grad` once more. So gradients need their graph,
  `loss.backward(create_graph=True)`, must be zeroed with `set_to_none=True` (a gradient that holds its graph holds a
  reference cycle), and the model needs second derivatives (attention: the math kernel). Hutchinson's random vectors
  come from torch's global generator.
- `train_eval` (schedule-free): the object has `train()` and `eval()`. The weights that gradients are taken at are not
  the weights to evaluate: call `eval()` before evaluating, rendering or saving weights for use, `train()` before the
  next step. A checkpoint to resume from may be taken in either mode if it says which: the mode is in the state_dict.

Rates need no capability: `group["lr"]` is what the schedule drives, and an optimizer that makes a rate of its own says
so in `group["effective_lr"]`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Capabilities:
    """What the loop has to do; see the module's docstring."""

    two_step: bool = False
    closure: bool = False
    create_graph: bool = False
    train_eval: bool = False


def capabilities(optimizer: Optimizer) -> Capabilities:
    """Ask an optimizer what it needs. Looks at methods and signatures only: nothing is called, no state is made."""

    def has(*methods: str) -> bool:
        return all(callable(getattr(optimizer, method, None)) for method in methods)

    arguments = inspect.signature(optimizer.step).parameters
    named = [argument for argument in arguments.values() if argument.kind is argument.POSITIONAL_OR_KEYWORD]
    named = [argument for argument in named if argument.name != "self"]  # a scheduler wraps `step`, and shows it
    return Capabilities(
        two_step=has("first_step", "second_step"),
        closure=any(argument.default is argument.empty for argument in named),
        create_graph="hessian" in arguments,
        train_eval=has("train", "eval"),
    )
