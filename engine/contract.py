"""The names of `engine`, which bring PyTorch."""

from dataset.batch import Batch
from engine.command import main
from engine.method import Method, Step, TeacherMethod
from semi.panels import Panels

__all__ = ["Batch", "Method", "Panels", "Step", "TeacherMethod", "main"]
