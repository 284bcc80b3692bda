"""VRAdam in transformers' Trainer, on a small GPT-2 and made-up text."""

import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed
from vrbench.optimizers import VRAdam

set_seed(0)
text = torch.arange(16).repeat(64, 2)
data = [{"input_ids": row, "labels": row} for row in text]
model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=32, n_embd=32, n_layer=1, n_head=2))
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        num_train_epochs=10,
        report_to="none",
        use_cpu=True,
        logging_steps=10,
        save_strategy="no",
        disable_tqdm=True,
    )
    optimizer = VRAdam(model.parameters(), lr=1e-2)
    trainer = Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, None))
    trainer.train()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"loss {float(losses[0]):.3f}, at the end {float(losses[-1]):.3f}")
