"""How large a batch fits on which GPU: Stable Diffusion's UNets at their true sizes, from their shapes alone.

    python benchmarks/footprint.py --gib 16 24 80

Bytes of weights, adapter, gradients, moments, running mean and what autograd keeps, with 2 GiB left for everything else
(VAE, text encoder, workspace), and 5 where the text encoder learns, too. A row of JSON for each model, image size and
way of training: the images at once.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from saadi.diffusion.footprint import footprint

COMMON = {"sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280)}
SHAPES = {
    "sd-1.5": COMMON | {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd-1.5-inpainting": COMMON | {"in_channels": 9, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd-2.1": COMMON
    | {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
}
SPARE, SPARE_ALL = 2 * 2**30, 5 * 2**30
WAYS: dict[str, dict[str, Any]] = {
    "adapter": {"rank": 16, "bytes_each": 2},
    "adapter, checkpointing": {"rank": 16, "bytes_each": 2, "checkpointing": True},
    "all weights": {"rank": 0, "bytes_each": 2},
    "all weights, checkpointing, 8 bit": {"rank": 0, "bytes_each": 2, "checkpointing": True, "eight_bit": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, nargs="+", default=[16, 24, 80])
    parser.add_argument("--size", type=int, nargs="+", default=[512, 768])
    arguments = parser.parse_args()
    for name, shape in SHAPES.items():
        for size in arguments.size:
            told = footprint(shape, size, 8, 77)
            print(json.dumps({"model": name, "size": size, "tflops_forward": round(told.flops / 1e12, 2)}), flush=True)
            for way, how in WAYS.items():
                one, two = (told.training(images, **how) for images in (1, 2))
                spare = SPARE if how["rank"] else SPARE_ALL
                room = {f"{gib:g}": gib * 2**30 - spare - one for gib in arguments.gib}
                fits = {gib: int(max(0, left // (two - one) + 1)) for gib, left in room.items()}
                row = {"model": name, "size": size, "way": way, "gib_of_one": round(one / 2**30, 1), "images": fits}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
