"""The two reports' own numbers, in one place. Accuracies are in per cent, losses in nats."""

# test accuracy after the last epoch, {task: {configuration: value}}
ACCURACY = {
    "task1_loss_curves": {"baseline": 50.68},  # section 4.2.1; section 4.1 says 49
    "task2_regularization": {"no_regularization": 61.35, "baseline": 50.68, "strong_regularization": 10.00},
    "task3_hparams": {
        "baseline": 50.68,
        "high_lr": 22.29,
        "low_lr": 40.21,
        "more_epochs": 54.93,
        "no_regularization": 61.35,
        "strong_regularization": 10.00,
        "no_momentum": 36.51,
    },
    "task4_architectures": {"lenet": 36.30, "lightweight_resnet": 63.37},
    "project3_wrn": {"resnet18": 95.77, "wrn28_10": 96.45},
}
# training loss of the last epoch, sections 4.2.2 to 4.2.4 and 4.3
LOSS = {
    "task2_regularization": {"no_regularization": 1.0241, "baseline": 1.4336, "strong_regularization": 2.3029},
    "task3_hparams": {
        "baseline": 1.4336,
        "high_lr": 2.06,
        "low_lr": 1.692,
        "more_epochs": 1.3792,
        "no_regularization": 1.0241,
        "strong_regularization": 2.3029,
        "no_momentum": 1.745,
    },
    "task4_architectures": {"lenet": 1.768, "lightweight_resnet": 0.936},
}
TASK1_ACCURACY = (49, 50.68)  # sections 4.1 and 4.2.1
TASK1_LOSSES = (1.90, 1.59, 1.51, 1.47, 1.43)  # section 4.1, read off its figure
TASK4_FIRST_EPOCH = {"lenet": 15.01, "lightweight_resnet": 44.68}  # test accuracy after one epoch
TASK4_THIRD_EPOCH = {"lightweight_resnet": 53.02}  # test accuracy after three epochs
TASK4_PARAMETERS = {"lenet": 62_000, "lightweight_resnet": 309_000}
TASK4_SECONDS = {"lenet": 49.1, "lightweight_resnet": 53.0}  # on an NVIDIA A10

# project 3, table 1.7: training, validation and test accuracy of each network
NETWORKS = {
    "resnet18": (98.34, 95.78, 95.77),
    "resnet34": (98.41, 96.34, 95.59),
    "resnet50": (97.44, 95.42, 95.03),
    "wrn28_10": (97.10, 96.54, 96.45),
    "dla34": (92.32, 90.72, 90.69),
    "vit": (50.75, 54.04, 53.48),
}
# project 3, table 1.4: test accuracy of DLA-34 by (epochs, batch size)
GRID = {
    (20, 64): 81.38,
    (20, 128): 81.00,
    (20, 256): 68.10,
    (50, 64): 85.91,
    (50, 128): 88.03,
    (50, 256): 87.94,
    (100, 64): 87.69,
    (100, 128): 52.11,
    (100, 256): 90.69,
}
# project 3, section 2.1: (loss, accuracy) after the epochs that it names, and its three phases of training
TRAINING = {1: (1.88, 34.3), 20: (1.04, 77.4), 60: (0.84, 89.6), 100: (0.60, 96.8)}
VALIDATION = {77: (0.743, 94.16), 96: (0.712, 95.7)}
PHASES = ((1, 20), (21, 60), (61, 100))
# project 3, section 2.2: test accuracy, which section 2.7 gives as 95.39
CHAPTER_2_ACCURACY = 95.57
# project 3, table 2.3: recall of each class, in per cent
RECALL = {
    "airplane": 96.50,
    "automobile": 97.2,
    "bird": 93.5,
    "cat": 90.9,
    "deer": 97.5,
    "dog": 92.3,
    "frog": 97,
    "horse": 96.9,
    "ship": 97.5,
    "truck": 96.4,
}
# project 3, section 2.4: test images of a true class that are predicted as another
CONFUSIONS = {
    ("cat", "dog"): 66,
    ("dog", "cat"): 46,
    ("automobile", "truck"): 25,
    ("truck", "automobile"): 14,
    ("bird", "deer"): 20,
    ("bird", "cat"): 19,
    ("bird", "frog"): 13,
}
# project 3, section 2.4: the probabilities, in per cent, of a cat that is taken for a dog with high confidence, and the
# pairs that most of the 20 most confident errors are of
CONFIDENT_ERROR = {"dog": 99.71, "cat": 0.08}
CONFIDENT_PAIRS = (("cat", "dog"), ("automobile", "truck"))
# project 3, section 2.7: training and test accuracy of chapter 2's network
CHAPTER_2 = {"train": 96.8, "test": 95.39}
# project 3, section 3.1: the pairs of classes that the network confuses most
CONFUSED_PAIRS = (("cat", "dog"), ("automobile", "truck"), ("bird", "deer"))
