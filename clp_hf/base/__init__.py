"""What the trainers share: columns, whole checkpoints, publishing."""
