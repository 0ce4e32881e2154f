"""Steps against slow, literal transcriptions of the papers: loops over pixels, no shared verbs."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import CLASSES

from fixmatch import FixMatch
from model.build import build_network
from unimatch import UniMatch
from util.config_file import load_config


def drop_even(x, *_, **__):
    """A channel dropout that a test can repeat."""
    kept = torch.arange(x.shape[1]) % 2
    return x * 2 * kept.view(1, -1, 1, 1)


def views_batch(seed, images, size, classes, views, partner, padding):
    g = torch.Generator().manual_seed(seed)

    def image():
        return torch.randn(images, 3, size, size, generator=g)

    def ignore():
        mask = torch.zeros(images, size, size, dtype=torch.bool)
        if padding:
            mask[-1, size // 2 :] = True
        return mask

    boxes = []
    for _ in range(views):
        box = torch.zeros(images, size, size, dtype=torch.bool)
        box[0, 3:17, 5 : size - 4] = True
        box[-1, : 4 + len(boxes), :9] = True
        boxes.append(box)
    mask = torch.randint(classes, (images, size, size), generator=g)
    mask[0, :3] = 255
    unlabeled = {"weak": image(), "ignore": ignore(), "strong": [image() for _ in range(views)]}
    unlabeled["box"] = boxes
    if partner:
        unlabeled["partner"] = {"weak": image(), "ignore": ignore()}
    return {"labeled": {"image": image(), "mask": mask}, "unlabeled": unlabeled}


def pixels(shape):
    return [(b, i, j) for b in range(shape[0]) for i in range(shape[1]) for j in range(shape[2])]


def probabilities(logits):
    z = logits.detach().double().numpy()
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def supervised_loss(logits, target):
    p, terms = probabilities(logits), []
    for b, i, j in pixels(target.shape):
        if target[b, i, j] != 255:
            terms.append(-math.log(p[b, target[b, i, j], i, j]))
    return sum(terms) / len(terms)


def label_of(logits, ignore):
    """Per pixel (label, confidence, valid)."""
    p = probabilities(logits)
    out = {}
    for b, i, j in pixels(ignore.shape):
        scores = [p[b, c, i, j] for c in range(p.shape[1])]
        out[b, i, j] = (int(np.argmax(scores)), max(scores), not ignore[b, i, j])
    return out


def mixed_labels(own, other, box):
    return {q: (other[q] if box[q] else own[q]) for q in own}


def unsupervised_loss(logits, labels, tau):
    p, total, valid = probabilities(logits), 0.0, 0
    for (b, i, j), (label, conf, is_valid) in labels.items():
        valid += is_valid
        if is_valid and conf >= tau:
            total -= math.log(p[b, label, i, j])
    return total / max(valid, 1)


def partner_labels(network, u, own, images):
    """Eval-mode labels of the partners; without partners, the previous image's own labels."""
    if "partner" not in u:
        return {(b, i, j): own[(b - 1) % images, i, j] for b, i, j in own}
    network.eval()
    with torch.no_grad():
        logits = network(u["partner"]["weak"])
    network.train()
    return label_of(logits, u["partner"]["ignore"])


def fixmatch_literally(network, batch, tau):
    x, y, u = batch["labeled"]["image"], batch["labeled"]["mask"], batch["unlabeled"]
    other = partner_labels(network, u, {}, len(x)) if "partner" in u else None
    z = network(torch.cat([x, u["weak"]]))
    own = label_of(z[len(x) :], u["ignore"])
    other = other or partner_labels(network, u, own, len(x))
    z_s = network(u["strong"][0])
    labels = mixed_labels(own, other, u["box"][0])
    return (supervised_loss(z[: len(x)], y) + unsupervised_loss(z_s, labels, tau)) / 2


def unimatch_literally(network, batch, tau):
    x, y, u = batch["labeled"]["image"], batch["labeled"]["mask"], batch["unlabeled"]
    n = len(x)
    other = partner_labels(network, u, {}, n) if "partner" in u else None
    c1, c4 = network.features(torch.cat([x, u["weak"]]))
    c1, c4 = torch.cat([c1, drop_even(c1)]), torch.cat([c4, drop_even(c4)])
    z = network.decode([c1, c4], x.shape[-2:])
    own = label_of(z[n : 2 * n], u["ignore"])
    other = other or partner_labels(network, u, own, n)
    z_s = network(torch.cat(u["strong"]))
    s1 = unsupervised_loss(z_s[:n], mixed_labels(own, other, u["box"][0]), tau)
    s2 = unsupervised_loss(z_s[n:], mixed_labels(own, other, u["box"][1]), tau)
    fp = unsupervised_loss(z[3 * n :], own, tau)
    return (supervised_loss(z[:n], y) + 0.25 * s1 + 0.25 * s2 + 0.5 * fp) / 2


@pytest.mark.parametrize(
    "seed, images, size, tau", [(0, 2, 33, 0.0), (1, 3, 41, 0.5), (2, 2, 48, 0.9)]
)
@pytest.mark.parametrize("partner", [True, False])
@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize(
    "kind, literally", [(FixMatch, fixmatch_literally), (UniMatch, unimatch_literally)]
)
def test_step(kind, literally, padding, partner, seed, images, size, tau, toy, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "dropout2d", drop_even)
    config = load_config(toy.config, [f"conf_thresh={tau}"])
    torch.manual_seed(seed)
    network = build_network(config.model, len(CLASSES)).train()
    with torch.no_grad():
        network.classifier.weight *= 20  # confident somewhere
    batch = views_batch(seed, images, size, len(CLASSES), kind.strong_views, partner, padding)
    expected = literally(copy.deepcopy(network), batch, tau)
    loss, _ = kind(network, config)(batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
