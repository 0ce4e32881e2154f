"""Slow transcriptions of the methods' definitions: loops over pixels, no shared functions.

A `network` is in train mode and called in the same order as in a method's step, so that running
statistics agree. `fix_draws` replaces the random draws of a step by fixed values.
"""

import copy
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F


def drop_even(x, *_, **__):
    """Drop the even channels: a deterministic channel dropout."""
    kept = torch.arange(x.shape[1]) % 2
    return x * 2 * kept.view(1, -1, 1, 1)


def first_reference(image, pixels):
    return (5 * image + 2) % pixels


def shares(count):
    return np.arange(1, count + 1) / sum(range(1, count + 1))


def fix_draws(patch):
    """Fix the dropped channels, the first references and the choice of the last two models."""
    patch.setattr(F, "dropout2d", drop_even)
    patch.setattr(
        torch, "randint",
        lambda high, size, **_: torch.tensor([first_reference(b, high) for b in range(size[0])]),
    )  # fmt: skip
    patch.setattr(np.random, "randint", lambda high: min(1, high - 1))
    patch.setattr(np.random, "choice", lambda n, count, replace: np.arange(n)[::-1][:count])
    patch.setattr(np.random, "dirichlet", lambda ones: shares(len(ones)))


def pixels(shape):
    return [(b, i, j) for b in range(shape[0]) for i in range(shape[1]) for j in range(shape[2])]


def probabilities(logits):
    z = logits.detach().double().numpy()
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def supervised_loss(logits, target):
    p, target, terms = probabilities(logits), target.numpy(), []
    for b, i, j in pixels(target.shape):
        if target[b, i, j] != 255:
            terms.append(-math.log(p[b, target[b, i, j], i, j]))
    return sum(terms) / len(terms)


def label_of(logits, ignore):
    """Return (label, confidence, valid) by pixel."""
    p, ignore, out = probabilities(logits), ignore.numpy(), {}
    for b, i, j in pixels(ignore.shape):
        scores = [p[b, c, i, j] for c in range(p.shape[1])]
        out[b, i, j] = (int(np.argmax(scores)), max(scores), not ignore[b, i, j])
    return out


def mixed_labels(own, other, box):
    box = box.numpy()
    return {q: (other[q] if box[q] else own[q]) for q in own}


def unsupervised_loss(logits, labels, tau):
    p, total, valid = probabilities(logits), 0.0, 0
    for (b, i, j), (label, conf, is_valid) in labels.items():
        valid += is_valid
        if is_valid and conf >= tau:
            total -= math.log(p[b, label, i, j])
    return total / max(valid, 1)


def partner_labels(network, u, own, images):
    """Return labels of the partners, by a network in eval mode, or of the previous images."""
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


def taught_literally(network, batch, tau, views):
    """Return the loss of FixMatch with an EMA teacher (1 view) or of UniMatch V2 (2 views).

    The teacher has the student's weights: before the first update, and with `teacher: self`.
    """
    x, y, u = batch["labeled"]["image"], batch["labeled"]["mask"], batch["unlabeled"]
    n = len(x)
    teacher = copy.deepcopy(network).eval()
    with torch.no_grad():
        own = label_of(teacher(u["weak"]), u["ignore"])
    other = partner_labels(teacher, u, own, n)
    if views == 1:
        z_x, *z_s = network(torch.cat([x, u["strong"][0]])).split(n)
    else:
        z_x, features = network(x), network.features(torch.cat(u["strong"]))
        for f in features:
            for b in range(1, n):  # the first image keeps all its channels
                for channel in range(f.shape[1]):
                    f[b, channel] *= 2 * (channel % 2)
                    f[n + b, channel] *= 2 - 2 * (channel % 2)
        z_s = network.decode(features, x.shape[-2:]).split(n)
    terms = [
        unsupervised_loss(z, mixed_labels(own, other, box), tau)
        for z, box in zip(z_s, u["box"], strict=True)
    ]
    return (supervised_loss(z_x, y) + sum(terms) / views) / 2


def unimatch_parts(network, batch, tau):
    """Return L_x, the weighted sum of unsupervised losses, logits of s1, s2, dropped features."""
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
    loss_u = 0.25 * s1 + 0.25 * s2 + 0.5 * fp
    return supervised_loss(z[:n], y), loss_u, (z_s[:n], z_s[n:], z[3 * n :])


def unimatch_literally(network, batch, tau):
    loss_x, loss_u, _ = unimatch_parts(network, batch, tau)
    return (loss_x + loss_u) / 2


