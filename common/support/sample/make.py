"""Make the embedded sample from verified CIFAR-10.

It has the first 140 training and 50 test images of each class, in file order.

python common/support/sample/make.py [--data DIR]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import torch

from common import cli, data
from common.support.cifar_files import SAMPLE, encode, md5
from common.support.files import atomic

PER_CLASS = {"train.bin": 140, "test.bin": 50}


def main():
    """Write both files of the sample, and print their MD5s for SAMPLE_FILES."""
    parser = cli.plain_parser(__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with CIFAR-10 in any official form")
    train, test, _ = data.load("full", parser.parse_args().data)
    for part, (name, count) in zip((train, test), PER_CLASS.items()):
        classes = range(len(data.CLASSES))
        chosen = torch.cat([(part.labels == label).nonzero().flatten()[:count] for label in classes]).sort().values
        raw = encode(part.labels[chosen].numpy(), part.images[chosen].flatten(1).numpy())
        with atomic(SAMPLE / name) as temporary:
            temporary.write_bytes(raw)
        print(f'"{name}": "{md5(raw)}",')


if __name__ == "__main__":
    cli.entry_point(main)
