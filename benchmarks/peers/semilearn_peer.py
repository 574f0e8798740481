"""The peer a user would pick for FixMatch, semilearn (USB) 0.3.2, on the draws of `draws`.

    pip install --no-deps semilearn==0.3.2 progress ruamel.yaml tensorboard protobuf absl-py \\
        transformers huggingface_hub tokenizers regex requests pyyaml
    python -m benchmarks run semilearn_peer mnist --draws 0-2 --minutes 10

It asks for CUDA even where it is told of none, so here `Tensor.cuda` and what measures time on a
GPU do nothing, and torchaudio, wandb and aim, which it imports and this does not use, are empty.
Its own defaults otherwise: WideResNet-28-2 on 32 pixels, SGD 0.03, RandAugment, weak views of
crops, and flips of colour images. The first steps are timed and the schedule is as long as the
minutes allow; imports, that measurement and scoring come on top. Scored once, at the end, by the
weights and by their average: the better counts, which favours the peer.
"""

import argparse
import contextlib
import importlib.machinery
import sys
import tempfile
import time
import types
from typing import Any

import numpy as np
import torch

import handful
from benchmarks.lib import arguments, record
from benchmarks.peers.peers import opened
from handful.pipeline.setup import subsample_labels

BATCH, RATIO, PILOT = 16, 4, 8


def main() -> None:
    options = parse()
    on_the_cpu()
    kind, images, scored = opened(options)
    for draw in range(options.draws[0], options.draws[-1] + 1):
        seen = subsample_labels(images, options.per_class, draw)
        _, each = trained(seen, draw, PILOT)
        steps = int(60 * options.minutes / each)
        if steps < 1:
            raise SystemExit(f"a step takes {each:.1f} s: give more --minutes")
        trainer, each = trained(seen, draw, steps)
        found = {ema: accuracy(trainer, scored, ema) for ema in (False, True)}
        figures = {
            "test_accuracy": round(max(found.values()), 5),
            "of_weights": round(found[False], 5),
            "of_average": round(found[True], 5),
            "n_test": len(scored),
            "steps": steps,
            "seconds": round(steps * each, 1),
        }
        row = f"{options.source} {options.per_class} semilearn-fixmatch"
        print(row, draw, figures, flush=True)
        if not options.dry:
            record.append("peers", row, kind, figures, draw=draw)


def on_the_cpu() -> None:
    """What semilearn asks of a GPU does nothing; what it imports and does not need is empty."""

    def same(self: Any, *_: Any, **__: Any) -> Any:
        return self

    class Event:
        def __init__(self, **_: Any) -> None: ...
        def record(self) -> None: ...
        def elapsed_time(self, _: Any) -> float:
            return 0.0

    torch.Tensor.cuda = torch.nn.Module.cuda = same  # type: ignore[method-assign,assignment]
    for name in ("set_device", "synchronize"):
        setattr(torch.cuda, name, lambda *_: None)
    torch.cuda.Event = Event  # type: ignore[misc,assignment]
    for name in ("torchaudio", "wandb", "aim", "aim.pytorch"):
        empty = types.ModuleType(name)
        empty.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = empty


def trained(seen: handful.ImageSet, draw: int, steps: int) -> tuple[Any, float]:
    """A trainer after so many steps, and the seconds of one."""
    import semilearn
    from torchvision import transforms

    config = semilearn.get_config(
        {
            "algorithm": "fixmatch", "net": "wrn_28_2", "use_pretrain": False, "dataset": "none",
            "num_classes": len(seen.classes), "num_labels": len(seen.labeled), "img_size": 32,
            "batch_size": BATCH, "uratio": RATIO, "eval_batch_size": 500, "epoch": 1,
            "num_train_iter": steps, "num_eval_iter": steps, "num_log_iter": steps + 1,
            "lr": 0.03, "seed": draw, "gpu": 0, "world_size": 1, "distributed": False,
            "num_workers": 0, "save_dir": tempfile.gettempdir(), "save_name": f"semilearn-{draw}",
        }
    )  # fmt: skip
    torch.manual_seed(draw)
    np.random.seed(draw)
    algorithm = semilearn.get_algorithm(
        config, semilearn.get_net_builder(config.net, from_name=False), tb_log=None, logger=None
    )
    moved = [transforms.RandomCrop(32, 4, padding_mode="reflect")]
    if seen.channels == 3:
        moved.append(transforms.RandomHorizontalFlip())
    rand_augment = semilearn.datasets.augmentation.RandAugment(3, 5)
    weak = transforms.Compose([*moved, tensors()])
    strong = transforms.Compose([*moved, rand_augment, tensors()])
    data = [pixels(seen, positions) for positions in (seen.labeled, np.arange(len(seen)))]
    labels = seen.labels
    known = semilearn.BasicDataset(
        "fixmatch", data[0], labels[seen.labeled], len(seen.classes), weak, is_ulb=False
    )
    pool = semilearn.BasicDataset(
        "fixmatch", data[1], np.zeros(len(seen), np.int64), len(seen.classes), weak, True, strong
    )
    loaders = [
        semilearn.get_data_loader(config, known, BATCH, num_iters=steps),
        semilearn.get_data_loader(config, pool, BATCH * RATIO, num_iters=steps),
    ]
    trainer = semilearn.Trainer(config, algorithm)
    trainer.evaluate = lambda _: {"acc": 0.0}  # scored once, at the end
    algorithm.evaluate = lambda *_, **__: {"eval/top-1-acc": 0.0}
    begun = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        trainer.fit(*loaders, None)
    return trainer, (time.perf_counter() - begun) / steps


def tensors() -> Any:
    from torchvision import transforms

    return transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)])


def pixels(images: handful.ImageSet, positions: np.ndarray) -> np.ndarray:
    """(N, 32, 32, 3) uint8."""
    found = images[positions].at(32)
    return found.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()


@torch.no_grad()
def accuracy(trainer: Any, test: handful.ImageSet, ema: bool) -> float:
    if ema:
        trainer.algorithm.ema.apply_shadow()
    model = trainer.algorithm.model.eval()
    right = 0
    for start in range(0, len(test), 500):
        some = np.arange(start, min(start + 500, len(test)))
        x = torch.from_numpy(pixels(test, some)).permute(0, 3, 1, 2).float() / 255
        guess = model((x - 0.5) / 0.25)["logits"].argmax(dim=1).numpy()
        right += int((guess == test.labels[some]).sum())
    if ema:
        trainer.algorithm.ema.restore()
    return right / len(test)


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("source")
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument(
        "--draws", type=lambda text: [int(x) for x in text.split("-")], default=[0, 2]
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--dev", type=int, default=0, metavar="IMAGES")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
