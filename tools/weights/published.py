"""Published files of pretrained weights for the backbones of the configs."""

from typing import NamedTuple

_GLUON = "https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1/"
_SEGMENTRON = "https://github.com/LikeLy-Journey/SegmenTron/releases/download/v0.1.0/"
_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2/"
_DINOV3 = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/"
_DRIVE = "https://drive.google.com/file/d/"


class Source(NamedTuple):
    """A published file of weights for the backbone `backbone` (a value of `model.backbone`)."""

    backbone: str
    file: str
    where: str
    """URL of the file if it can be downloaded directly, else of the page that offers it."""
    sha256: str = ""
    """First 8 hexadecimal digits, as in the file's name; empty where no hash is published."""
    direct: bool = True
    note: str = ""

    @property
    def hash(self) -> str:
        return f"sha256 {self.sha256}..." if self.sha256 else "no hash published"


_PAPERS = "the file of UniMatch and the methods built on it; download it with a browser"
_OTHER = "the same network as in the papers' file, trained on ImageNet by others"
_LICENCE = "Meta asks for an account and the DINOv3 licence; fetch takes timm's copy from the hub"

SOURCES = [
    Source("resnet50s", "gluon_resnet50_v1s-1762acc0.pth",
           f"{_GLUON}gluon_resnet50_v1s-1762acc0.pth", "1762acc0", note=_OTHER),
    Source("resnet50s", "resnet50.pth", f"{_DRIVE}1mqUrqFvTQ0k5QEotk4oiOFyP6B9dVZXS/view",
           direct=False, note=_PAPERS),
    Source("resnet101s", "gluon_resnet101_v1s-60fe0cc1.pth",
           f"{_GLUON}gluon_resnet101_v1s-60fe0cc1.pth", "60fe0cc1", note=_OTHER),
    Source("resnet101s", "resnet101.pth", f"{_DRIVE}1Rx0legsMolCWENpfvE2jUScT3ogalMO8/view",
           direct=False, note=_PAPERS),
    Source("xception65_deeplab", "tf-xception65-270e81cf.pth",
           f"{_SEGMENTRON}tf-xception65-270e81cf.pth", "270e81cf", note=_OTHER),
    Source("xception65_deeplab", "xception.pth", f"{_DRIVE}1_j_mE07tiV24xXOJw4XDze0-a0NAhNVi/view",
           direct=False, note=_PAPERS),
    *(Source(f"vit_{size}_patch14_dinov2", f"dinov2_vit{size[0]}14_pretrain.pth",
             f"{_DINOV2}dinov2_vit{size[0]}14/dinov2_vit{size[0]}14_pretrain.pth")
      for size in ("small", "base", "large", "giant")),
    *(Source(f"vit_{size}_patch16_dinov3", f"dinov3_vit{size[0]}16_pretrain_lvd1689m-{sha}.pth",
             _DINOV3, sha, direct=False, note=_LICENCE)
      for size, sha in (("small", "08c60483"), ("base", "73cec8be"), ("large", "8aa4cbdd"))),
]  # fmt: skip
"""`fetch` downloads the first direct file of a backbone."""


def sources_of(backbone: str) -> list[Source]:
    """Return the published files of a backbone; none for most names of timm."""
    return [source for source in SOURCES if source.backbone == backbone]


def known_backbones() -> list[str]:
    return list(dict.fromkeys(source.backbone for source in SOURCES))


def source_by_hash(sha256: str) -> Source | None:
    """Return the published file with this SHA-256; None for an unknown one."""
    return next((s for s in SOURCES if s.sha256 and sha256.startswith(s.sha256)), None)
