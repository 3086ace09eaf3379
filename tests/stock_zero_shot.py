"""Stock open_clip alone: python -I -S stock_zero_shot.py SITE_PACKAGES FOLDER PICTURES PROMPT…

Loads an exported folder, classifies the pictures of class folders, and prints JSON: `correct` for
each in the order of their names, `features` of the first picture and prompt, and the `ids` of that.
-S keeps .pth files, and so an editable install, out of reach; this script imports nothing of ours.
"""

import json
import os
import sys
from pathlib import Path

sys.path += sys.argv[1].split(os.pathsep)
try:
    import clipa_scaling  # noqa: F401
except ImportError:
    pass
else:
    sys.exit("clipa_scaling can be imported")

import open_clip
import torch
from PIL import Image


@torch.no_grad()
def main(name: str, pictures: Path, prompts: list[str]) -> None:
    """Print what stock open_clip makes of a folder and pictures."""
    model, _, transform = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()
    classes = sorted(folder.name for folder in pictures.iterdir())
    class_EC = open_clip.build_zero_shot_classifier(model, tokenizer, classes, prompts)
    correct, features = [], []
    for number, folder in enumerate(classes):
        for path in sorted((pictures / folder).iterdir()):
            image = transform(Image.open(path))[None]
            features.append(model.encode_image(image, normalize=True))
            correct.append(int((features[-1] @ class_EC).argmax()) == number)
    ids = tokenizer([prompts[0].format(classes[0])])
    text = model.encode_text(ids, normalize=True)
    first = {"image": features[0][0].tolist(), "text": text[0].tolist()}
    print(json.dumps({"correct": correct, "ids": ids[0].tolist(), **first}))


if __name__ == "__main__":
    main(f"local-dir:{sys.argv[2]}", Path(sys.argv[3]), sys.argv[4:])
