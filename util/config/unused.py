"""Settings of a config that its network, loss or optimizer does not use."""

from collections.abc import Iterator

from util.config.schema import Config

NEEDED = {
    "model.backbone": ("model.network", ("deeplabv3plus", "pspnet", "dpt")),
    "model.output_stride": ("model.network", ("deeplabv3plus", "pspnet")),
    "model.patch_size": ("model.network", ("dpt",)),
    "model.layers": ("model.network", ("dpt",)),
    "model.widths": ("model.network", ("unet",)),
    "model.dropout": ("model.network", ("unet",)),
    "criterion.thresh": ("criterion.name", ("ohem",)),
    "criterion.min_kept": ("criterion.name", ("ohem",)),
    "optimizer.momentum": ("optimizer.name", ("sgd",)),
}
"""The key that decides whether a key has an effect, and the values with which it has."""


def unused_settings(config: Config) -> Iterator[str]:
    """Yield a message about each of these keys that has no effect, unless it is at its default."""
    for key, (needed, values) in NEEDED.items():
        section_name, name = key.split(".")
        section = getattr(config, section_name)
        value, choice = getattr(section, name), getattr(section, needed.split(".")[1])
        if choice not in values and value != type(section).model_fields[name].default:
            yield (
                f"{key}: {value} has no effect with {needed} {choice}, only with "
                f"{' or '.join(values)}"
            )