def rankmatch_literally(network, batch, tau, references=64):
    x, u = batch["labeled"]["image"], batch["unlabeled"]
    n = len(x)
    if "partner" in u:
        network.eval()
        with torch.no_grad():
            f_other = network.head(network.features(u["partner"]["weak"])[-1])
        network.train()
    heads = []
    hook = network.head.register_forward_hook(lambda *args: heads.append(args[-1].detach()))
    base = unimatch_literally(network, batch, tau)
    hook.remove()
    f_w, f_s = heads[-2][n : 2 * n], heads[-1]
    if "partner" not in u:
        f_other = torch.stack([f_w[b - 1] for b in range(n)])
    terms = []
    for view, box in enumerate(u["box"]):
        strong = f_s[view * n : (view + 1) * n]
        mixed = features_mixed_at_full_size(f_w, f_other, box)
        terms.append(ranking_divergence(mixed, strong, references))
    return base + 0.1 * (terms[0] + terms[1]) / 2


def features_mixed_at_full_size(own, other, box):
    def resize(f, size):
        return F.interpolate(f.double(), size, mode="bilinear", align_corners=True)

    size = box.shape[-2:]
    return resize(torch.where(box[:, None], resize(other, size), resize(own, size)), own.shape[-2:])


def cosine(a, b):
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return abs(a @ b) / norms if norms > 0 else 0.0


def references_literally(pixels, image, count):
    """Return the ascending indices of reference pixels, chosen one by one from `[hw, D]`."""
    chosen = [first_reference(image, len(pixels))]
    while len(chosen) < min(count, len(pixels)):
        free = [i for i in range(len(pixels)) if i not in chosen]
        chosen.append(min(free, key=lambda i: max(cosine(pixels[i], pixels[j]) for j in chosen)))
    return sorted(chosen)


def plackett_luce(q, order):
    probability = 1.0
    for i in range(len(order)):
        probability *= q[order[i]] / (sum(q[j] for j in order[i:]) + 1e-10)
    return probability


def ranking_divergence(weak, strong, count):
    terms = []
    for b in range(len(weak)):
        f_w, f_s = (f[b].flatten(1).T.double().numpy() for f in (weak, strong))
        chosen = references_literally(f_w, b, count)
        for pixel in range(len(f_w)):
            distributions = []
            for f in (f_w, f_s):
                likeness = np.array([f[pixel] @ f[r] for r in chosen])
                e = np.exp(likeness - likeness.max())
                distributions.append(e / e.sum())
            q_w, q_s = distributions
            top = np.argsort(-q_w, kind="stable")[:4]
            for order in itertools.permutations(top):
                t, q = plackett_luce(q_w, order), plackett_luce(q_s, order)
                terms.append(t * (math.log(t) - math.log(q + 1e-10)) if t > 0 else 0.0)
    return sum(terms) / len(terms)


def previous_loss(logits, labels, tau, mode):
    if mode == "pixelwise":
        return unsupervised_loss(logits, labels, tau)
    p, images = probabilities(logits), range(len(logits))
    ce = {q: -math.log(p[q[0], labels[q][0], q[1], q[2]]) for q in labels}
    valid = [q for q in labels if labels[q][2]]
    total = 0.0
    for b in images:
        confidences = [labels[q][1] for q in valid if q[0] == b]
        counted = ce if mode == "pixelavg" else [q for q in valid if q[0] == b]
        total += sum(confidences) / max(len(confidences), 1) * sum(ce[q] for q in counted)
    return total / len(valid)


def prevmatch_literally(network, batch, tau, states, weight, tau_prev, mode):
    """Return the loss; `states`: state dicts of the previous models, oldest first."""
    u, n = batch["unlabeled"], len(batch["labeled"]["image"])
    loss_x, loss_u, (z_s1, z_s2, z_fp) = unimatch_parts(network, batch, tau)
    former = copy.deepcopy(network).eval()

    def labels_of(images, ignore):
        logits = 0
        for state, part in zip(states[::-1], shares(2), strict=False):
            former.load_state_dict(state)
            with torch.no_grad():
                logits = logits + part * former(images)
        return label_of(logits, ignore)

    own = labels_of(u["weak"], u["ignore"])
    if "partner" in u:
        other = labels_of(u["partner"]["weak"], u["partner"]["ignore"])
    else:
        other = {(b, i, j): own[(b - 1) % n, i, j] for b, i, j in own}
    s1 = previous_loss(z_s1, mixed_labels(own, other, u["box"][0]), tau_prev, mode)
    s2 = previous_loss(z_s2, mixed_labels(own, other, u["box"][1]), tau_prev, mode)
    fp = previous_loss(z_fp, own, tau_prev, mode)
    loss_prev = 0.25 * s1 + 0.25 * s2 + 0.5 * fp
    return (loss_x + loss_u + weight * loss_prev) / (2 + weight)
