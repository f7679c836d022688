"""The published peer's algorithm, the other networks, and the quality on Vid4 where it is given."""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from vs_vsr.bench import peer
from vs_vsr.bench.gpu.record import Record
from vs_vsr.bench.gpu.setting import Setting
from vs_vsr.bench.gpu.timing import synchronize
from vs_vsr.bench.networks import ROWS, prepared

__all__ = ["measure", "psnr_of"]

# Networks whose frames are few here: one row each must be short.
_FRAMES = {"EDVR L": 6, "VRT x4 (001)": 12, "VRT deblur (005)": 12}


def measure(setting: Setting, record: Record) -> None:
    """Measure the peer, then each network once, then the quality."""
    with record.part("vsbasicvsr's algorithm"):
        _peer(setting, record)
    for name in ROWS:
        if record.has(3, name):
            with record.part(name):
                _network(setting, record, name)
    with record.part("Vid4"):
        _vid4(setting, record)


def _peer(setting: Setting, record: Record) -> None:
    name = "vsbasicvsr's algorithm"
    if importlib.util.find_spec("vsbasicvsr") is None:
        record.add(name, note="vsbasicvsr is not installed")
        return
    width, height = setting.sizes[0] if not setting.quick else (64, 64)
    file = Path(setting.weights)
    # Those of a quick visit are of a smaller network.
    network = peer.load(file if file.is_file() and not setting.quick else None)
    # As its plugin does it: eager, everything in half precision on a GPU.
    dtype = torch.float16 if setting.is_cuda else torch.float32
    network = network.to(setting.torch_device, dtype)
    frames = [x.to(dtype) for x in setting.frames(15, (width, height))]
    count = setting.small_or(10, 1)
    # Its plugin has cuDNN try what is fastest. Both, so that the faster one is compared with.
    rounds: dict[bool, list[float]] = {True: [], False: []}
    before = torch.backends.cudnn.benchmark
    try:
        for tries in rounds:
            torch.backends.cudnn.benchmark = tries
            if setting.is_cuda:
                peer.seconds_per_frame(network, frames, 2)
            for _ in range(setting.small_or(2, 1)):
                rounds[tries].append(1 / peer.seconds_per_frame(network, frames, count))
    finally:
        torch.backends.cudnn.benchmark = before
    fps = max(map(max, rounds.values()))
    values = {"tuned_fps": rounds[True], "untuned_fps": rounds[False], "dtype": str(dtype)}
    record.add(name, fps=fps, **values)


def _network(setting: Setting, record: Record, name: str) -> None:
    width, height = setting.sizes[0] if not setting.quick else (32, 32)
    count = setting.small_or(_FRAMES.get(name, 30), 2)
    precision = "fp16" if setting.is_cuda else "fp32"
    run = prepared(name, precision, width, height, device=setting.device, count=count)
    if setting.is_cuda:
        run()
    took = run()
    row = {"fps": 1 / took, "frames": count, "precision": precision}
    if setting.is_cuda:
        synchronize(setting.torch_device)
        peak = torch.cuda.max_memory_allocated(setting.torch_device)
        torch.cuda.reset_peak_memory_stats(setting.torch_device)
        torch.cuda.empty_cache()
        row["peak_mib"] = peak / 2**20
    record.add(name, **row)


def _vid4(setting: Setting, record: Record) -> None:
    if setting.vid4 is None:
        record.add("Vid4", note="no frames were given (--vid4 SMALL TRUE)")
        return
    low, truth, processor_db = setting.vid4
    psnr = psnr_of(setting, low, truth)
    single = psnr_of(setting, low, truth, torch.float32)
    values = {"psnr_db": psnr, "float32_db": single, "processor_db": processor_db}
    record.add("Vid4", dtype=str(setting.dtype), **values)


def psnr_of(setting: Setting, low: Path, truth: Path, dtype: torch.dtype | None = None) -> float:
    """Mean PSNR of Y over a whole clip, in dB; the folders hold its frames as images."""
    # Only here, as a visit may be without these packages.
    from PIL import Image

    from vs_vsr.evaluation.scores import luma, psnr

    def pictures(folder: Path) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".bmp"))
        return [np.array(Image.open(p).convert("RGB")).transpose(2, 0, 1) for p in files]

    frames = [torch.from_numpy(p)[None].float() / 255 for p in pictures(low)]
    clip = torch.stack([x.to(setting.torch_device) for x in frames], dim=1)
    with torch.inference_mode():
        made = setting.network(dtype)(clip)[0].float().cpu().numpy()
    wanted = pictures(truth)
    return float(np.mean([psnr(luma(a), luma(b)) for a, b in zip(made, wanted, strict=True)]))
