"""The grids of the GFlowNet tasks."""
