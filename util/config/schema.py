"""The keys of a config: their types, ranges, defaults and meaning.

Typed and frozen; `util.config.loading` reads and validates one before anything else happens.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from util.config.data import Data
from util.config.types import (
    Dilation,
    Natural,
    Positive,
    PositiveFloat,
    Section,
    Share,
    Width,
    word_or_numbers,
)

Weights = Annotated[
    Annotated[Literal["auto", "enet", "inverse"], Tag("<word>")]
    | Annotated[tuple[PositiveFloat, ...], Tag("<numbers>")],
    Discriminator(word_or_numbers),
]
"""A number for each class, or how they follow from the labelled pixels."""


class Model(Section):
    """The network."""

    network: Literal["deeplabv3plus", "pspnet", "dpt", "unet"] = "deeplabv3plus"
    """deeplabv3plus or pspnet on a CNN, dpt on a ViT, or unet, which has an encoder of its own."""
    backbone: str = "resnet101s"
    """deeplabv3plus, pspnet: any timm CNN with feature maps, published with resnet50s, resnet101s,
    or a hierarchical backbone (Swin, PVTv2, HRNet, MambaOut) at output_stride 32; dpt: any plain
    timm ViT, published with vit_{small,base,large}_patch14_dinov2."""
    output_stride: Literal[8, 16, 32] = 16
    """Pixels of the image per pixel of a CNN's deepest feature map; a ViT has its patch size, most
    hierarchical backbones 32."""
    aspp_rates: tuple[Dilation, Dilation, Dilation] = (6, 12, 18)
    """Dilations of deeplabv3plus's ASPP; published with 12, 24, 36 at output stride 8."""
    patch_size: Annotated[Positive, Field(le=256)] | None = None
    """Side of a ViT's patches in pixels; by default its own, which pretrained weights need."""
    layers: tuple[Positive, Positive, Positive, Positive] | None = None
    """The four blocks of a ViT, counted from 1, whose patch tokens dpt decodes.  By default those
    published for DINOv2 and DINOv3 (S and B: 3, 6, 9, 12; L: 5, 12, 18, 24; g: 10, 20, 30, 40), and
    the ends of the four quarters of other ViTs."""
    multi_grid: bool = False
    """Dilations 2, 2, 4 multiplied into the 3x3 convolutions of a ResNet's last stage."""
    channels: Width = 256
    """Width of deeplabv3plus's ASPP and decoder and of CorrMatch's correlation features; the
    decoder of dpt follows its ViT."""
    widths: Annotated[tuple[Width, ...], Field(min_length=2)] = (16, 32, 64, 128, 256)
    """Channels of the levels of unet, from the image down: as many levels as numbers."""
    dropout: tuple[Share, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    """Dropout in the encoder of unet: a number for each level, as many as `widths` has."""
    pretrained: str = "file"
    """file: pretrained/<backbone>.pth; hub: timm's; none: random; or the path of a .pth file."""
    lora: Annotated[Natural, Field(le=1024)] = 0
    """Train the backbone of dpt through LoRA adapters of this rank on its attention, which peft
    adds (requirements-extra.txt); its other weights stay as they were pretrained, and checkpoints
    leave them out.  0: no adapters."""
    lock_backbone: bool = False
    """Train the decoder alone; the backbone stays as it was pretrained."""
    checkpoint_activations: bool = False
    """Compute the backbone's blocks again in the backward pass: less memory, more time."""

    @field_validator("layers")
    @classmethod
    def _increases(cls, layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if layers is not None and sorted(set(layers)) != list(layers):
            raise ValueError("expected four increasing numbers of blocks, such as [3, 6, 9, 12]")
        return layers

    @model_validator(mode="after")
    def _adapters_of_pretrained_vits(self) -> "Model":
        if self.lora and (self.network != "dpt" or self.pretrained == "none"):
            raise ValueError("lora needs network dpt and pretrained weights; set lora to 0")
        if self.lora and self.lock_backbone:
            raise ValueError("lora trains the backbone, which lock_backbone locks; set one of them")
        return self

    @model_validator(mode="after")
    def _dropout_of_every_level(self) -> "Model":
        if len(self.dropout) != len(self.widths):
            raise ValueError(
                f"dropout has {len(self.dropout)} numbers for the {len(self.widths)} levels of "
                "widths"
            )
        return self


class Criterion(Section):
    """The loss of labelled images, and of pseudo-labels."""

    name: Literal["ce", "ohem", "dice", "ce_dice"] = "ce"
    """ce: cross-entropy over all labelled pixels; ohem: over the hard ones; dice: Dice loss over
    the images of a forward (of the batch, in one process without micro_batch); ce_dice: the mean of
    ce and dice.  Pseudo-labels are learnt by Dice with the last two, else by cross-entropy."""
    thresh: Share = 0.7
    """A pixel is hard for ohem if its true class has at most this probability."""
    min_kept: Positive = 100_000
    """Pixels **per image** that ohem keeps at least: the hardest, if fewer are hard."""
    class_weights: Weights | None = None
    """Weight of each class in the cross-entropy of labelled images: numbers, or from its share of
    the labelled pixels.  enet, or auto: 1 / ln(1.02 + share) (Paszke et al., 2016); inverse: 1 /
    (share x classes that occur), so that each weighs the same in all."""


class Optimizer(Section):
    """SGD or AdamW, whose learning rate decays to 0 over the run."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd with momentum, or adamw with betas 0.9 and 0.999."""
    lr: PositiveFloat = 0.001
    """Learning rate of the backbone at the start; the backbone of unet is its encoder."""
    lr_batch: Positive | None = None
    """`batch_size` that `lr` is meant for: a run with another one logs the rate of the linear rule,
    `lr * batch_size / lr_batch`."""
    scale_lr: bool = False
    """Use the rate of the linear rule; config.yaml of the run holds the scaled `lr`."""
    lr_multi: PositiveFloat = 10.0
    """How many times faster everything beside the backbone learns.  Use 1 for a network without
    pretrained part: unet was published with one learning rate for all."""
    momentum: Share = 0.9
    """Momentum of sgd."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay; published with 1e-4 for sgd and 0.01 for adamw."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Layer-wise decay of the learning rate in a ViT (BEiT): its final norm and last block learn at
    `lr`, each block before at this times the rate of the next one, and so does what precedes the
    blocks: patch embedding, positions, class and register tokens.  1: one rate for all."""
    power: PositiveFloat = 0.9
    """Poly decay: of steps 0 to N - 1 the first runs at the start's rate, step i after it at
    (1 - (i - 1)/N)^power times that, as published."""

    @model_validator(mode="after")
    def _scales_from_a_batch(self) -> "Optimizer":
        if self.scale_lr and self.lr_batch is None:
            raise ValueError(
                "scale_lr needs lr_batch, the batch_size that lr is meant for. "
                "Fix: set optimizer.lr_batch"
            )
        return self


class Evaluation(Section):
    """How validation and `evaluate.py` predict."""

    mode: Literal["original", "sliding_window", "center_crop", "resize"] = "original"
    """original: whole images; sliding_window: overlapping windows of crop_size, whose probabilities
    are added; center_crop: the middle of each image; resize: images as squares of crop_size."""
    window_border: Literal["cut", "shift"] = "cut"
    """The last sliding window of a row: smaller, or shifted back to end at the border."""
    window_batch: Positive = 8
    """Sliding windows of one size that run as one batch, at most."""
    flip: bool = False
    """Test-time augmentation: predict an image's mirror image too; probabilities are averaged.
    This key holds for the validations of a training as well; `--tta flip` of evaluate.py and
    predict.py does the same for one command."""
    scales: Annotated[tuple[Annotated[PositiveFloat, Field(le=16)], ...], Field(min_length=1)] = (
        1.0,
    )
    """Test-time augmentation: an image (where `mode` is resize, its square of crop_size) is
    predicted enlarged or reduced by each of these factors; probabilities are averaged.  As with
    `flip`, `--tta 0.75 1 1.25` does the same for one command."""
    center_crop_epochs: Natural = 0
    """Epochs at the beginning that are validated by the cheap center_crop; they never count for the
    best score."""
    every: Positive = 1
    """Epochs between validations (the last epoch is always validated)."""
    select: str = "miou"
    """What chooses the best checkpoint: miou; dice, the mean over volumes and classes 1 on, which
    needs volume_pattern; or `iou:CLASS`, of one class."""
    volume_pattern: str | None = None
    """Regular expression whose first group names an image's volume; adds Dice per volume."""
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Millimetres between slices, rows and columns of all volumes, for `evaluate.py
    --surface-distance`; without it distances are in pixels, and slices lie one pixel apart."""

    @model_validator(mode="after")
    def _spacing_of_volumes(self) -> "Evaluation":
        if self.spacing is not None and self.volume_pattern is None:
            raise ValueError("spacing needs volume_pattern. Fix: set evaluation.volume_pattern")
        return self

    @field_validator("volume_pattern")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        try:
            if pattern is not None and re.compile(pattern).groups == 0:
                raise ValueError("expected a group, in parentheses, around the volume's name")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"not a regular expression ({error})") from None
        return pattern


class Log(Section):
    """What a run tells beside its own files, metrics.jsonl and log.txt."""

    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Where scalars and pictures go as well; wandb is optional (requirements-extra.txt),
    WANDB_MODE=offline keeps it off the network."""
    pictures: Annotated[Natural, Field(le=64)] = 0
    """Pictures at each validation: of how many validation images and of how many unlabelled ones,
    always the same; 4 are few.  As PNG in the run's folder (pictures/), and to the trackers."""
    pseudo_labels: bool = True
    """Whether validation tells how far pseudo-labels can be trusted, on its labelled images: how
    many pass the threshold, how many of these are right, and how well confidence is calibrated."""


class Config(Section):
    """A whole run."""

    data: Data
    model: Model = Model()
    criterion: Criterion = Criterion()
    optimizer: Optimizer = Optimizer()
    evaluation: Evaluation = Evaluation()
    log: Log = Log()
    crop_size: Annotated[Positive, Field(le=8192)]
    """Side of the square crops that are trained on, in pixels."""
    epochs: Positive
    """Epochs of the run."""
    epoch_length: Annotated[Positive, Field(le=10**7)] | None = None
    """Steps per epoch; by default one pass over the longer list."""
    batch_size: Annotated[Positive, Field(le=4096)]
    """Labelled images per optimizer step over **all** processes, and as many unlabelled ones;
    SupOnly, which has no unlabelled ones, fills their places with labelled images."""
    micro_batch: Positive | None = None
    """Labelled images that one forward of one process sees; gradients of several forwards are
    accumulated until all images of a step were seen.  By default one forward sees them all.  The
    Dice loss is that of a forward's images, averaged over forwards, not that of the whole step."""
    conf_thresh: Share = 0.95
    """Confidence a pseudo-label needs."""
    cutmix_partner: Literal["other", "self", "batch", "flip"] = "other"
    """The image that CutMix pastes.  other: an independent one; self: another view of the same one;
    batch: the one before it in the batch; flip: the one at its place in the reversed batch.  The
    last two decode and label no second image."""
    precision: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Mixed unless float32; auto: bfloat16 on a GPU or CPU that computes in it (AMX, AVX512_BF16,
    ARM's bf16), else float16 on a GPU and float32 on a CPU.  A run keeps what it found."""
    tf32: bool | None = None
    """TF32 in float32 convolutions and matrix products on a GPU; null: torch's own choice."""
    channels_last: bool | Literal["auto"] = False
    """Images and weights with channels innermost, the layout of tensor cores; auto: on a GPU, and
    on a CPU in bfloat16."""
    compile: bool = False
    """Compile the network with `torch.compile`: slow first steps, faster ones after them."""
    seed: Natural = 0
    """Seed of all randomness; the same seed gives the same run."""
    deterministic: bool = False
    """Bit-equal runs on one machine, GPU included, at the price of slower kernels."""
    save_every: Positive | None = None
    """Steps between checkpoints inside an epoch; by default there is one at its end."""
    save_minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes between checkpoints inside an epoch."""
    nonfinite_limit: Natural = 20
    """Steps in a row that may be left out for a loss or gradient that is not finite."""
    method: dict[str, Any] = {}
    """Options of the method, documented in its script."""

    @model_validator(mode="after")
    def _selects_what_there_is(self) -> "Config":
        select, volumes = self.evaluation.select, self.evaluation.volume_pattern
        scores = ["miou", "dice", *(f"iou:{name}" for name in self.data.classes)]
        if select not in scores:
            raise ValueError(
                f"evaluation.select: found '{select}', expected miou, dice or iou:CLASS, with one "
                "of data.classes"
            )
        if select == "dice" and volumes is None:
            raise ValueError("evaluation.select: dice needs evaluation.volume_pattern")
        return self

    @model_validator(mode="after")
    def _one_weight_per_class(self) -> "Config":
        weights, name = self.criterion.class_weights, self.criterion.name
        if weights is not None and name == "dice":
            raise ValueError("criterion.class_weights weigh cross-entropy, which dice has none of")
        if isinstance(weights, tuple) and len(weights) != self.num_classes:
            raise ValueError(
                f"criterion.class_weights has {len(weights)} numbers for {self.num_classes} classes"
            )
        return self

    @property
    def num_classes(self) -> int:
        return len(self.data.classes)
