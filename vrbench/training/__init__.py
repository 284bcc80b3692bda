"""The training loop, and what it needs: optimizers' capabilities, schedules, the clock, several processes."""
