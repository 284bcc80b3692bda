"""VRAdam in a LightningModule."""

import lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from vrbench.optimizers import VRAdam


class Classifier(lightning.LightningModule):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, labels = batch
        return cross_entropy(self.layers(inputs), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return VRAdam(self.parameters(), lr=1e-2)


lightning.seed_everything(0)
inputs = torch.randn(256, 8)
labels = (inputs.sum(1) > 0).long()
model = Classifier()
trainer = lightning.Trainer(
    max_epochs=30, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False,
)  # fmt: skip
trainer.fit(model, DataLoader(TensorDataset(inputs, labels), batch_size=32, shuffle=True))
accuracy = (model.layers(inputs).argmax(1) == labels).float().mean()
print(f"accuracy {accuracy:.3f}")
