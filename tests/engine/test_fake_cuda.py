"""Steps of every method on CUDA without a GPU: fake tensors know their device but hold no numbers.

Fake tensors refuse mixed devices and reading a number. They cannot run a backward pass or the
optimizer on CUDA; `tests/engine/test_gpu.py` does.
"""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from corrmatch import CorrMatch
from dataset.loaders import map_tensors, to_device
from dataset.transforms.strong import with_channels
from dataset.views import make_views
from engine.command import build_trainer
from engine.progress import Means
from engine.run_dir import RunDir
from fixmatch import FixMatch
from inference.evaluation import evaluate
from metrics.calibration import PseudoLabelScores
from prevmatch import PrevMatch
from rankmatch import RankMatch
from semi.snapshots import snapshot
from supervised import SupOnly
from tests.conftest import METHODS
from tools.make_shapes.files import generate
from unimatch import UniMatch
from unimatch_v2 import UniMatchV2
from util import distributed
from util.config.loading import load_config
from util.normalize import mean_and_std
from util.precision import autocast

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
FAMILIES = {
    "resnet": "model.backbone=test_resnet",
    "xception": "model.backbone=xception65_deeplab",
    "dpt": "model={network: dpt, backbone: test_vit, pretrained: none}",
}


class Watch(TorchDispatchMode):
    """Record computation in float64 on the GPU, and host synchronisation that fake tensors allow:
    blocking copies, indexing with masks, and indices or values in host memory."""

    def __init__(self):
        super().__init__()
        self.found, self.computed_in = [], set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "convolution":
            self.computed_in.add(out.dtype)
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            at_ease = out.is_cuda and (True in args[2:] or (kwargs or {}).get("non_blocking"))
            if source.is_cuda != out.is_cuda and not at_ease:
                self.found.append(f"copy to {out.device.type} {list(out.shape)}")
        if "index" in name and isinstance(args[1], list | tuple) and args[0].is_cuda:
            indices = [i for i in args[1] if i is not None]
            self.found += [name for i in indices if i.dtype == torch.bool or i.is_cpu]
            values = [x for x in args[2:3] if isinstance(x, Tensor) and x.is_cpu]
            self.found += [f"{name} of a value in host memory" for _ in values]
        outputs = out if isinstance(out, list | tuple) else [out]
        doubles = [x for x in outputs if isinstance(x, Tensor) and x.dtype == torch.double]
        self.found += [f"{name} in float64" for x in doubles if x.is_cuda]
        return out


def nccl(x, op="sum"):
    assert x.is_cuda and x.dtype in (torch.float, torch.long)
    return x


