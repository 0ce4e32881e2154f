"""`criterion.class_weights` by name become numbers, once the labelled list is known."""

import torch

from dataset.class_frequency import class_pixels, enet_weights, inverse_weights
from dataset.split_files import SampleList
from util import distributed
from util.config.schema import Config
from util.log import logger

WEIGHTS = {"auto": enet_weights, "enet": enet_weights, "inverse": inverse_weights}


def with_class_weights(config: Config, labeled: SampleList, device: torch.device) -> Config:
    """The config with numbers in place of a name, which the run's folder and checkpoints keep.

    Counted on the main process.  Raises `UserError` for a faulty mask.
    """
    name = config.criterion.class_weights
    if not isinstance(name, str):
        return config
    logger.info("criterion.class_weights: counting classes in %d masks", len(labeled.samples))
    pixels = torch.zeros(config.num_classes, dtype=torch.int64)

    def count() -> None:
        pixels.copy_(torch.from_numpy(class_pixels(labeled, config.data)))

    distributed.on_main(count)
    weights = WEIGHTS[name](distributed.all_reduce(pixels.to(device)).cpu().numpy())
    logger.info("class weights: %s", ", ".join(f"{weight:g}" for weight in weights))
    criterion = config.criterion.model_copy(update={"class_weights": weights})
    return config.model_copy(update={"criterion": criterion})
