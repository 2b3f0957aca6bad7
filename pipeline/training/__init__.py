"""Training: the only place that knows lightning. What an objective is; tasks implement it."""

#: The state of a run after its last epoch, in the directory of its checkpoints.
CHECKPOINT_FILE = "last.ckpt"
