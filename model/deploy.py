"""Networks for use without this repository: ONNX, TorchScript and safetensors files, and such files
as functions again."""

import io
import json
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network import Network
from util.colours import palette
from util.config.loading import portable
from util.config.schema import Config
from util.errors import UserError
from util.normalize import mean_and_std, normalise

ExportedFunction = Callable[[Tensor], Tensor]
NORMALISATION, RESIZING = "normalisation", "resizing"
NODATA_NOTE = (
    "pixels without data are not detected: set them to the lower bound of image_range (before "
    "normalisation), and ignore the network's output there (the ignore index is 255)"
)
PROTOBUF_LIMIT = 2**31
"""Largest ONNX file in bytes."""


class Deployed(nn.Module):
    """Images `[B, C, H, W]`, float32 -> logits `[B, classes, H, W]`, equal to those of `predict.py`
    without test-time augmentation.

    With the normalisation inside, images hold file values (0 to 255, or those of data.image_range),
    else normalised ones. With the resizing inside, they have any size, else one that the network
    takes.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, config: Config, inside: Collection[str]):
        super().__init__()
        cpu = torch.device("cpu")
        self.network = network
        self.inside = inside
        self.normalises = NORMALISATION in inside
        self.resize_multiple = network.size_multiple if RESIZING in inside else 1
        resized = RESIZING in inside and config.evaluation.mode == "resize"
        self.square_side = config.crop_size if resized else None
        low, high = (bound[:, None, None] for bound in torch.tensor(value_range(config)))
        mean, std = mean_and_std(config, cpu)
        for name, value in {"low": low, "high": high, "mean": mean, "std": std}.items():
            self.register_buffer(name, value, persistent=False)  # moves with the network

    @property
    def size_multiple(self) -> int:
        """Number that must divide the sides of an image."""
        return self.network.size_multiple // self.resize_multiple

    def from_unit(self, image: Tensor) -> Tensor:
        """Convert images in [0, 1] to its input."""
        if self.normalises:
            return image * (self.high - self.low) + self.low
        return normalise(image, self.mean, self.std)

    def forward(self, image: Tensor) -> Tensor:
        if self.normalises:
            unit = ((image - self.low) / (self.high - self.low)).clamp(0, 1)
            image = normalise(unit, self.mean, self.std)
        if self.square_side is None:
            return self.logits_at_own_size(image)
        square = (self.square_side, self.square_side)
        resized = F.interpolate(image, square, mode="bilinear", align_corners=False)
        logits = self.logits_at_own_size(resized)
        return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)

    def logits_at_own_size(self, x: Tensor) -> Tensor:
        """Compute `inference.predictor.logits_of` with operations that exporters can trace. Image
        sides must be at least half of `resize_multiple` and at least the network's `min_side`."""
        unit = self.resize_multiple
        if unit == 1:
            return self.network(x)
        h, w = x.shape[-2:]
        fit = ((2 * h + unit) // (2 * unit) * unit, (2 * w + unit) // (2 * unit) * unit)
        logits = self.network(F.interpolate(x, fit, mode="bilinear", align_corners=True))
        return F.interpolate(logits, (h, w), mode="bilinear", align_corners=True)


def value_range(config: Config) -> tuple[list[float], list[float]]:
    """Return the values that become 0 and 1, for each band of each date."""
    lows, highs = zip(*config.data.band_ranges * config.data.dates, strict=True)
    return list(lows), list(highs)


def metadata(config: Config, deployed: Deployed) -> dict[str, str]:
    """Return the metadata of a file: values in JSON, by name."""
    data = config.data
    low, high = value_range(config)
    shape = "[batch, channels, height, width]"
    order = "; pairs: bands of the earlier date, then of the later" if data.dates == 2 else ""
    is_square_outside = config.evaluation.mode == "resize" and RESIZING not in deployed.inside
    facts = {
        "classes": data.classes,
        "palette": palette(data),
        "bands": data.bands,
        "dates": data.dates,
        "image_range": [low, high],
        "mean": deployed.mean.flatten().tolist(),
        "std": deployed.std.flatten().tolist(),
        "input": f"{shape}, {_values(config, deployed)}{order}",
        "output": "logits [batch, classes, height, width]",
        "nodata": NODATA_NOTE,
        "inside": [name for name in (NORMALISATION, RESIZING) if name in deployed.inside],
        "square": config.crop_size if is_square_outside else None,
        "multiple_of": deployed.size_multiple,
        "least_side": deployed.network.min_side,
        "config": portable(config).model_dump(mode="json"),
    }
    return {name: json.dumps(value) for name, value in facts.items()}


def _values(config: Config, deployed: Deployed) -> str:
    if not deployed.normalises:
        return "normalised"
    scaled = "; those of 8-bit files scaled from 0..255 to image_range"
    data = config.data
    return f"values of the file{scaled if data.image_range and data.takes_8_bits else ''}"


def to_onnx(deployed: Deployed, example: Tensor, fixed: bool, facts: dict[str, str]) -> bytes:
    """Export with torch's exporter of captured graphs: the older one lacks antialiased resizing."""
    if sum(value.nbytes for value in deployed.state_dict().values()) >= PROTOBUF_LIMIT:
        raise UserError(
            "--format onnx: found weights of 2 GiB or more, expected less. "
            "Fix: pass --format torchscript"
        )
    free = torch.export.Dim.DYNAMIC
    sides = {} if fixed else {2: free, 3: free}
    with _quiet():
        program = torch.onnx.export(
            deployed, (example,), input_names=["image"], output_names=["logits"], dynamo=True,
            dynamic_shapes=({0: free, **sides},), verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for node in (n for graph in (model.graph, *model.functions) for n in graph.node):
        node.ClearField("metadata_props")  # stack traces, with the paths of this machine
        node.ClearField("doc_string")
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def from_onnx(content: bytes) -> ExportedFunction:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"image": np.ascontiguousarray(x)})[0])


def to_torchscript(deployed: Deployed, example: Tensor, facts: dict[str, str]) -> bytes:
    """Export by tracing; the metadata are the extra file metadata.json."""
    file, extra = io.BytesIO(), {"metadata.json": json.dumps(facts)}
    with _quiet(), torch.no_grad():
        traced = torch.jit.trace(deployed, example, check_trace=False)
        torch.jit.save(traced, file, _extra_files=extra)
    return _without_source_paths(file.getvalue())


def _without_source_paths(content: bytes) -> bytes:
    """Copy a TorchScript archive without its debug records, which name files of this machine."""
    reader, file = torch._C.PyTorchFileReader(io.BytesIO(content)), io.BytesIO()
    writer = torch._C.PyTorchFileWriter(file)
    # By the writer; also its version, a lower one, unless a record of that name is copied: older
    # versions divide integers otherwise.
    added = {"byteorder", ".data/serialization_id"}
    for name in reader.get_all_records():
        if name not in added and not name.endswith(".debug_pkl"):
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return file.getvalue()


def from_torchscript(content: bytes) -> ExportedFunction:
    with _quiet():
        return torch.jit.load(io.BytesIO(content), map_location="cpu")


def to_safetensors(deployed: Deployed, facts: dict[str, str]) -> bytes:
    """Return the network's weights under their names; the format holds no code."""
    weights = deployed.network.state_dict()
    file = safetensors.torch.save({k: v.contiguous() for k, v in weights.items()}, facts)
    # Sort the header, whose order is random, so that equal networks give equal files and hashes.
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[start:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' deprecation warnings, and those about branches, which a comparison at
    other sizes tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
