"""The keys of a config: types, ranges, defaults and meaning."""

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

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
from util.errors import counted

Weights = Annotated[
    Annotated[Literal["auto", "enet", "inverse"], Tag("<word>")]
    | Annotated[tuple[PositiveFloat, ...], Tag("<numbers>")],
    Discriminator(word_or_numbers),
]
"""A number for each class, or the rule that computes them from the labelled pixels."""
BoolOrAuto = Annotated[
    Annotated[Literal["auto"], Tag("<word>")] | Annotated[bool, Tag("<one>")],
    Discriminator(lambda value: "<word>" if value == "auto" else "<one>"),
]


class Model(Section):
    """The network: architecture, backbone, pretrained weights."""

    network: Literal["deeplabv3plus", "pspnet", "dpt", "unet"] = "deeplabv3plus"
    """`deeplabv3plus` and `pspnet` use a CNN, `dpt` a ViT; `unet` has its own encoder."""
    backbone: str = "resnet101s"
    """Name of the backbone in timm. deeplabv3plus, pspnet: any CNN with feature maps (published
    with resnet50s, resnet101s), or a hierarchical backbone (Swin, PVTv2, HRNet, MambaOut) with
    output_stride 32. dpt: any plain ViT (published with vit_{small,base,large}_patch14_dinov2).
    unet ignores it."""
    output_stride: Literal[8, 16, 32] = 16
    """Image pixels per pixel of a CNN's deepest feature map. 8 keeps more detail and needs more
    memory than 16; most hierarchical backbones need 32. A ViT uses its patch size instead."""
    aspp_rates: tuple[Dilation, Dilation, Dilation] = (6, 12, 18)
    """Dilation rates of deeplabv3plus's ASPP; published with 12, 24, 36 at output stride 8."""
    patch_size: Annotated[Positive, Field(le=256)] | None = None
    """Side of a ViT's patches in pixels. Default: the backbone's own, which pretrained weights
    need."""
    layers: tuple[Positive, Positive, Positive, Positive] | None = None
    """The four blocks of a ViT, counted from 1, whose patch tokens dpt decodes. Default for DINOv2
    and DINOv3: 3, 6, 9, 12 (S, B), 5, 12, 18, 24 (L), 10, 20, 30, 40 (g), as published; for other
    ViTs the ends of the four quarters."""
    multi_grid: bool = False
    """Multiply the dilations of the 3x3 convolutions in a ResNet's last stage by 2, 2, 4."""
    channels: Width = 256
    """Width of deeplabv3plus's ASPP and decoder, and of CorrMatch's correlation features. dpt's
    decoder follows its ViT."""
    widths: Annotated[tuple[Width, ...], Field(min_length=2)] = (16, 32, 64, 128, 256)
    """Channels of the levels of unet, from full resolution down. The number of values is the number
    of levels."""
    dropout: tuple[Share, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    """Dropout in unet's encoder: one number for each level of `widths`."""
    pretrained: Annotated[str, Field(min_length=1)] = "file"
    """Weights of the backbone. `file`: pretrained/<backbone>.pth; `hub`: download timm's; `none`:
    random weights; or the path of a .pth file."""
    lora: Annotated[Natural, Field(le=1024)] = 0
    """Rank of LoRA adapters on the attention of a ViT (network dpt; needs peft,
    requirements-extra.txt). The other weights of the backbone stay pretrained and are not stored in
    checkpoints. 0: no adapters, train all weights."""
    lock_backbone: bool = False
    """Freeze the backbone at its pretrained weights and train the decoder only."""
    checkpoint_activations: bool = False
    """Recompute the backbone's blocks in the backward pass: less memory, slower steps. `compile`
    leaves these blocks out."""

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if layers is not None and sorted(set(layers)) != list(layers):
            raise ValueError("expected four increasing numbers of blocks, such as [3, 6, 9, 12]")
        return layers

    @model_validator(mode="after")
    def _check_combination(self) -> "Model":
        if self.lora and (self.network != "dpt" or self.pretrained == "none"):
            raise ValueError("lora needs network dpt and pretrained weights. Fix: set lora to 0")
        if self.lora and self.lock_backbone:
            raise ValueError(
                "lora trains the backbone, which lock_backbone locks. Fix: set only one"
            )
        if len(self.dropout) != len(self.widths):
            numbers = counted(len(self.dropout), "number")
            levels = counted(len(self.widths), "level")
            raise ValueError(f"dropout has {numbers} for the {levels} of widths")
        return self


class Criterion(Section):
    """The loss of labelled images and of pseudo-labels."""

    name: Literal["ce", "ohem", "dice", "ce_dice"] = "ce"
    """`ce`: cross-entropy over all labelled pixels; `ohem`: over the hard pixels only; `dice`: Dice
    loss over the images of a forward pass; `ce_dice`: the mean of ce and dice. Pseudo-labels use
    Dice with dice and ce_dice, else cross-entropy."""
    thresh: Share = 0.7
    """ohem: a pixel is hard if its true class has at most this probability."""
    min_kept: Positive = 100_000
    """ohem: keep at least this many pixels times the number of images in a forward pass, the
    hardest of all its images. With `crop_size` squared or more, ohem keeps all pixels and equals
    ce."""
    class_weights: Weights | None = None
    """Weight of each class in the cross-entropy of labelled images: one number per class, or a rule
    based on the class's share of the labelled pixels. `enet` (or `auto`): 1 / ln(1.02 + share)
    (Paszke et al., 2016); `inverse`: 1 / (share x number of classes that occur), so all classes
    have the same total weight. Default: all 1."""


class Optimizer(Section):
    """SGD or AdamW; the learning rate decays to 0 over the run."""

    name: Literal["sgd", "adamw"] = "sgd"
    """`sgd`: SGD with momentum; `adamw`: AdamW with betas 0.9 and 0.999."""
    lr: PositiveFloat = 0.001
    """Initial learning rate of the backbone. unet's backbone is its encoder."""
    lr_batch: Positive | None = None
    """The `batch_size` that `lr` was chosen for. A run with another batch size logs the rate of the
    linear rule, `lr * batch_size / lr_batch`."""
    scale_lr: bool = False
    """Use the rate of the linear rule (needs `lr_batch`). The config.yaml of the run stores the
    scaled `lr`."""
    lr_multi: PositiveFloat = 10.0
    """Factor on `lr` for everything except the backbone. Use 1 for a network without pretrained
    weights; unet was published with one learning rate for all."""
    momentum: Share = 0.9
    """Momentum of sgd."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay; published with 1e-4 for sgd and 0.01 for adamw."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Layer-wise decay of the learning rate in a ViT (BEiT): the last block and the final norm use
    `lr`, each earlier block this factor times the rate of the next one, and the embeddings this
    factor times the rate of the first block. 1: the same rate for all."""
    power: PositiveFloat = 0.9
    """Exponent of the poly decay: step i = 1, ..., N - 1 uses (1 - (i - 1)/N)^power times the
    initial rate, step 0 the initial rate, as published."""

    @model_validator(mode="after")
    def _scales_from_a_batch(self) -> "Optimizer":
        if self.scale_lr and self.lr_batch is None:
            problem = "scale_lr needs lr_batch, the batch_size that lr is meant for"
            raise ValueError(f"{problem}. Fix: set optimizer.lr_batch")
        return self


class Evaluation(Section):
    """Evaluation: how validation and `evaluate.py` predict."""

    mode: Literal["original", "sliding_window", "center_crop", "resize"] = "original"
    """`original`: whole images; `sliding_window`: overlapping windows of crop_size, whose
    probabilities are added; `center_crop`: the centre of each image (fast, for early epochs);
    `resize`: images resized to squares of crop_size."""
    window_border: Literal["cut", "shift"] = "cut"
    """The last sliding window of a row or column: `cut` makes it smaller, `shift` moves it back to
    end at the border."""
    window_batch: Positive = 8
    """Largest number of sliding windows of one size in a batch. More windows are faster on a GPU
    and need more memory."""
    flip: bool = False
    """Test-time augmentation: also predict the mirror image and average the probabilities. This key
    applies to validation during training too; `--tta flip` of evaluate.py and predict.py applies to
    one command."""
    scales: Annotated[tuple[Annotated[PositiveFloat, Field(le=16)], ...], Field(min_length=1)] = (
        1.0,
    )
    """Test-time augmentation: predict the image (in mode resize: its square of crop_size) at each
    of these scales and average the probabilities. `--tta 0.75 1 1.25` applies to one command."""
    center_crop_epochs: Natural = 0
    """Number of first epochs that are validated by the fast center_crop. Their scores never count
    as best. The last epoch is always validated in the config's mode."""
    every: Positive = 1
    """Epochs between validations. The last epoch is always validated."""
    select: str = "miou"
    """Score that selects the best checkpoint: `miou`; `dice`, the mean over volumes and over all
    classes but the first (needs volume_pattern); or `iou:CLASS`, the IoU of one class."""
    volume_pattern: str | None = None
    """Regular expression whose first group is the name of an image's volume, such as
    `(patient\\d+_frame\\d+)`. With it, Dice per volume is reported."""
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Millimetres between scored slices, rows and columns of all volumes, for `evaluate.py
    --surface-distance`. Default: distances in pixels, with slices one pixel apart."""

    @model_validator(mode="after")
    def _check_spacing(self) -> "Evaluation":
        if self.spacing is not None and self.volume_pattern is None:
            raise ValueError("spacing needs volume_pattern. Fix: set evaluation.volume_pattern")
        return self

    @field_validator("volume_pattern")
    @classmethod
    def _check_volume_pattern(cls, pattern: str | None) -> str | None:
        try:
            if pattern is not None and re.compile(pattern).groups == 0:
                raise ValueError("expected a group, in parentheses, around the volume's name")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"not a regular expression ({error})") from None
        return pattern


class Log(Section):
    """Logging: trackers, pictures, quality of pseudo-labels."""

    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Where scalars and pictures also go: `tensorboard`, `wandb` or both; an empty list for
    neither. wandb is optional (requirements-extra.txt); WANDB_MODE=offline keeps it off the
    network."""
    pictures: Annotated[Natural, Field(le=64)] = 0
    """Number of fixed validation images and unlabelled images to visualise at each validation, as
    PNG in the run directory (pictures/) and in the trackers. 0: none; 4 is a good number."""
    pseudo_labels: bool = True
    """Measure the quality of pseudo-labels on the validation images: the share above the confidence
    threshold, the share of these that is right, and the calibration of the confidence."""


class Config(Section):
    """A whole run."""

    data: Data
    model: Model = Model()
    criterion: Criterion = Criterion()
    optimizer: Optimizer = Optimizer()
    evaluation: Evaluation = Evaluation()
    log: Log = Log()
    crop_size: Annotated[Positive, Field(le=8192)]
    """Side of the square training crops in pixels."""
    epochs: Positive
    """Number of epochs."""
    epoch_length: Annotated[Positive, Field(le=10**7)] | None = None
    """Steps per epoch. Default: one pass over the longer of the labelled and unlabelled split
    (SupOnly: the labelled split)."""
    batch_size: Annotated[Positive, Field(le=4096)]
    """Labelled images per optimizer step over **all** processes; each step also has as many
    unlabelled images. SupOnly uses labelled images only: it draws twice as many per step."""
    micro_batch: Positive | None = None
    """Labelled images per forward pass of one process; gradients are accumulated over the forward
    passes of a step. Smaller values need less memory. Default: all images in one pass. All
    losses are computed per forward pass and averaged."""
    conf_thresh: Share = 0.95
    """Confidence threshold: a pseudo-label counts where its probability is at least this. 0 uses
    all pixels. CorrMatch uses this key only with `method.thresh_init: null`."""
    cutmix_partner: Literal["other", "self", "batch", "flip"] = "other"
    """Partner image for CutMix. `other`: an independent image; `self`: another view of the same
    image; `batch`: the previous image in the batch; `flip`: the image at the mirrored position of
    the batch (of an odd number: as batch). batch and flip are faster, because no second image is
    decoded and labelled."""
    precision: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Floating-point format; all but float32 are mixed precision. `auto`: bfloat16 on a GPU or CPU
    that supports it (CPU: AMX, AVX512_BF16, ARM's bf16), else float16 on a GPU and float32 on a
    CPU. If a resumed run would get another precision on a new machine, it is refused: set that of
    the first start, e.g. `--set precision=bfloat16`."""
    tf32: bool | None = None
    """Use TF32 in float32 convolutions and matrix products on a GPU: faster, slightly less exact.
    Default: torch's own choice."""
    channels_last: BoolOrAuto = False
    """Store the weights of convolutions in channels-last layout, which tensor cores prefer. `auto`:
    on a GPU, and on a CPU in mixed precision."""
    compile: bool = False
    """Compile the network with `torch.compile`: the first steps are slow, later ones faster."""
    seed: Natural = 0
    """Random seed of the run. Is a run reproducible? See docs/reliability.md."""
    deterministic: bool = False
    """Use deterministic kernels, possibly slower: runs on one GPU should then be bit-equal (not
    tested), except with PSPNet and a DINOv2 that is trained: torch lacks kernels for these."""
    save_every: Positive | None = None
    """Steps between additional checkpoints inside an epoch. Default: only one at the end of each
    epoch."""
    save_minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes between additional checkpoints inside an epoch. Default: none."""
    nonfinite_limit: Natural = 20
    """Steps in a row that may be skipped because the gradient is not finite; one more ends the
    run."""
    method: dict[str, Any] = {}
    """Options of the method, such as `{teacher: ema}`; docs/configuration.md lists them by
    method."""

    @model_validator(mode="after")
    def _check_combination(self) -> "Config":
        select = self.evaluation.select
        scores = ["miou", "dice", *(f"iou:{name}" for name in self.data.classes)]
        if select not in scores:
            raise ValueError(
                f"evaluation.select: found '{select}', expected miou, dice or iou:CLASS, with one "
                "of data.classes"
            )
        if select == "dice" and self.evaluation.volume_pattern is None:
            raise ValueError("evaluation.select: dice needs evaluation.volume_pattern")
        weights = self.criterion.class_weights
        if weights is not None and self.criterion.name == "dice":
            raise ValueError("criterion.class_weights: apply to cross-entropy, but dice has none")
        if isinstance(weights, tuple) and len(weights) != self.num_classes:
            numbers = counted(len(weights), "number")
            raise ValueError(
                f"criterion.class_weights: has {numbers} for {self.num_classes} classes"
            )
        return self

    @property
    def num_classes(self) -> int:
        return len(self.data.classes)

    def with_class_weights(self, weights: str | tuple[float, ...] | None) -> "Config":
        """Return the config with a rule or numbers as `criterion.class_weights`."""
        criterion = self.criterion.model_copy(update={"class_weights": weights})
        return self.model_copy(update={"criterion": criterion})
