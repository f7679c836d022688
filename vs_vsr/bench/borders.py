"""What chunk and segment borders cost in quality: PSNR and SSIM against the whole clip.

    python -m vs_vsr.bench.borders LOW_FOLDER TRUTH_FOLDER --weights vimeo90k-bd

The folders hold the frames of one clip as image files, in the order of their names. --filter takes
IconVSR, RealBasicVSR, BasicVSRPP and AnimeSR too. Each setting is run over the whole clip. The
table gives, in dB and on the mean and on the worst frame, what it loses against the whole-clip
mode, and how near it is to that mode's pictures where it differs from them. It goes to standard
error, one JSON object with every figure to --json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vs_vsr.evaluation.scores import luma, psnr, ssim
from vs_vsr.evaluation.separable import Array
from vs_vsr.models.animesr import AnimeSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.plugin.plans import FILTERS
from vs_vsr.streaming.clip import Clip
from vs_vsr.streaming.plan import Plan
from vs_vsr.weights.loader import load_model

__all__ = ["main"]

_NAMES = ("chunk", "lookahead", "segment", "preroll")
_LOOKAHEADS = [(10, n, 1000, 0) for n in (0, 4, 7, 10, 15)]
_PREROLLS = [(10, 1000, 10, n) for n in (0, 4, 7, 10, 15)]
# BasicVSR++: as many frames before every chunk as after it.
_CONTEXTS = [(10, n, 10, n) for n in (0, 4, 7, 10, 15)]
# AnimeSR has no backward pass; what its state forgets, it forgets within a few frames.
_COLD_STARTS = [(1, 0, 10, n) for n in (0, 2, 4, 6, 8, 10)]
_DEFAULTS = [(30, 10, 120, 10), (30, 15, 120, 10), (15, 15, 60, 10), (15, 15, 15, 10)]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the settings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("low", type=Path)
    parser.add_argument("truth", type=Path)
    filters = ("BasicVSR", "IconVSR", "RealBasicVSR", "BasicVSRPP", "AnimeSR")
    parser.add_argument("--filter", choices=filters, default="BasicVSR")
    parser.add_argument("--weights", help="by default those of the filter")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    weights: Any = args.weights or FILTERS[args.filter].defaults.weights
    network: Any = load_model(weights, model=args.filter)
    if args.precision == "bf16":
        for parameter in network.parameters():
            parameter.data = parameter.data.bfloat16()
    low = [torch.from_numpy(picture)[None].float() / 255 for picture in _read(args.low)]
    truth = [luma(picture) for picture in _read(args.truth)]
    count = len(low)
    rows = []
    whole: tuple[Array, list[Array]] | None = None
    settings = [*_LOOKAHEADS, *_PREROLLS, *_DEFAULTS]
    if isinstance(network, BasicVSRPP):
        settings = _CONTEXTS
    if isinstance(network, AnimeSR):
        settings = _COLD_STARTS
    coupled = isinstance(network, IconVSR | AnimeSR)
    # As many frames as the filters' plans have.
    context = network.radius * (2 if isinstance(network, IconVSR) else 1) if coupled else 0
    for numbers in [(count, 0, count, 0), *settings]:
        setting: dict[str, Any] = dict(zip(_NAMES, numbers, strict=True))
        plan = Plan(frames=count, context=context, coupled=coupled, **setting)
        lumas = [luma(picture.numpy()) for part in Clip(network, plan, low) for picture in part]
        values = np.array([psnr(a, b) for a, b in zip(lumas, truth, strict=True)])
        whole = (values, lumas) if whole is None else whole
        # Frames before the first border are the same, and have no PSNR.
        pairs = zip(lumas, whole[1], strict=True)
        beside = np.array([psnr(a, b) for a, b in pairs if not np.array_equal(a, b)])
        row = {
            **setting,
            "psnr": values.mean(),
            "ssim": float(np.mean([ssim(a, b) for a, b in zip(lumas, truth, strict=True)])),
            "loss_mean": (values - whole[0]).mean(),
            "loss_worst": (values - whole[0]).min(),
            "near_mean": beside.mean() if beside.size else None,
            "near_worst": beside.min() if beside.size else None,
        }
        rows.append(row)
        text = "  ".join(
            f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
        )
        sys.stderr.write(text + "\n")
    if args.json:
        named = {"filter": args.filter, "weights": weights, "precision": args.precision}
        result = {**named, "frames": count, "torch": torch.__version__, "rows": rows}
        args.json.write_text(json.dumps(result))


def _read(folder: Path) -> list[Array]:
    """The images of a folder, each (3, H, W), uint8."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".bmp", ".jpg"))
    return [np.array(Image.open(file).convert("RGB")).transpose(2, 0, 1) for file in files]


if __name__ == "__main__":
    main()
