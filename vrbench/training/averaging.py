"""The exponential moving average of a run's weights, for `trainer.ema_decay`."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """average <- decay · average + (1 - decay) · weights, begun at the first weights; buffers are the model's own.

    torch's AveragedModel, number for number, save that it sends its count of updates to the weights' device each time,
    and waits for that; after the first update nobody there needs the count.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._take_in = get_ema_multi_avg_fn(decay)
        super().__init__(model, multi_avg_fn=self._take_in)

    def update_parameters(self, model: nn.Module) -> None:
        """Take the model's weights in."""
        averages = [parameter.detach() for parameter in self.module.parameters()]
        if self.n_averaged == 0 or not all(average.is_floating_point() for average in averages):
            super().update_parameters(model)
            return
        self._take_in(averages, [parameter.detach() for parameter in model.parameters()], self.n_averaged)
        for average, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            average.detach().copy_(buffer.detach())
        self.n_averaged += 1
