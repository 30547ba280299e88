"""The test images of CIFAR-10 that people found to be labeled wrongly.

Of 275 test images that were shown to five people each (Northcutt et al., arXiv 2103.14749), these are the 54 for which
fewer than three people chose the given label alone: `given` below 3 in github.com/cleanlab/label-errors'
cifar10_mturk.json. A vote for the given label together with another class does not count as a vote for the label
alone; for 17 of the 54, three or more people saw the given class.
"""

import torch

EXAMINED = 275  # test images that people were shown
LABEL_ERRORS = (
    *(165, 792, 882, 1227, 1300, 1684, 1718, 1969, 2010, 2128, 2232, 2405, 2532, 2592, 2804, 2840, 2940, 3113),
    *(3168, 3183, 3192, 3490, 3600, 3753, 3977, 4055, 4198, 4614, 4643, 4794, 4910, 4965, 5166, 5191, 5211, 5468),
    *(5632, 5690, 5882, 5960, 6522, 6792, 6877, 6966, 7311, 7657, 7846, 8058, 8296, 8620, 9227, 9352, 9643, 9793),
)
TEST_SET = 10_000  # images of the full test set, to which the indices refer


def known(labels: torch.Tensor) -> tuple[int, ...]:
    """Return the known label errors of a test set with labels (N,): none unless it is CIFAR-10's full test set."""
    return LABEL_ERRORS if len(labels) == TEST_SET else ()
