"""What a method's page imports: its contract, the batch it sees, and the training itself."""

from engine.fit import main
from engine.method import Method, Step
from util.batch import Batch
from util.panels import Panels

__all__ = ["Batch", "Method", "Panels", "Step", "main"]
