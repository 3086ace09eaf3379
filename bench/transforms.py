"""What open_clip's transform makes of pictures larger than a run's: `transforms.py RUN_DIR`.

Drawn scenes of several sizes go through our packing and evaluation, and
through open_clip's transform with each of its filters, to the run's weights: how far pictures are
apart, in grey levels of 255; features, as 1 - cosine; and the accuracy of each. Half a minute.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import load_file

from clipa_scaling.models import load_model
from clipa_scaling.rundir import RunDir, read_json
from clipa_scaling.spec import RunSpec, spec_from_json
from clipa_scaling.train.checkpoint import WEIGHTS
from clipa_scaling.train.model import build_of, encode_image, encode_text, make_model, make_unit
from clipa_scaling.train.pictures import normalise, resize_all
from clipa_scaling.train.scenes import CLASS_NAMES, make_scenes
from clipa_scaling.train.shards import decode_picture
from clipa_scaling.train.tokenize import cut_ids, encode_texts

PICTURES, SEED = 500, 1
FACTORS = (1, 1.5, 2, 4, 8)  # of the evaluation size
FILTERS = ("bicubic", "bilinear")
LEVEL = 255 * np.mean(open_clip.OPENAI_DATASET_STD)  # grey levels in a unit of normalised pixels


def load_run(run: RunDir) -> tuple[RunSpec, open_clip.CLIP]:
    spec, folder = spec_from_json(read_json(run.spec)), run.last_checkpoint()
    assert folder is not None, "the run is done"
    sizes = spec.image_size, spec.text_tokens, spec.vocab_size, spec.seed
    model = make_model(load_model(spec.model), *sizes, build_of(spec)).eval()
    model.load_state_dict(load_file(folder / WEIGHTS))
    return spec, model


def as_png(picture: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


@torch.no_grad()
def main() -> None:
    spec, model = load_run(RunDir(Path(sys.argv[1])))
    prompts = encode_texts([f"a photo of a {name}" for name in CLASS_NAMES])
    text_CT = torch.from_numpy(cut_ids(prompts, spec.text_tokens))
    class_CE = make_unit(encode_text(model, text_CT)[0])
    print(f"{spec.model}, stored at {spec.store_px} px, evaluated at {spec.image_size} px")
    for factor in FACTORS:
        px = round(factor * spec.image_size)
        drawn, _, label = make_scenes(SEED, 0, PICTURES, px)
        files = [as_png(picture) for picture in drawn]
        stored = np.stack([decode_picture(file, spec.store_px) for file in files])
        ways = {"ours": normalise(resize_all(stored, spec.image_size))}
        for name in FILTERS:
            transform = image_transform(spec.image_size, False, interpolation=name)
            ways[name] = torch.stack([transform(Image.open(io.BytesIO(file))) for file in files])
        features = {name: make_unit(encode_image(model, x, None)[0]) for name, x in ways.items()}
        for name, image_NE in features.items():
            apart = LEVEL * float((ways[name] - ways["ours"]).abs().mean())
            turned = 1 - float((image_NE * features["ours"]).sum(dim=1).mean())
            right = (image_NE @ class_CE.T).argmax(dim=1).numpy() == label
            numbers = f"{apart:5.1f} grey  {turned:8.1e}  {right.mean():6.1%} right"
            print(f"{px:5} px  {name:9} {numbers}")


if __name__ == "__main__":
    main()
