"""What a method's page imports: its contract, the batch it sees, and the training itself."""

from engine.fit import main
from engine.method import Batch, Method, Step

__all__ = ["Batch", "Method", "Step", "main"]
