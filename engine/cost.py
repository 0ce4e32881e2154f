"""Memory and arithmetic of a training step, without a GPU.

The step runs on fake tensors, which have shapes but no memory.
Uses private interfaces of torch. Fake tensors are on the CPU, as torch cannot run a backward pass
on a GPU that is not there; `GpuSemantics` imitates the behaviour of a GPU.
"""

import math
import traceback
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import default_collate

from dataset.datasets import TrainingSet
from dataset.loaders import effective_partner, map_tensors
from engine.method import Method
from engine.trainer import RunData, Trainer
from model.acceleration import use_layout
from model.build import network_from_config
from util import distributed
from util.config.schema import Config
from util.errors import UserError, reason

GIB = 2**30
MEMORY_KINDS = ("weights", "gradients", "optimizer", "activations", "other")
PREVIOUS_BEST_EPOCHS = 8
"""Epochs, each the best so far, that precede the step: methods keep previous models."""


@dataclass(frozen=True)
class Cost:
    """Cost of an optimizer step of one process; bytes at the peak, by kind."""

    weights: int
    """Parameters and buffers, also of a teacher."""
    gradients: int
    optimizer: int
    """State of the optimizer, such as momentum."""
    activations: int
    """Everything made in forward passes, pseudo-labels and losses included."""
    other: int
    """The batch, its views, and temporary tensors of the backward pass and the optimizer."""
    tflop: float
    """10^12 multiplications and additions of convolutions and matrix products."""
    batch: int
    """Bytes of a raw batch."""
    checkpoint: int
    """Bytes of a checkpoint."""
    networks: int
    """Networks that are validated, each with a best checkpoint."""

    @property
    def peak(self) -> int:
        return sum(getattr(self, kind) for kind in MEMORY_KINDS)


def step_cost(
    method_class: type[Method],
    config: Config,
    num_images: int,
    per_forward: int,
    processes: int = 1,
) -> Cost:
    """Return the cost, per process, of a step of `num_images` labelled images, and as many
    unlabelled ones if the method uses them; a forward pass sees `per_forward` of them.

    The step is `Trainer.optimize`, late in the run. Raises `UserError` where the network cannot be
    trained so, and where torch's fake tensors cannot run it.
    """
    try:
        return _step_cost(method_class, config, num_images, per_forward, processes)
    except UserError:
        raise
    except Exception as error:  # this torch version, or a missing operation
        frame = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{Path(frame.filename).name}:{frame.lineno}"
        raise UserError(
            f"GPU memory and time cannot be estimated: torch {torch.__version__} cannot run a "
            f"step of {method_class.__name__} on fake tensors "
            f"({line}: {type(error).__name__}: {reason(error)})"
        ) from None


def _step_cost(
    method_class: type[Method], config: Config, num_images: int, per_forward: int, processes: int
) -> Cost:
    from torch._subclasses.fake_tensor import FakeTensorMode

    weights = config.criterion.class_weights and (1.0,) * config.num_classes
    config = config.with_class_weights(weights).model_copy(
        update={
            "precision": "bfloat16" if config.precision == "auto" else config.precision,
            "channels_last": config.channels_last is not False,  # auto: on a GPU
        }
    )
    raw = blank_batch(method_class, config, per_forward)
    with torch.device("meta"):
        network = network_from_config(config.model, config.data)
        network.check_crop(config.crop_size)
        network.check_batch(per_forward * processes)
        method = method_class(network, config)
        use_layout(method, config)  # while it has no memory: fake weights cannot be exchanged
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        method.to_empty(device="cpu")
        with distributed.single_process():
            trainer = late_trainer(method, config)
        parts = num_images // per_forward
        memory = MemoryTracker(trainer, accumulate=num_images > per_forward)
        with distributed.single_process(), flop_counter() as counter, memory, GpuSemantics():
            trainer.optimize(map_tensors(fake.from_tensor, raw), 0)
        state = tree_leaves([method.state_dict(), trainer.optimizer.state_dict()])
        return Cost(
            **memory.at_peak,
            tflop=counter.get_total_flops() * parts / 1e12,
            batch=sum(x.nbytes for x in tree_leaves(raw)) * parts,
            checkpoint=sum(x.nbytes for x in state if isinstance(x, Tensor)),
            networks=len(method.eval_models()),
        )


def late_trainer(method: Method, config: Config) -> Trainer:
    """Return a trainer without data and run directory, as after earlier epochs and steps: methods
    hold previous models, the optimizer its state."""
    nothing = cast(Any, ())
    data = RunData(train_loader=nothing, val_loader=nothing, volumes=[], identities={})
    trainer = Trainer(method, config, torch.device("cpu"), run_dir=nothing, data=data)
    simulate_best_epochs(method, config.epochs)
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    return trainer


def simulate_best_epochs(method: Method, epochs: int) -> None:
    """Bring a method to the end of `epochs`, the last of which were the best."""
    for epoch in range(max(0, epochs - PREVIOUS_BEST_EPOCHS), epochs):
        method.after_epoch(epoch, is_best=True)


