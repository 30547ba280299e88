"""Make the embedded sample from verified CIFAR-10: the first 140 training and 50 test images of each class, in file order.

python common/support/sample/make.py [--data DIR]
"""

import argparse
import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from common import data
from common.support import download
from common.support.files import atomic

PER_CLASS = {"train.bin": 140, "test.bin": 50}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    folder, _ = download.find(parser.parse_args().data)
    for part, (name, count) in zip(data.load(folder), PER_CLASS.items()):
        chosen = torch.cat([(part.labels == label).nonzero().flatten()[:count] for label in range(10)]).sort().values
        records = torch.cat([part.labels[chosen, None].to(torch.uint8), part.images[chosen].flatten(1)], dim=1)
        raw = records.numpy().tobytes()
        with atomic(data.SAMPLE / name) as temporary:
            temporary.write_bytes(raw)
        print(f'"{name}": "{hashlib.md5(raw, usedforsecurity=False).hexdigest()}",')


if __name__ == "__main__":
    main()
