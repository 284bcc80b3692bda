"""VRAdam in a training loop of one's own."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from vrbench.optimizers import VRAdam

torch.manual_seed(0)
inputs = torch.randn(256, 8)
labels = (inputs.sum(1) > 0).long()

model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))
optimizer = VRAdam(model.parameters(), lr=1e-2)
for _ in range(30):
    for rows in torch.randperm(256).split(32):
        loss = cross_entropy(model(inputs[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
group = optimizer.param_groups[0]
accuracy = (model(inputs).argmax(1) == labels).float().mean()
print(f"accuracy {accuracy:.3f}, last step at a rate of {group['effective_lr']:.4f} (gate {group['gate']:.3f})")