def blank_batch(method_class: type[Method], config: Config, num_images: int) -> Any:
    """Return a raw batch of blank images, as data workers make it for `make_views`."""
    side = config.crop_size
    dtype = np.uint8 if config.data.image_range is None else np.float32
    image = np.zeros((side, side, config.data.channels), dtype)
    mask = Image.new("L", (side, side))
    dataset = TrainingSet(
        config,
        [(image, mask)] * num_images,
        [(image, None)] * num_images if method_class.unlabeled else [],
        length=num_images,
        strong_views=method_class.strong_views,
        cutmix_partner=effective_partner(config, num_images),
    )
    return default_collate([dataset[0, position] for position in range(num_images)])


@dataclass
class _Block:
    """Memory of one or more tensors."""

    kind: str
    size: int
    storage: weakref.ref


class MemoryTracker(TorchDispatchMode):
    """Count the bytes, by kind, of a trainer's tensors inside the context.

    `accumulate`: gradients of earlier micro-batches exist all the time.
    """

    def __init__(self, trainer: Trainer, accumulate: bool):
        super().__init__()
        self.now = dict.fromkeys(MEMORY_KINDS, 0)
        self.at_peak = dict(self.now)
        self._blocks: dict[int, _Block] = {}
        self._kind_made = "other"
        """Kind of the tensors that functions now return."""
        self._accumulate = accumulate
        method, optimizer = trainer.method, trainer.optimizer
        for weight in (*method.parameters(), *method.buffers()):
            self.count(weight, "weights")
        for value in tree_leaves(list(optimizer.state.values())):
            self.count(value, "optimizer")
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            parameter.register_post_accumulate_grad_hook(self._keep_gradient)
            self.now["gradients"] += parameter.nbytes if accumulate else 0
        method.register_forward_pre_hook(lambda *_: self._set_kind("activations"))
        method.register_forward_hook(lambda *_: self._set_kind("other"))

    def count(self, tensor: Tensor, kind: str) -> None:
        """Count a tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        number = id(storage)
        if number in self._blocks:
            return

        def freed(_: weakref.ref) -> None:
            block = self._blocks.pop(number)
            self.now[block.kind] -= block.size

        self._blocks[number] = _Block(kind, storage.nbytes(), weakref.ref(storage, freed))
        self.now[kind] += storage.nbytes()

    def _set_kind(self, kind: str) -> None:
        self._kind_made = kind

    def _keep_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        block = self._blocks[id(parameter.grad.untyped_storage())]
        self.now[block.kind] -= block.size
        block.kind, block.size = "gradients", 0 if self._accumulate else block.size
        self.now["gradients"] += block.size

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self.count(value, self._kind_made)
        if sum(self.now.values()) > sum(self.at_peak.values()):
            self.at_peak = dict(self.now)
        return out


_FLOAT32 = {
    getattr(namespace, name)
    for name in (
        "interpolate softmax log_softmax layer_norm group_norm normalize sum exp log pow cumsum"
    ).split()
    for namespace in (torch, Tensor, F)
    if hasattr(namespace, name)
}
"""Functions of networks and methods that autocast computes in float32 on a GPU only."""


class GpuSemantics(TorchFunctionMode):
    """Compute on the CPU as on a GPU: autocast's float32, transfers that copy, and batch norms that
    see the images of all processes, so that one image of this process is enough."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.to and kwargs.get("non_blocking"):
            kwargs = {**kwargs, "copy": True}
        elif func is F.batch_norm:
            if args[0].numel() == args[0].shape[1]:  # a single value: as in evaluation
                kwargs = {**kwargs, "training": False}
        elif func in _FLOAT32 and torch.is_autocast_enabled("cpu"):
            first, *rest = args
            args = (first.float(), *rest)
        return func(*args, **kwargs)


def flop_counter() -> Any:
    """Return a counter of the arithmetic of forward and backward passes.

    torch's own counter lacks the attention of the CPU, and ignores the groups of a convolution in
    its backward pass.
    """
    from torch.utils.flop_counter import (
        FlopCounterMode,
        sdpa_backward_flop_count,
        sdpa_flop_count,
    )

    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    formulas = {
        forward: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        backward: lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v),
        torch.ops.aten.convolution_backward: _convolution_backward_flop,
    }
    return FlopCounterMode(display=False, custom_mapping=formulas)


def _convolution_backward_flop(
    grad: Sequence[int], x: Sequence[int], weight: Sequence[int], *settings: Any, **output: Any
) -> int:
    """Return the arithmetic of a convolution's backward pass, from shapes.

    Gradients of the input and of the weights each take as many multiplications as the
    forward pass.
    """
    *_, transposed, _, _, wanted = settings
    positions = x[2:] if transposed else grad[2:]
    return 2 * x[0] * math.prod(positions) * math.prod(weight) * sum(wanted[:2])
