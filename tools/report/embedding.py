"""t-SNE of decoder features: a point is the mean feature of a class in a validation image."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from dataset.folders import read_samples
from dataset.reader import Reader
from dataset.samples import Sample
from inference.evaluation import center_crop
from inference.predictor import Predictor
from model.files import best_checkpoint
from model.network import Network
from model.trained import load_trained
from semi.panels import captured_features
from tools.report.charts import scatter
from tools.results.runs import Run
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError


def embedding(run: Run, which: str, device: torch.device, limit: int | None) -> Figure:
    """Draw the t-SNE of the validation images (the first `limit`) with a run's best checkpoint.

    Raises `UserError` for missing files, and for fewer than 4 points.
    """
    from sklearn.manifold import TSNE

    data = run.config.data
    network = load_trained(run.config, best_checkpoint(run.path, which), which, device)
    samples = read_samples(data.val, data, masks=True).samples[:limit]
    features, classes = class_means(network, samples, run.config, device)
    if len(features) < 4:
        raise UserError(
            f"--embedding: found {len(features)} points (classes in images), expected at least 4. "
            "Fix: use more validation images"
        )
    tsne = TSNE(perplexity=min(30, len(features) / 4), init="pca", random_state=0)
    return scatter(tsne.fit_transform(features), classes, data)


@torch.no_grad()
def class_means(
    network: Network, samples: Sequence[Sample], config: Config, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean feature `[N, D]` and the index `[N]` of each class in the mask of each image.

    Features are the input of the last convolution. Large images are cropped to the central square
    of twice the crop size.
    """
    plain = config.evaluation.model_copy(update={"flip": False, "scales": (1.0,)})
    mode = "resize" if plain.mode == "resize" else "original"
    predictor = Predictor(network, config.model_copy(update={"evaluation": plain}), device, mode)
    reader, means, classes = Reader(config.data), [], list[int]()
    for sample in samples:
        pixels, mask_image = reader.image_and_mask(sample)
        whole_image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        whole_mask = torch.tensor(np.array(mask_image))
        image, mask = (center_crop(x, 2 * config.crop_size) for x in (whole_image, whole_mask))
        with captured_features(network) as captured:
            predictor.predict_batch(image[None])
        features = captured[0][0].float()
        small = F.interpolate(mask[None, None].float(), features.shape[-2:])[0, 0].to(device)
        for index in small.unique().int().tolist():
            if index != IGNORE:
                means.append(features[:, small == index].mean(1).cpu().numpy())
                classes.append(index)
    return np.array(means), np.array(classes)