@pytest.fixture
def cuda(toy, tmp_path, monkeypatch):
    """Return a function that builds a trainer from config overrides; the method's tensors are fake
    CUDA tensors."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(distributed, "all_reduce", nccl)
    mode = FakeTensorMode()

    def make(kind, *overrides):
        config = load_config(toy.config, ["crop_size=48", *overrides])
        training = build_trainer(kind, config, CPU, RunDir(tmp_path / "run"), "never")
        raw = map_tensors(mode.from_tensor, training.train_loader.batch_at(0))
        with mode:
            for module in training.method.modules():
                for name, p in module.named_parameters(recurse=False):
                    there = mode.from_tensor(p).detach().to(CUDA)
                    setattr(module, name, nn.Parameter(there, p.requires_grad))
                for name, b in module.named_buffers(recurse=False):
                    setattr(module, name, mode.from_tensor(b).to(CUDA))
        return training, raw, mode

    return make


def step(training, raw, mode):
    """Run a step from the raw batch to `after_step`; return the dtypes of its convolutions."""
    method, config = training.method, training.config
    with mode:
        mean, std = mean_and_std(config, CUDA)
        method.after_epoch(0, is_best=True)
        with Watch() as watch:
            batch = make_views(to_device(raw, CUDA), mean, std, config.cutmix_partner == "flip")
            with autocast(CUDA, config.precision):
                loss, scalars = method(batch)
            method.after_step(0)
    assert watch.found == []
    assert all(v.is_cuda and v.ndim == 0 for v in (loss, *scalars.values())) and loss.requires_grad
    return watch.computed_in


RESNET, VIT = ("resnet", "float32", "other", "ce"), ("dpt", "bfloat16", "batch", "ohem")
STEPS = [(kind, *how) for kind in METHODS.values() for how in (RESNET, VIT)] + [
    (RankMatch, "resnet", "float16", "self", "ohem"),
    (CorrMatch, "xception", "bfloat16", "flip", "ce"),
]


@pytest.mark.parametrize(("kind", "family", "precision", "partner", "criterion"), STEPS)
def test_a_step(kind, family, precision, partner, criterion, cuda):
    settings = f"precision={precision}", f"cutmix_partner={partner}", f"criterion.name={criterion}"
    regions = ["method.regions=2"] * (kind is CorrMatch)  # a loop runs over the regions
    done = step(*cuda(kind, FAMILIES[family], *settings, *regions))
    assert done - {torch.float32} == {getattr(torch, precision)} - {torch.float32}


OTHERS = {
    "pspnet": ["model={network: pspnet, backbone: test_resnet, channels: 8}"],
    "unet": ["model={network: unet, pretrained: none}", "criterion.name=ce_dice"],
    "swin": ["model.backbone=swin_tiny_patch4_window7_224", "model.output_stride=32"],
    "class weights": ["criterion.class_weights=[1, 2, 3]"],
}


@pytest.mark.parametrize(
    ("kind", "what"), [*zip([UniMatchV2, UniMatch, UniMatch, FixMatch], OTHERS, strict=True)]
)
def test_a_step_on_other_networks_and_losses(kind, what, cuda):
    step(*cuda(kind, "precision=bfloat16", "model.pretrained=none", *OTHERS[what]))


def test_strong_views_of_many_bands():
    with FakeTensorMode(), Watch() as watch:
        image, luma = (torch.empty(2, bands, 8, 8, device=CUDA) for bands in (5, 1))
        assert with_channels(image, (3, 1, 0), luma).is_cuda
    assert watch.found == []


@pytest.mark.parametrize("kind", [UniMatch, UniMatchV2])
def test_a_step_on_pairs(kind, cuda, toy):
    root = toy.root / "pairs"
    generate(root, labeled=3, unlabeled=4, val=1, size=40, pairs=True, progress=False)
    toy.use_pairs(root)
    step(*cuda(kind, "precision=bfloat16"))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, "{teacher: ema}") for kind in (FixMatch, UniMatch, RankMatch, CorrMatch)),
        (UniMatchV2, "{teacher: self}"),
        *((PrevMatch, f"{{prev: {{confidence: {how}}}}}") for how in ("pixelavg", "imageavg")),
        (PrevMatch, "{prev: {store: gpu}}"),
    ],
)
def test_a_step_with_options(kind, options, cuda):
    step(*cuda(kind, f"method={options}"))


@pytest.mark.parametrize("on_gpu, place", [(True, CUDA), (False, CPU)])
def test_where_previous_models_are_kept(on_gpu, place):
    with FakeTensorMode():
        kept = snapshot({"weight": torch.empty(2, device=CUDA)}, CUDA, on_gpu)
    assert kept["weight"].device.type == place.type


@pytest.mark.parametrize("kind", [kind for kind in METHODS.values() if kind.unlabeled])
def test_pictures(kind, cuda):
    """Draw panels of every method; CorrMatch and RankMatch use CutMix partners of the batch."""
    regions = ["method.regions=2"] * (kind is CorrMatch)
    precision, partner = (
        ("bfloat16", "batch") if kind in (RankMatch, CorrMatch) else ("float16", "other")
    )
    settings = f"precision={precision}", f"cutmix_partner={partner}"
    training, raw, fake = cuda(kind, FAMILIES["resnet"], *settings, *regions)
    method, config = training.method.eval(), training.config
    with fake, torch.no_grad(), Watch() as watch:
        method.after_epoch(0, is_best=True)
        mean, std = mean_and_std(config, CUDA)
        batch = make_views(to_device(raw, CUDA), mean, std)
        del watch.found[:]  # copies of the batch itself
        with autocast(CUDA, config.precision):
            panels = method.panels(batch)
    assert watch.found == []
    for panel in panels.values():
        marks = [panel.marks.pixels] if getattr(panel, "marks", None) else []
        assert all(x.is_cuda and len(x) == 2 for x in (panel[0], *marks))


def test_a_planted_wait_is_found(cuda, monkeypatch):
    training, raw, fake = cuda(SupOnly, FAMILIES["resnet"])
    sound = SupOnly.step

    def faulty(method, batch):
        batch["labeled"]["image"].cpu()
        return sound(method, batch)

    monkeypatch.setattr(SupOnly, "step", faulty)
    with pytest.raises(AssertionError, match="copy to cpu"):
        step(training, raw, fake)


@pytest.mark.parametrize(
    ("family", "mode", "is_trusted"),
    [
        ("resnet", "original", True),
        ("resnet", "center_crop", False),
        ("resnet", "resize", True),
        ("dpt", "sliding_window", False),
    ],
)
def test_validation_reads_the_device_once(family, mode, is_trusted, cuda):
    """The normalisation is copied to the device before the first image; calibration counts stay on
    the device until they are asked for."""
    training, _, fake = cuda(SupOnly, FAMILIES[family], "precision=bfloat16")
    with fake:
        image = torch.zeros(1, 3, 50, 61, dtype=torch.uint8)
        batch = {"image": image, "mask": image[:, 0], "index": 0}
        labels = PseudoLabelScores(3, torch.zeros((), device=CUDA), CUDA) if is_trusted else None
        # Fake tensors have no values, so that the number of non-finite images cannot be read.
        with Watch() as watch, pytest.raises(DataDependentOutputException):
            evaluate(
                training.method.model, [batch] * 2, training.config,
                mode=mode, device=CUDA, volumes=[0], pseudo_labels=labels,
            )  # fmt: skip
    # 9 entries of the confusion matrix, 9 counts of one image, the number of non-finite images.
    assert watch.found == ["copy to cuda [2, 3]", "copy to cpu [19]"]


def test_means_go_on_from_a_checkpoint_on_the_gpu(cuda):
    """Resume a run that stopped between the last step of an epoch and the validation."""
    training, _, fake = cuda(SupOnly)
    with fake:
        means = Means({"sums": {"loss": torch.zeros(())}, "count": 20}, CUDA)
        assert means.state()["sums"]["loss"].device == CPU
