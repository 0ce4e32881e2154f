"""What a method's page imports: its contract, the batch it sees, and the training itself."""

from dataset.batch import Batch
from engine.main import main
from engine.method import Method, Step, TeacherMethod
from semi.panels import Panels

__all__ = ["Batch", "Method", "Panels", "Step", "TeacherMethod", "main"]
